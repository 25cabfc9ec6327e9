// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

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
  EXPECT_NEAR(json["nll"]["value"].get<double>(), scores.nll->value, 1e-4);  // other threads
}

TEST_F(EvalCommand, WritesTheScoreOfEachFact) {
  const TempDir dir;
  const Finished done = eval({"--facts", facts(), "--json", "--each", dir / "each.jsonl"});
  ASSERT_EQ(done.code, 0) << done.err;
  std::istringstream lines(testing::read_file(dir / "each.jsonl"));
  double sum = 0;
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    const auto one = nlohmann::json::parse(line);
    EXPECT_FALSE(one["too_long"].get<bool>());
    EXPECT_TRUE(one["recalled"].is_boolean());
    EXPECT_GT(one["tokens"].get<int>(), 0);
    sum += one["nll"].get<double>();
  }
  EXPECT_EQ(count, 2);
  EXPECT_NEAR(nlohmann::json::parse(done.out)["nll"]["value"].get<double>(), sum / 2, 1e-9);
  expect_error(eval({"--data", *shared_ / "text.txt", "--each", dir / "x"}), 2,
               "--each: expected --facts beside it");
}

TEST_F(EvalCommand, ReadsFactsAndTextFromStandardInputToo) {
  const std::string model = *shared_ / "model";
  EXPECT_EQ(run_command({"eval", model, "--facts", "-"}, {.input = facts()}).out,
            eval({"--facts", facts()}).out);
  EXPECT_EQ(
      run_command({"eval", model, "--data", "/dev/fd/0"}, {.input = *shared_ / "text.txt"}).out,
      eval({"--data", *shared_ / "text.txt"}).out);
}

