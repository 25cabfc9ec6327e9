// SPDX-License-Identifier: Apache-2.0
#include "train/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "memlayers/error.h"
#include "support/temp_dir.h"

namespace memlayers::train {
namespace {

StepMetrics some_metrics(std::int64_t step) {
  return {.step = step,
          .loss = 1.0 / 3,
          .lr = 3e-4,
          .value_lr = 1e-3,
          .epoch = 0.7,
          .tokens = 123456789012,
          .tokens_per_s = 4321.5,
          .time_s = 1e5 / 7,
          .grad_norm = 0.1,
          .value_grad_norm = 0.2,
          .touched_rows = 77,
          .bad_steps = 2,
          .eval_loss = 2.0 / 3,
          .bytes_sent = {123456789012, 7},
          .pool_bytes = {1 << 30, 99},
          .waited_s = {0.1, 1.0 / 3}};
}

TEST(Metrics, ReadBackAsTheSameNumbers) {
  const StepMetrics m = some_metrics(5);
  const StepMetrics read = parse_metrics(to_json(m));
  EXPECT_EQ(to_json(read), to_json(m));
  EXPECT_EQ(read.loss, m.loss);
  EXPECT_EQ(read.time_s, m.time_s);
  EXPECT_EQ(read.eval_loss, m.eval_loss);
  EXPECT_EQ(read.tokens, m.tokens);
  EXPECT_EQ(read.bytes_sent, m.bytes_sent);
  EXPECT_EQ(read.pool_bytes, m.pool_bytes);
  EXPECT_EQ(read.waited_s, m.waited_s);
}

TEST(Metrics, WriteANumberThatIsNotFiniteAsNull) {
  StepMetrics m = some_metrics(5);
  m.loss = std::numeric_limits<double>::quiet_NaN();
  m.eval_loss = {};
  EXPECT_NE(to_json(m).find("\"loss\":null"), std::string::npos);
  EXPECT_EQ(to_json(m).find("eval_loss"), std::string::npos);
  EXPECT_TRUE(std::isnan(parse_metrics(to_json(m)).loss));
}

TEST(Metrics, RejectALineThatIsNotALoggedStep) {
  EXPECT_THROW(parse_metrics("{\"step\": 1}"), Error);
  EXPECT_THROW(parse_metrics("not JSON"), Error);
  EXPECT_THROW(parse_sample("{}"), Error);
}

TEST(RunLog, DropsLaterStepsAndTornLinesWhenItIsOpenedAgain) {
  const testing::TempDir dir;
  const std::string path = dir / "metrics.jsonl";
  {
    RunLog log(io::posix(), dir.path(), 0);
    for (std::int64_t step : {10, 20, 30}) log.add(some_metrics(step));
    log.add(TrainSample{.step = 20, .prompt = "a", .text = "b \"c\"\n"});
    log.add(TrainSample{.step = 30, .prompt = "a", .text = "d"});
  }
  LineFile(io::posix(), path).append("{\"step\": 15, torn");
  const std::string whole = io::read_text(io::posix(), path);
  {
    RunLog log(io::posix(), dir.path(), 20);
    ASSERT_EQ(log.metrics().size(), 2U);
    ASSERT_EQ(log.samples().size(), 1U);
    EXPECT_EQ(log.samples()[0].text, "b \"c\"\n");
    log.add(some_metrics(25));
  }
  const std::string text = io::read_text(io::posix(), path);
  EXPECT_EQ(text, to_json(some_metrics(10)) + "\n" + to_json(some_metrics(20)) + "\n" +
                      to_json(some_metrics(25)) + "\n");
}

TEST(RunLog, LeavesEachLineInTheFileAtOnce) {
  const testing::TempDir dir;
  RunLog log(io::posix(), dir.path(), 0);
  log.add(some_metrics(1));
  EXPECT_EQ(io::read_text(io::posix(), dir / "metrics.jsonl"), to_json(some_metrics(1)) + "\n");
}

}  // namespace
}  // namespace memlayers::train
