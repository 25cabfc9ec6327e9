// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "cli/command_testing.h"
#include "memlayers/store.h"

namespace memlayers {
namespace {

using testing::expect_error;
using testing::Finished;
using testing::read_file;
using testing::run_command;
using testing::says;
using testing::TempDir;
using testing::write_file;

class ExplainCommand : public ::testing::Test {
 protected:
  ExplainCommand() { testing::write_model(dir_ / "model"); }
  Finished explain(std::vector<std::string> more) {
    std::vector<std::string> arguments{"explain", dir_ / "model", "the red otter has", "--threads",
                                       "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_command(arguments);
  }
  TempDir dir_;
};

TEST_F(ExplainCommand, TellsSlotsPatchesAndPromptsAsJsonAndDrawsThem) {
  const Finished before = explain({"--answer", "number two", "--json"});
  ASSERT_EQ(before.code, 0) << before.err;
  const auto first = nlohmann::json::parse(before.out);
  const std::int64_t slot = first["slots"][0]["slot"];
  {
    Store store = Store::open(dir_ / "model/pool");
    const Snapshot now = store.snapshot();
    store.apply({.id = "p", .pool = now.pool_id(), .width = now.width(), .erased = {slot}});
  }
  write_file(dir_ / "log.jsonl", "{\"prompt\": \"the red otter has\"}\n{\"prompt\": \"comet\"}\n");
  const Finished done = explain({"--answer", "number two", "--json", "--top", "36", "--prompts",
                                 dir_ / "log.jsonl", "--svg", dir_ / "a.svg"});
  ASSERT_EQ(done.code, 0) << done.err;
  const auto json = nlohmann::json::parse(done.out);
  EXPECT_NEAR(json["log_probability"],
              first["log_probability"].get<double>() + first["slots"][0]["change"].get<double>(),
              1e-3);
  bool is_named = false, is_used = false;
  for (const auto& found : json["slots"]) {
    is_named = is_named || (found["slot"] == slot && found["patch"] == "p");
    is_used = is_used || !found["prompts"].empty();
  }
  EXPECT_TRUE(is_named);
  EXPECT_TRUE(is_used);
  EXPECT_TRUE(says(read_file(dir_ / "a.svg"), {"<svg", "number two", "written by patch p"}));
}

TEST_F(ExplainCommand, ExplainsTheModelsOwnAnswerInATable) {
  const Finished done = explain({"--max-tokens", "4", "--top", "3"});
  ASSERT_EQ(done.code, 0) << done.err;
  EXPECT_TRUE(says(
      done.out, {"the model's answer: ", "log-probability", "without it", "layer.head", "base"}));
}

TEST_F(ExplainCommand, WhatCannotBeDoneIsOneSentence) {
  write_file(dir_ / "there.svg", "x");
  expect_error(explain({"--svg", dir_ / "there.svg"}), 1, "there.svg");
  EXPECT_EQ(read_file(dir_ / "there.svg"), "x");
  expect_error(explain({"--top", "0"}), 1, "top");
  expect_error(explain({"--prompts", dir_ / "none"}), 1, "none");
}

}  // namespace
}  // namespace memlayers
