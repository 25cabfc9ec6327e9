// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "cli/command_testing.h"

namespace memlayers {
namespace {

using testing::expect_error;
using testing::Finished;
using testing::run_command;
using testing::TempDir;
using testing::write_file;

class TokenizeCommand : public ::testing::Test {
 protected:
  TokenizeCommand() {
    write_file(dir_ / testing::tiny_tokenizer()->file_name(),
               testing::tiny_tokenizer()->file_bytes());
  }
  Finished tokenize(std::vector<std::string> more, const testing::Streams& streams = {}) {
    std::vector<std::string> arguments{"tokenize", dir_.path()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_command(arguments, streams);
  }
  TempDir dir_;
};

TEST_F(TokenizeCommand, ShowsTokensAndGoesBack) {
  const auto ids = testing::tiny_tokenizer()->encode_prompt("the otter");
  const Finished json = tokenize({"the otter", "--json"});
  ASSERT_EQ(json.code, 0) << json.err;
  const auto parsed = nlohmann::json::parse(json.out);
  EXPECT_EQ(parsed["ids"], ids);
  EXPECT_EQ(parsed["tokens"].size(), ids.size());
  const Finished line = tokenize({"the otter", "--ids"});
  EXPECT_EQ(tokenize({line.out, "--decode"}).out, "the otter\n");
  EXPECT_EQ(nlohmann::json::parse(tokenize({line.out, "--decode", "--json"}).out)["text"],
            "the otter");
  EXPECT_EQ(tokenize({"the otter"}).out.substr(0, 6), "1\t\"<s>");
  EXPECT_EQ(tokenize({"", "--bare"}).out, "");
}

TEST_F(TokenizeCommand, ReadsStandardInputAsOneTextOrALineEach) {
  write_file(dir_ / "in", "\"a b\"\n\"c\\nd\"\n");
  const Finished batch = tokenize({"--batch"}, {.input = dir_ / "in"});
  const std::size_t end = batch.out.find('\n');
  EXPECT_EQ(nlohmann::json::parse(batch.out.substr(end + 1))["ids"],
            testing::tiny_tokenizer()->encode_prompt("c\nd"));
  const Finished whole = tokenize({"--json", "--bare"}, {.input = dir_ / "in"});
  EXPECT_EQ(nlohmann::json::parse(whole.out)["ids"],
            testing::tiny_tokenizer()->encode("\"a b\"\n\"c\\nd\"\n"));
  for (const std::string form : {"--ids", "--batch"}) {  // a folder opens and cannot be read
    expect_error(tokenize({form}, {.input = dir_.path()}), 1, "standard input: cannot read");
  }
}

TEST_F(TokenizeCommand, ShowsWhatAChatTemplateMakes) {
  write_file(dir_ / "chat.json", R"([{"role": "user", "content": "<s>the otter"}])");
  write_file(dir_ / "chat_template.jinja", "{{ bos_token }}{{ messages[0].content }}");
  const std::string text = "<s><s>the otter";
  EXPECT_EQ(tokenize({"--chat", dir_ / "chat.json"}).out, text);
  std::vector<std::int32_t> ids{*testing::tiny_tokenizer()->bos()};
  for (const std::int32_t id : testing::tiny_tokenizer()->encode("<s>the otter")) ids.push_back(id);
  const auto json = nlohmann::json::parse(tokenize({"--chat", dir_ / "chat.json", "--json"}).out);
  EXPECT_EQ(json["text"], text);
  EXPECT_EQ(json["ids"], ids);
  EXPECT_EQ(json["pieces"], nlohmann::json::parse(R"([{"text": "<s>", "template": true},
                                                      {"text": "<s>the otter", "template": false}])"));
  write_file(dir_ / "other", "{{ messages|length }}");
  EXPECT_EQ(tokenize({"--chat", dir_ / "chat.json", "--template", dir_ / "other"}).out, "1");
  int ends[2];  // as a shell gives <(echo ...)
  ASSERT_EQ(pipe(ends), 0);
  ASSERT_EQ(write(ends[1], "{{ 7 }}", 7), 7);
  close(ends[1]);
  const std::string stream = "/dev/fd/" + std::to_string(ends[0]);
  EXPECT_EQ(tokenize({"--chat", dir_ / "chat.json", "--template", stream}).out, "7");
  close(ends[0]);
  write_file(dir_ / "in", "[]\n{\"messages\": [{}], \"chat_template\": \"own\"}\n");
  const Finished batch = tokenize({"--chat", "-", "--batch"}, {.input = dir_ / "in"});
  ASSERT_EQ(batch.code, 0) << batch.err;
  const std::size_t end = batch.out.find('\n');
  EXPECT_EQ(nlohmann::json::parse(batch.out.substr(0, end))["error"],
            "line 1: messages: expected a list of at least one message, got []");
  EXPECT_EQ(nlohmann::json::parse(batch.out.substr(end + 1))["text"], "own");
}

TEST_F(TokenizeCommand, WrongChatsAreOneSentence) {
  expect_error(tokenize({"--chat", dir_ / "none.json"}), 1, "none.json");
  write_file(dir_ / "chat.json", "[]");
  expect_error(tokenize({"--chat", dir_ / "chat.json"}), 1, "a tokenizer with a chat template");
  write_file(dir_ / "chat_template.jinja", "{{ 1 +");
  expect_error(tokenize({"--chat", dir_ / "chat.json"}), 1,
               "chat_template.jinja: line 1: expected");
  expect_error(tokenize({"a", "--template", dir_ / "none"}), 2, "--chat");
}

TEST_F(TokenizeCommand, WrongUseIsOneSentence) {
  expect_error(tokenize({"1 x", "--decode"}), 1, "ids: expected whole numbers, got \"x\"");
  expect_error(tokenize({"99999", "--decode"}), 1, "99999");
  expect_error(tokenize({"1", "--decode", "--bare"}), 2, "--bare");
  expect_error(tokenize({"a", "--special"}), 1, "tokenizer.json");
  write_file(dir_ / "in", "[1]\n");
  expect_error(tokenize({"--batch"}, {.input = dir_ / "in"}), 1, "line 1: expected a string");
  expect_error(run_command({"tokenize", dir_ / "none", "a"}), 1, "none");
}

}  // namespace
}  // namespace memlayers
