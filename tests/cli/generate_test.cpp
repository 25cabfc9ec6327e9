// SPDX-License-Identifier: Apache-2.0
#include <csignal>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/command_testing.h"
#include "cli/interrupted.h"

namespace memlayers {
namespace {

using testing::expect_error;
using testing::Finished;
using testing::run_command;
using testing::says;
using testing::TempDir;
using testing::write_file;

class GenerateCommand : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = new TempDir;
    testing::write_model(*shared_ / "model");
  }
  static void TearDownTestSuite() { delete shared_; }
  static Finished generate(std::vector<std::string> arguments,
                           const testing::Streams& streams = {}) {
    arguments.insert(arguments.begin(), {"generate", model()});
    return run_command(arguments, streams);
  }
  // A copy of the model that a test may spoil.
  std::string spoiled() {
    std::filesystem::copy(model(), dir_ / "spoiled", std::filesystem::copy_options::recursive);
    return dir_ / "spoiled";
  }
  static std::string model() { return *shared_ / "model"; }
  static TempDir* shared_;
  TempDir dir_;
};
TempDir* GenerateCommand::shared_ = nullptr;

TEST_F(GenerateCommand, PrintsOneCleanJsonObjectAPrompt) {
  const Finished done = generate({"--json", "--max-tokens", "6", "the red", "a green comet"});
  ASSERT_EQ(done.code, 0) << done.err;
  EXPECT_EQ(done.err, "");
  GenerateOptions options;
  options.max_tokens = 6;
  Generator generator = Generator::load(model());
  const auto expected = generator.generate({"the red", "a green comet"}, options);
  std::istringstream lines(done.out);
  std::string line;
  for (std::size_t i = 0; i < 2; ++i) {
    ASSERT_TRUE(std::getline(lines, line));
    const auto object = nlohmann::json::parse(line);
    EXPECT_EQ(object["prompt"], i == 0 ? "the red" : "a green comet");
    EXPECT_EQ(object["text"], expected[i].text);
    EXPECT_EQ(object["tokens"], expected[i].tokens);
    EXPECT_EQ(object["prompt_tokens"], expected[i].prompt_tokens);
    EXPECT_TRUE(object["finish"] == "length" || object["finish"] == "stop");
  }
  EXPECT_FALSE(std::getline(lines, line));
}

TEST_F(GenerateCommand, ReadsPromptsFromAFileAndFromStandardInput) {
  write_file(dir_ / "prompts", "the red\n\na green comet\n");
  const Finished file = generate({"--file", dir_ / "prompts", "--max-tokens", "3"});
  EXPECT_EQ(file.code, 0) << file.err;
  EXPECT_TRUE(says(file.out, {"the red", "a green comet"}));
  const Finished input = generate({"-", "--max-tokens", "3"}, {.input = dir_ / "prompts"});
  EXPECT_EQ(input.out, file.out);
  const Finished piped = generate({"--max-tokens", "3"}, {.input = dir_ / "prompts"});
  EXPECT_EQ(piped.out, file.out);
}

TEST_F(GenerateCommand, ReadsLinesOfEveryKindAlike) {
  write_file(dir_ / "plain", "the red\na green comet\n");
  write_file(dir_ / "other", "\xEF\xBB\xBFthe red\r\n\r\na green comet\r\n");
  const auto said = [&](const std::string& file) {
    const Finished done = generate({"--file", file, "--max-tokens", "3"});
    EXPECT_EQ(done.code, 0) << done.err;
    EXPECT_EQ(generate({"-", "--max-tokens", "3"}, {.input = file}).out, done.out);
    return done.out;
  };
  EXPECT_EQ(said(dir_ / "other"), said(dir_ / "plain"));
  const auto answers = [&](const std::string& file) {
    return generate({"--interactive", "--max-tokens", "3"}, {.input = file}).out;
  };
  write_file(dir_ / "questions", "\xEF\xBB\xBFthe red\r\na green comet\r\n");
  EXPECT_EQ(answers(dir_ / "questions"), answers(dir_ / "plain"));
}

