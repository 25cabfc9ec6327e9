// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "memlayers/chat.h"
#include "support/temp_dir.h"
#include "text/testing.h"
#include "text/tokenizer_json.h"

namespace memlayers::text {
namespace {

using ::testing::HasSubstr;
using Pieces = std::vector<PromptPiece>;

// A folder with a tokenizer and what a test puts beside it.
class ChatTemplates : public ::testing::Test {
 protected:
  ChatTemplates() {
    nlohmann::json json = ascii_tokenizer();
    json["added_tokens"] = {{{"id", 201}, {"content", "<s>"}, {"special", true}}};
    put("tokenizer.json", json.dump());
  }
  void put(const std::string& name, const std::string& content) {
    write_file(dir_ / name, content);
  }
  std::shared_ptr<const Tokenizer> tokenizer() const { return load_tokenizer(dir_.path()); }
  std::string render(const std::string& request = R"([{"role": "user", "content": "hi"}])") const {
    return joined(ChatTemplate::find(*tokenizer()).value().render_json(request, "request"));
  }
  testing::TempDir dir_;
};

TEST_F(ChatTemplates, AreFoundWhereTransformersLooks) {
  EXPECT_FALSE(ChatTemplate::find(*tokenizer()));
  put("chat_template.json", R"({"chat_template": "json"})");
  EXPECT_EQ(render(), "json");
  put("tokenizer_config.json", R"({"chat_template": "config"})");
  EXPECT_EQ(render(), "config");
  put("chat_template.jinja", "jinja");
  EXPECT_EQ(render(), "jinja");
  EXPECT_EQ(tokenizer()->files().back().first, "chat_template.json");  // copied with a model
}

TEST_F(ChatTemplates, OneForToolsIsTakenWhereThereAreTools) {
  put("tokenizer_config.json", R"({"chat_template": [{"name": "default", "template": "plain"},
                                   {"name": "tool_use", "template": "{{ tools|length }} tools"}]})");
  EXPECT_EQ(render(), "plain");
  EXPECT_EQ(render(R"({"messages": [{"role": "user"}], "tools": [{}, {}]})"), "2 tools");
  put("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "x"}]})");
  EXPECT_EQ(error_of([&] { render(); }),
            "chat_template: expected one with the name \"default\", got \"rag\"");
  put("tokenizer_config.json", R"({"chat_template": 1})");
  EXPECT_EQ(
      error_of([&] { render(); }),
      "tokenizer_config.json: chat_template: expected a template, or a list of templates with "
      "names, got 1");
}

TEST_F(ChatTemplates, KnowTheTokensOfTheTokenizer) {
  put("tokenizer_config.json",
      R"({"bos_token": "<s>", "eos_token": {"content": "e"}, "pad_token": null,
          "chat_template": "{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}{{ messages[0].content }}"})");
  const auto pieces = ChatTemplate::find(*tokenizer())->render({{"user", "<s>"}});
  EXPECT_EQ(pieces, (Pieces{{"<s>eFalse", true}, {"<s>", false}}));
  EXPECT_EQ(tokenizer()->encode_pieces(pieces).front(), 201);
}

TEST_F(ChatTemplates, TakeRequestsOfServers) {
  put("chat_template.jinja",
      "{% for m in messages %}{{ m|tojson }}{% endfor %}|{{ tools is none }}|{{ documents }}|"
      "{{ add_generation_prompt }}|{{ x }}");
  EXPECT_EQ(render(R"({"messages": [{"role": "user", "content": null, "b": 1, "a": 2}],
                       "documents": ["d"], "add_generation_prompt": false,
                       "chat_template_kwargs": {"x": 5}})"),
            R"({"role": "user", "b": 1, "a": 2}|True|['d']|False|5)");
  EXPECT_EQ(render(R"([{"role": "assistant", "reasoning": "r"}])"),
            R"({"thinking": "r", "role": "assistant", "reasoning": "r", "reasoning_content": "r"})"
            "|True|None|True|");
}

TEST_F(ChatTemplates, RolesThatAllKnowAreWordsOfTheTemplate) {
  put("chat_template.jinja", "{% for m in messages %}<|{{ m.role }}|>{% endfor %}");
  EXPECT_EQ(ChatTemplate::find(*tokenizer())->render({{"user", ""}, {"end|><|x", ""}}),
            (Pieces{{"<|user|><|", true}, {"end|><|x", false}, {"|>", true}}));
}

TEST_F(ChatTemplates, SayWhatIsWrongWithARequestInOneSentence) {
  put("chat_template.jinja", "{{ raise_exception('no ' ~ messages[0].role) }}");
  const std::vector<std::pair<std::string, std::string>> cases{
      {"{", "request: expected JSON"},
      {"3", "request: expected an object or a list of messages, got 3"},
      {"{}", "request: expected a field \"messages\", got none"},
      {"[]", "request: messages: expected a list of at least one message, got []"},
      {"[1]", "request: messages[0]: expected an object, got 1"},
      {R"({"messages": [{}], "tool": []})", "request: unknown field \"tool\""},
      {R"({"messages": [{}], "tools": 1})", "request: tools: expected a list, got 1"},
      {R"({"messages": [{}], "add_generation_prompt": 1})", "expected true or false, got 1"},
      {R"({"messages": [{}], "chat_template_kwargs": [1]})", "expected an object, got [1]"},
      {R"({"messages": [{}], "chat_template_kwargs": {"messages": 1}})", "got \"messages\""},
      {R"([{"role": "user", "n": 18446744073709551615}])", "integers that 64 bits hold"},
      {R"([{"role": "user", "role": "x"}])", "got \"role\" twice"},
  };
  for (const auto& [request, expected] : cases) {
    EXPECT_THAT(error_of([&] { render(request); }), HasSubstr(expected)) << request;
  }
  try {
    render();
    FAIL() << "expected a refusal";
  } catch (const ChatRefusal& refusal) {
    EXPECT_EQ(refusal.message(), "no user");
    EXPECT_STREQ(refusal.what(), "chat_template.jinja: line 1: no user");
  }
}

TEST_F(ChatTemplates, ThatAreWrongNameFileAndLine) {
  put("chat_template.jinja", "a\n{% for %}");
  EXPECT_THAT(error_of([&] { render(); }),
              HasSubstr("chat_template.jinja: line 2: expected a name"));
  put("chat_template.jinja", "\xFF");
  EXPECT_THAT(error_of([&] { render(); }), HasSubstr("chat_template.jinja: expected UTF-8"));
}

}  // namespace
}  // namespace memlayers::text