TEST_F(EvalCommand, NamesAndCountsFactsThatDoNotFitTheContext) {
  const TempDir dir;
  std::string words;
  for (int i = 0; i < 100; ++i) words += " otter";
  const std::string long_fact = R"({"prompt":")" + words + R"(","answer":"one"})" + "\n";
  write_file(dir / "mixed.jsonl", long_fact + R"({"prompt":"the red otter","answer":"one"})");
  const Finished mixed = eval({"--facts", dir / "mixed.jsonl", "--json"});
  ASSERT_EQ(mixed.code, 0) << mixed.err;
  EXPECT_TRUE(says(mixed.err, {"1 of 2 facts", "mixed.jsonl:1"}));
  const auto json = nlohmann::json::parse(mixed.out);
  EXPECT_EQ(json["too_long"], 1);
  const auto alone =
      nlohmann::json::parse(eval({"--facts", facts(), "--limit", "1", "--json"}).out);
  EXPECT_EQ(alone["too_long"], 0);
  EXPECT_FLOAT_EQ(json["nll"]["value"].get<float>(), alone["nll"]["value"].get<float>());
  write_file(dir / "long.jsonl", long_fact);
  const Finished none = eval({"--facts", dir / "long.jsonl"});
  EXPECT_EQ(none.code, 1);
  EXPECT_EQ(none.out, "");
  EXPECT_TRUE(says(none.err, {"memlayers: error: ", "long.jsonl:1: expected a fact of at most"}));
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

TEST_F(EvalCommand, PrintsThePerplexityOfWindowsWithItsInterval) {
  const TempDir dir;
  std::string words = "the";
  for (int i = 0; i < 1500; ++i) words += i % 3 == 0 ? " red otter" : " green comet";
  write_file(dir / "long.txt", words);
  const std::vector<std::string> arguments{"--data", dir / "long.txt", "--stride",
                                           "20",     "--window",       "30"};
  std::vector<std::string> with_json = arguments;
  with_json.emplace_back("--json");
  const Finished done = eval(with_json);
  ASSERT_EQ(done.code, 0) << done.err;
  EXPECT_TRUE(says(done.err, {"tokens 100%"}));
  const auto json = nlohmann::json::parse(done.out);
  Generator generator = Generator::load(*shared_ / "model");
  const TextScore score = evaluate_windows(generator, {dir / "long.txt"}, DataFormat::kAuto,
                                           {.stride = 20, .window = 30});
  EXPECT_NEAR(json["loss"].get<double>(), score.loss, 1e-5);  // other threads
  EXPECT_EQ(json["tokens"], score.tokens);
  EXPECT_EQ(json["window"], 30);
  EXPECT_NEAR(json["perplexity_interval"]["high"].get<double>(), std::exp(score.interval->high),
              1e-4 * std::exp(score.interval->high));
  EXPECT_TRUE(says(eval(arguments).out, {"perplexity", "95 % interval", " to "}));
}

TEST_F(EvalCommand, ScoresMultipleChoice) {
  const TempDir dir;
  const std::string path = dir / "q.jsonl";
  write_file(path, R"({"question":"the red otter","choices":["one","two hundred"],"answer":1})"
                   "\n"
                   R"({"question":"the blue","choices":["maple","comet"],"answer":"maple"})"
                   "\n");
  const Finished done = eval({"--choices", path, "--json"});
  ASSERT_EQ(done.code, 0) << done.err;
  const auto json = nlohmann::json::parse(done.out);
  Generator generator = Generator::load(*shared_ / "model");
  const ChoiceScores scores = evaluate_choices(generator, read_questions({path}));
  EXPECT_EQ(json["kind"], "choices");
  EXPECT_EQ(json["questions"], 2);
  EXPECT_EQ(json["too_long"], 0);
  EXPECT_DOUBLE_EQ(json["acc"]["value"].get<double>(), scores.accuracy->value);
  EXPECT_DOUBLE_EQ(json["acc_norm"]["high"].get<double>(), scores.accuracy_by_length->high);
  EXPECT_TRUE(says(eval({"--choices", path, "--show", "1"}).out,
                   {"2 questions", "acc_norm", "Wilson", "wanted: two hundred", "chosen: "}));
  std::string words;
  for (int i = 0; i < 60; ++i) words += " otter";
  const std::string too_long =
      R"({"question":"the","choices":["red",")" + words + R"("],"answer":0})" + "\n";
  write_file(dir / "long.jsonl", too_long);
  expect_error(eval({"--choices", dir / "long.jsonl"}), 1, "long.jsonl:1: expected a question");
  write_file(path, too_long + R"({"question":"the","choices":["red","blue"],"answer":0})");
  const Finished mixed = eval({"--choices", path, "--json"});
  EXPECT_TRUE(says(mixed.err, {"1 of 2 questions", "q.jsonl:1"}));
  EXPECT_EQ(nlohmann::json::parse(mixed.out)["too_long"], 1);
}

TEST_F(EvalCommand, SaysWhatIsWrongInOneLine) {
  const TempDir dir;
  expect_error(eval({}), 2, "expected one of --facts, --data and --choices, got none");
  expect_error(eval({"--facts", facts(), "--choices", facts()}), 2, "got several");
  expect_error(eval({"--data", facts(), "--window", "8"}), 2, "--window: expected --stride");
  expect_error(eval({"--facts", facts(), "--stride", "8"}), 2, "--stride: expected --data");
  expect_error(eval({"--data", *shared_ / "text.txt", "--stride", "50"}), 1,
               "stride: expected 1 to 40");
  expect_error(eval({"--choices", facts()}), 1, "facts.jsonl:1: expected a field \"question\"");
  expect_error(eval({"--facts", facts(), "--limit", "0"}), 2, "--limit");
  write_file(dir / "empty.jsonl", "");
  expect_error(eval({"--facts", dir / "empty.jsonl"}), 1, dir / "empty.jsonl");
  write_file(dir / "bad.jsonl", "{\"prompt\": \"a\"}\n");
  expect_error(eval({"--facts", dir / "bad.jsonl"}), 1, "\"answer\"");
  expect_error(eval({"--facts", dir / "gone.jsonl"}), 1, "gone.jsonl");
}

}  // namespace
}  // namespace memlayers