TEST_F(GenerateCommand, AFileWithoutAPromptIsNamed) {
  write_file(dir_ / "mark", "\xEF\xBB\xBF");
  expect_error(generate({"--file", dir_ / "mark"}), 1, dir_ / "mark: expected at least one line");
  expect_error(generate({"-"}), 1, "standard input: expected at least one line");
  write_file(dir_ / "bytes", "the red\n\xff\n");
  expect_error(generate({"--file", dir_ / "bytes"}), 1, "bytes:2: expected UTF-8, got byte 0xff");
}

TEST_F(GenerateCommand, WrongUsageIsTwo) {
  expect_error(generate({}), 2, "expected a prompt");
  expect_error(generate({"a", "--temperature", "-1"}), 2, "temperature");
  expect_error(generate({"a", "--top-p", "2"}), 2, "top_p");
}

TEST_F(GenerateCommand, WrongPromptsAndFoldersAreOne) {
  expect_error(generate({"\xff\xfe"}), 1, "UTF-8");
  expect_error(generate({"--file", dir_ / "none"}), 1, "none");
  expect_error(run_command({"generate", dir_ / "gone", "a"}), 1, dir_ / "gone");
  expect_error(run_command({"generate", dir_.path(), "a"}), 1, "config.json");
}

TEST_F(GenerateCommand, ACutAndALyingWeightsFileAreNamed) {
  const std::string weights = spoiled() + "/model.safetensors";
  const std::string whole = testing::read_file(weights);
  write_file(weights, whole.substr(0, whole.size() - 100));
  expect_error(run_command({"generate", dir_ / "spoiled", "a"}), 1, "model.safetensors");
  std::string lying = whole;  // another shape of the same size
  const std::size_t shape = lying.find("[300,32]");
  ASSERT_NE(shape, std::string::npos);
  lying.replace(shape, 8, "[32,300]");
  write_file(weights, lying);
  expect_error(run_command({"generate", dir_ / "spoiled", "a"}), 1, "embed_tokens");
}

TEST_F(GenerateCommand, NotANumberInTheWeightsIsNamed) {
  const std::string weights = spoiled() + "/model.safetensors";
  std::string bytes = testing::read_file(weights);
  bytes.replace(bytes.size() - 4, 4, std::string("\xff\xff\xff\x7f", 4));
  write_file(weights, bytes);
  expect_error(run_command({"generate", dir_ / "spoiled", "a"}), 1, "finite");
}

TEST_F(GenerateCommand, AConfigurationOfAnotherShapeIsNamed) {
  const std::string config = spoiled() + "/config.json";
  auto json = nlohmann::json::parse(testing::read_file(config));
  json["intermediate_size"] = 64;
  write_file(config, json.dump());
  expect_error(run_command({"generate", dir_ / "spoiled", "a"}), 1, "mlp");
}

TEST_F(GenerateCommand, AReaderThatLeavesIsNoErrorAndAFullDiskIs) {
  const Finished left =
      testing::run_unheard({"generate", model(), "--json", "--max-tokens", "4", "the red"});
  EXPECT_EQ(left.code, -SIGPIPE) << left.err;  // as of every tool that others read
  EXPECT_EQ(left.err, "");
  const Finished full = generate({"--max-tokens", "4", "the red"}, {.output = "/dev/full"});
  expect_error(full, 1, "standard output");
}

TEST_F(GenerateCommand, CtrlCEndsAConversationThatWaitsForAQuestion) {
  const Finished done = testing::run_interrupted(
      {"generate", model(), "--interactive", "--max-tokens", "3"}, "the red\n");
  EXPECT_TRUE(done.out.ends_with('\n')) << "the answer is whole: then it waits, or soon will";
  EXPECT_EQ(done.code, 130);
}

TEST_F(GenerateCommand, AConversationEndsWithItsInput) {
  write_file(dir_ / "questions", "the red\n\xff\nthe blue\n");
  const Finished done =
      generate({"--interactive", "--max-tokens", "3"}, {.input = dir_ / "questions"});
  EXPECT_EQ(done.code, 0);
  EXPECT_TRUE(says(done.err, {"memlayers: error: ", "UTF-8"})) << "and the next question is asked";
  EXPECT_EQ(std::count(done.out.begin(), done.out.end(), '\n'), 2) << done.out;
}

}  // namespace
}  // namespace memlayers
