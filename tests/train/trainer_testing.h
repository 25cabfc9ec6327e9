// SPDX-License-Identifier: Apache-2.0
// Trainings of tests, each in a folder of its own.
#pragma once

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "memlayers/error.h"
#include "memlayers/trainer.h"
#include "support/temp_dir.h"
#include "train/metrics.h"
#include "train/run_testing.h"

namespace memlayers::testing {

class TrainerTest : public ::testing::Test {
 protected:
  TrainerTest() { write_facts(facts_); }
  TrainConfig config(const std::string& out = "run") { return tiny_config(dir_ / out, facts_); }

  TempDir dir_;
  std::string facts_ = dir_ / "facts.jsonl";
};

// The message of the Error that the training throws.
inline std::string error_of_training(TrainConfig config) {
  try {
    Trainer(std::move(config)).run();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

inline std::vector<StepMetrics> logged(const std::string& out) {
  return train::RunLog(io::posix(), out, std::numeric_limits<std::int64_t>::max()).metrics();
}

}  // namespace memlayers::testing
