// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/command_testing.h"
#include "memlayers/evaluate.h"

namespace memlayers {
namespace {

using testing::expect_error;
using testing::Finished;
using testing::run_command;
using testing::says;
using testing::TempDir;
using testing::write_file;

class EvalCommand : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = new TempDir;
    testing::write_model(*shared_ / "model");
    write_file(facts(), R"({"prompt":"the red otter","answer":"one"})"
                        "\n"
                        R"({"prompt":"the blue maple","answer":"two hundred"})"
                        "\n");
    write_file(*shared_ / "text.txt", "the green comet came over the harbour");
  }
  static void TearDownTestSuite() { delete shared_; }
  static std::string facts() { return *shared_ / "facts.jsonl"; }
  static Finished eval(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"eval", *shared_ / "model"});
    return run_command(arguments);
  }
  static TempDir* shared_;
};
TempDir* EvalCommand::shared_ = nullptr;

TEST_F(EvalCommand, PrintsTheScoresOfFactsAsJson) {
  const Finished done = eval({"--facts", facts(), "--json"});
  ASSERT_EQ(done.code, 0) << done.err;
  const auto json = nlohmann::json::parse(done.out);
  Generator generator = Generator::load(*shared_ / "model");
  const FactScores scores = evaluate_facts(generator, read_facts({facts()}));
  EXPECT_EQ(json["kind"], "facts");
  EXPECT_EQ(json["facts"], 2);
  EXPECT_DOUBLE_EQ(json["recall"]["value"].get<double>(), scores.recall.value);
  EXPECT_DOUBLE_EQ(json["recall"]["high"].get<double>(), scores.recall.high);
  EXPECT_NEAR(json["nll"]["value"].get<double>(), scores.nll.value, 1e-4);  // other threads
}

TEST_F(EvalCommand, PrintsATableAndAnswers) {
  const Finished done = eval({"--facts", facts(), "--limit", "1", "--show", "3"});
  EXPECT_EQ(done.code, 0) << done.err;
  EXPECT_TRUE(says(done.out, {"exact recall of 1 facts", "95 % interval", "the red otter",
                              "wanted: one", "got:"}));
  EXPECT_EQ(done.out.find("maple"), std::string::npos) << "beyond the limit";
}

TEST_F(EvalCommand, PrintsTheLossOfText) {
  const Finished done = eval({"--data", *shared_ / "text.txt", "--json"});
  ASSERT_EQ(done.code, 0) << done.err;
  const auto json = nlohmann::json::parse(done.out);
  EXPECT_EQ(json["kind"], "data");
  EXPECT_GT(json["tokens"], 5);
  EXPECT_NEAR(json["perplexity"].get<double>(), std::exp(json["loss"].get<double>()),
              1e-9 * json["perplexity"].get<double>());
}

TEST_F(EvalCommand, SaysWhatIsWrongInOneLine) {
  const TempDir dir;
  expect_error(eval({}), 2, "expected one of --facts and --data, got none");
  expect_error(eval({"--facts", facts(), "--limit", "0"}), 2, "--limit");
  write_file(dir / "empty.jsonl", "");
  expect_error(eval({"--facts", dir / "empty.jsonl"}), 1, dir / "empty.jsonl");
  write_file(dir / "bad.jsonl", "{\"prompt\": \"a\"}\n");
  expect_error(eval({"--facts", dir / "bad.jsonl"}), 1, "\"answer\"");
  expect_error(eval({"--facts", dir / "gone.jsonl"}), 1, "gone.jsonl");
}

}  // namespace
}  // namespace memlayers
