// SPDX-License-Identifier: Apache-2.0
#include "train/run_state.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/testing.h"

namespace memlayers::train {
namespace {

using memlayers::testing::expect_error;
using ::testing::AllOf;
using ::testing::HasSubstr;

RunState some_state() {
  RunState state;
  state.step = 20;
  state.position = {.epoch = 1, .batch = 3};
  state.data = "tokens";
  state.tokens = 4000;
  state.time_s = 1.5;
  state.row_steps = 20;
  state.loss = 0.1;
  return state;
}

class RunStateFile : public ::testing::Test {
 protected:
  RunState load(const std::string& text) {
    memlayers::testing::write_file(dir_ / "trainer.json", text);
    return load_run_state(io::posix(), dir_.path());
  }
  // What is said of the state with one field changed.
  void refused(const char* pointer, const nlohmann::json& value, const std::string& what) {
    nlohmann::json json = nlohmann::json::parse(state_json(some_state(), {}));
    json[nlohmann::json::json_pointer(pointer)] = value;
    expect_error([&] { load(json.dump()); },
                 AllOf(HasSubstr(dir_ / "trainer.json"), HasSubstr(what)));
  }
  memlayers::testing::TempDir dir_;
};

TEST_F(RunStateFile, ReadsWhatItWrote) {
  const RunState state = load(state_json(some_state(), {}));
  EXPECT_EQ(state.step, 20);
  EXPECT_EQ(state.position.batch, 3);
  EXPECT_EQ(state.loss, 0.1);
  EXPECT_FALSE(state.eval_loss.has_value());
}

TEST_F(RunStateFile, TakesNoNumberThatItWouldHaveToChange) {
  refused("/step", 1.5, "step: expected a whole number >= 0, got 1.5");
  refused("/step", -1, "step: expected a whole number >= 0, got -1");
  refused("/tokens", -1, "tokens: expected a whole number >= 0, got -1");
  refused("/tokens", 18446744073709551615U, "tokens: expected a whole number");
  refused("/row_steps", "20", "row_steps: expected a whole number >= 0, got \"20\"");
  refused("/position/batch", true, "position.batch: expected a whole number >= 0, got true");
  refused("/time_s", -0.5, "time_s: expected seconds >= 0, got -0.5");
  refused("/loss", "low", "loss: expected a number, got \"low\"");
  refused("/data", 3, "data: expected a string, got 3");
  refused("/version", 3, "version: expected a whole number from 1 to 2, got 3");
  refused("/version", 1.5, "version: expected a whole number from 1 to 2, got 1.5");
  refused("/format", "other", "format: expected \"memlayers.trainer\", got \"other\"");
}

TEST_F(RunStateFile, IsJsonAndNothingBehindIt) {
  const std::string good = state_json(some_state(), {});
  expect_error([&] { load(good + std::string("\0x", 2)); }, HasSubstr("zero byte"));
  expect_error([&] { load(good.substr(0, 40)); }, HasSubstr("ends too early"));
  expect_error([&] { load("[]"); }, HasSubstr("expected an object, got []"));
}

}  // namespace
}  // namespace memlayers::train
