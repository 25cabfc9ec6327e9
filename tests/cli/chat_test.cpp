// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <vector>

#include "cli/command_testing.h"
#include "cli/interrupted.h"
#include "memlayers/chat.h"

namespace memlayers {
namespace {

using testing::expect_error;
using testing::Finished;
using testing::run_command;
using testing::says;
using testing::TempDir;
using testing::write_file;

// The tiny model with a template.
class ChatCommand : public ::testing::Test {
 protected:
  static constexpr const char* kTemplate =
      "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}";
  static void SetUpTestSuite() {
    shared_ = new TempDir;
    testing::write_model(*shared_ / "model");
    write_file(*shared_ / "model/chat_template.jinja", kTemplate);
  }
  static void TearDownTestSuite() { delete shared_; }
  static std::string model() { return *shared_ / "model"; }

  // What the command says to these lines of input.
  Finished chat(const std::string& lines, std::vector<std::string> more = {}) {
    write_file(dir_ / "in", lines);
    std::vector<std::string> arguments{"chat", model(), "--max-tokens", "4"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_command(arguments, {.input = dir_ / "in"});
  }
  // What the model says behind a conversation.
  static std::string answer(const std::vector<ChatMessage>& messages, std::uint64_t seed = 0,
                            double temperature = 0) {
    Generator generator = Generator::load(model());
    GenerateOptions options;
    options.max_tokens = 4;
    options.seed = seed;
    options.temperature = temperature;
    const auto prompt = ChatTemplate::find(generator.tokenizer())->render(messages);
    return generator.generate_pieces({prompt}, options)[0].text;
  }
  static TempDir* shared_;
  TempDir dir_;
};
TempDir* ChatCommand::shared_ = nullptr;

TEST_F(ChatCommand, AnswersInTheLightOfWhatWasSaid) {
  const std::string first = answer({{"user", "the red"}});
  const std::string second =
      answer({{"user", "the red"}, {"assistant", first}, {"user", "a green"}});
  const Finished done = chat("the red\na green\n");
  EXPECT_EQ(done.code, 0) << done.err;
  EXPECT_EQ(done.out, first + "\n" + second + "\n");
}

TEST_F(ChatCommand, BeginsAnewAndAnswersAgain) {
  const std::string first = answer({{"user", "the red"}});
  EXPECT_EQ(chat("the red\n/reset\nthe red\n").out, first + "\n" + first + "\n");
  const std::string ruled = answer({{"system", "a comet"}, {"user", "the red"}});
  EXPECT_EQ(chat("/system a comet\nthe red\n").out, ruled + "\n");
  EXPECT_EQ(chat("the red\n/reset\nthe red\n", {"--system", "a comet"}).out,
            ruled + "\n" + ruled + "\n");
  const std::vector<std::string> drawing{"--temperature", "1", "--seed", "3"};
  EXPECT_EQ(
      chat("the red\n/regenerate\n", drawing).out,
      answer({{"user", "the red"}}, 3, 1) + "\n" + answer({{"user", "the red"}}, 4, 1) + "\n");
}

TEST_F(ChatCommand, TellsOfCommandsAndEnds) {
  const Finished help = chat("/help\n/quit\nthe red\n");
  EXPECT_EQ(help.code, 0);
  EXPECT_EQ(help.out, "");
  EXPECT_TRUE(says(help.err, {"/system TEXT", "/reset", "/regenerate", "/quit", "Ctrl-C"}));
  EXPECT_TRUE(says(chat("/what\n").err, {"memlayers: error: ", "got \"/what\""}));
  EXPECT_TRUE(says(chat("/regenerate\n").err, {"expected an answer to give again"}));
  EXPECT_EQ(chat("//quit\n").out, answer({{"user", "/quit"}}) + "\n");
  EXPECT_TRUE(says(chat("the red\n").err, {"(ended at --max-tokens 4)"}));
}

TEST_F(ChatCommand, WhatTheContextDoesNotHoldIsASentence) {
  const std::string long_message(4000, 'x');
  const Finished done = chat(long_message + "\nthe red\n");
  EXPECT_EQ(done.code, 0);
  EXPECT_TRUE(says(done.err, {"memlayers: error: expected a conversation of less than",
                              "the message is taken back"}));
  EXPECT_EQ(done.out, answer({{"user", "the red"}}) + "\n");
}

TEST_F(ChatCommand, WrongUseIsOneSentence) {
  const TempDir plain;
  testing::write_model(plain / "model");
  expect_error(run_command({"chat", plain / "model"}), 1, "a model with a chat template");
  expect_error(run_command({"generate", plain / "model", "--chat", "a"}), 1,
               "a model with a chat template");
  expect_error(run_command({"generate", model(), "--system", "s", "a"}), 2, "--chat");
  expect_error(run_command({"chat", model(), "--temperature", "-1"}), 2, "temperature");
  write_file(plain / "wrong", "{{");
  expect_error(run_command({"chat", model(), "--template", plain / "wrong"}), 1, "wrong: line 1");
}

TEST_F(ChatCommand, GenerateTakesOneMessageEach) {
  const Finished done = run_command(
      {"generate", model(), "--chat", "--system", "s", "--max-tokens", "4", "the red", "a green"});
  EXPECT_EQ(done.code, 0) << done.err;
  EXPECT_EQ(done.out, answer({{"system", "s"}, {"user", "the red"}}) + "\n" +
                          answer({{"system", "s"}, {"user", "a green"}}) + "\n");
}

TEST_F(ChatCommand, CtrlCAtThePromptEndsIt) {
  const Finished done =
      testing::run_interrupted({"chat", model(), "--max-tokens", "4"}, "the red\n");
  EXPECT_EQ(done.code, 130);
  EXPECT_EQ(done.out, answer({{"user", "the red"}}) + "\n");
}

}  // namespace
}  // namespace memlayers
