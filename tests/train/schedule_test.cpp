// SPDX-License-Identifier: Apache-2.0
#include "train/schedule.h"

#include <gtest/gtest.h>

namespace memlayers::train {
namespace {

TEST(Schedule, RisesLinearlyAndNeverStartsAtZero) {
  for (const Schedule schedule : {Schedule::kConstant, Schedule::kCosine, Schedule::kLinear}) {
    EXPECT_DOUBLE_EQ(schedule_factor(schedule, 0, 100, 4, 0.1), 0.25);
    EXPECT_DOUBLE_EQ(schedule_factor(schedule, 2, 100, 4, 0.1), 0.75);
    EXPECT_DOUBLE_EQ(schedule_factor(schedule, 4, 100, 4, 0.1), 1);
    EXPECT_DOUBLE_EQ(schedule_factor(schedule, 0, 100, 0, 0.1), 1);
  }
}

TEST(Schedule, EndsAtTheRatioInTheLastStepUnlessConstant) {
  EXPECT_DOUBLE_EQ(schedule_factor(Schedule::kConstant, 99, 100, 4, 0.1), 1);
  EXPECT_NEAR(schedule_factor(Schedule::kCosine, 99, 100, 4, 0.1), 0.1, 1e-12);
  EXPECT_NEAR(schedule_factor(Schedule::kLinear, 99, 100, 4, 0.1), 0.1, 1e-12);
  EXPECT_NEAR(schedule_factor(Schedule::kLinear, 250, 100, 4, 0.1), 0.1, 1e-12);
}

TEST(Schedule, IsHalfWayInTheMiddle) {
  EXPECT_NEAR(schedule_factor(Schedule::kCosine, 50, 101, 0, 0.2), 0.6, 1e-12);
  EXPECT_NEAR(schedule_factor(Schedule::kLinear, 50, 101, 0, 0.2), 0.6, 1e-12);
  EXPECT_GT(schedule_factor(Schedule::kCosine, 20, 101, 0, 0.2),
            schedule_factor(Schedule::kLinear, 20, 101, 0, 0.2));
}

TEST(Schedule, StandsRunsShorterThanTheirWarmUp) {
  EXPECT_DOUBLE_EQ(schedule_factor(Schedule::kCosine, 1, 2, 10, 0.1), 0.2);
  EXPECT_DOUBLE_EQ(schedule_factor(Schedule::kCosine, 0, 1, 0, 0.1), 1);
}

}  // namespace
}  // namespace memlayers::train
