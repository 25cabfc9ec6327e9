// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "support/api_client.h"

namespace memlayers::testing {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr const char* kPath = "/v1/chat/completions";

Json user(const Json& content) { return {{{"role", "user"}, {"content", content}}}; }

class ChatCompletions : public ::testing::Test {
 protected:
  Json ask(Json body) {
    if (!body.contains("messages")) body["messages"] = user("hi");
    return client.post(kPath, body);
  }
  Json error(Json body) {
    if (!body.contains("messages")) body["messages"] = user("hi");
    return client.error(kPath, body);
  }
  // The prompt of the last request.
  std::string prompt() const {
    return client.engine.tokenizer().decode(client.engine.jobs().back().prompt);
  }
  ApiClient client;
};

TEST_F(ChatCompletions, AnswerInOpenAisShape) {
  client.engine.say("[user]hi\n[assistant]", "Hello.");
  const Json answer = ask({{"model", "letters"}});
  EXPECT_EQ(answer["object"], "chat.completion");
  EXPECT_THAT(answer["id"].get<std::string>(), ::testing::StartsWith("chatcmpl-"));
  const Json& choice = answer["choices"][0];
  EXPECT_EQ(choice["message"],
            Json({{"role", "assistant"}, {"content", "Hello."}, {"refusal", nullptr}}));
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_TRUE(choice["logprobs"].is_null());
  EXPECT_EQ(answer["usage"]["completion_tokens"], 7);
}

TEST_F(ChatCompletions, TakeContentInAllItsForms) {
  ask({{"messages", user("hi")}});
  EXPECT_EQ(prompt(), "[user]hi\n[assistant]");
  ask({{"messages",
        user(Json({{{"type", "text"}, {"text", "a"}}, {{"type", "text"}, {"text", "b"}}}))}});
  EXPECT_EQ(prompt(), "[user]a\nb\n[assistant]");
  ask({{"messages",
        {{{"role", "user"}, {"content", "hi"}},
         {{"role", "assistant"},
          {"content", nullptr},
          {"tool_calls", Json::array()},
          {"refusal", nullptr},
          {"audio", nullptr}},
         {{"role", "user"}, {"content", "more"}, {"name", "ada"}}}}});
  EXPECT_EQ(prompt(), "[user]hi\n[assistant]\n[user]more\n[assistant]");
  ask({{"add_generation_prompt", false}});
  EXPECT_EQ(prompt(), "[user]hi\n");
}

TEST_F(ChatCompletions, RefuseWhatTheModelCannotTake) {
  const Json image = {{{"type", "image_url"}, {"image_url", {{"url", "data:"}}}}};
  EXPECT_EQ(error({{"messages", user(image)}})["param"], "messages[0].content[0].type");
  EXPECT_EQ(error({{"messages", {{{"role", "tool"}, {"content", "x"}}}}})["param"],
            "messages[0].role");
  EXPECT_EQ(error({{"messages", {{{"role", "king"}, {"content", "x"}}}}})["param"],
            "messages[0].role");
  EXPECT_EQ(error({{"messages", {{{"content", "x"}}}}})["param"], "messages[0]");
  EXPECT_EQ(error({{"messages", user(5)}})["param"], "messages[0].content");
  EXPECT_EQ(error({{"messages", Json::array()}})["param"], "messages");
  EXPECT_EQ(error({{"messages", "hi"}})["param"], "messages");
  EXPECT_EQ(error({{"messages", {{{"role", "user"}, {"contents", "x"}}}}})["param"],
            "messages[0].contents");
  const Json tools = error({{"tools", {{{"type", "function"}}}}});
  EXPECT_EQ(tools["code"], "unsupported_parameter");
  EXPECT_EQ(tools["param"], "tools");
  EXPECT_THAT(tools["message"].get<std::string>(), HasSubstr("calls no tools"));
  ask({{"tools", Json::array()}, {"tool_choice", "none"}, {"parallel_tool_calls", true}});
}

TEST_F(ChatCompletions, SayInTheTemplatesWordsThatItRefuses) {
  const Json refused =
      error({{"messages",
              {{{"role", "user"}, {"content", "a"}}, {{"role", "system"}, {"content", "b"}}}}});
  EXPECT_EQ(refused["code"], "chat_template_refused");
  EXPECT_EQ(refused["param"], "messages");
  EXPECT_THAT(refused["message"].get<std::string>(), HasSubstr("system first"));
}

TEST_F(ChatCompletions, TakeTheRestOfTheContextWhereNoLengthIsGiven) {
  ask(Json::object());
  const std::int64_t prompt_tokens = 20;  // "[user]hi\n[assistant]"
  EXPECT_EQ(client.engine.jobs().back().options.max_tokens, 512 - prompt_tokens);
  ask({{"max_tokens", 7}});
  EXPECT_EQ(client.engine.jobs().back().options.max_tokens, 7);
  ask({{"max_completion_tokens", 9}});
  EXPECT_EQ(client.engine.jobs().back().options.max_tokens, 9);
  EXPECT_EQ(error({{"max_tokens", 0}})["param"], "max_tokens");
  const Json full = error({{"messages", user(std::string(600, 'a'))}});
  EXPECT_EQ(full["code"], "context_length_exceeded");
  EXPECT_EQ(full["param"], "messages");
}

TEST_F(ChatCompletions, GiveLogProbabilitiesWithBytes) {
  client.engine.say("[assistant]", "A\xC3\xA9");
  const Json content =
      ask({{"logprobs", true}, {"top_logprobs", 3}})["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 4U);  // with the end
  EXPECT_EQ(content[0]["token"], "A");
  EXPECT_EQ(content[0]["bytes"], Json({65}));
  EXPECT_EQ(content[0]["top_logprobs"].size(), 3U);
  EXPECT_EQ(content[0]["top_logprobs"][0]["logprob"], content[0]["logprob"]);
  EXPECT_EQ(content[1]["bytes"], Json({0xC3}));
  EXPECT_EQ(content[1]["token"], "bytes:\\xc3");
  EXPECT_EQ(content[3]["token"], "</s>");
  EXPECT_EQ(error({{"top_logprobs", 3}})["param"], "top_logprobs");
  EXPECT_EQ(error({{"logprobs", true}, {"top_logprobs", 21}})["param"], "top_logprobs");
  EXPECT_EQ(error({{"logprobs", 3}})["param"], "logprobs");
}

// Whether the grammar of the last request lets these tokens follow one another from the beginning.
bool allows(const std::shared_ptr<const Grammar>& grammar, const std::string& text) {
  const auto filter = grammar->begin();
  for (const char c : text + static_cast<char>(0)) {
    std::vector<float> logits(258);
    filter->apply(logits);
    const bool is_end = c == 0;
    const std::int32_t token = is_end ? 257 : static_cast<unsigned char>(c);
    if (logits[static_cast<std::size_t>(token)] != 0) return false;
    if (!is_end) filter->take(token);
  }
  return true;
}

TEST_F(ChatCompletions, AskAGrammarForJson) {
  ask({{"response_format", {{"type", "text"}}}});
  EXPECT_EQ(client.engine.jobs().back().options.grammar, nullptr);
  ask({{"response_format", {{"type", "json_object"}}}});
  const auto object = client.engine.jobs().back().options.grammar;
  EXPECT_TRUE(allows(object, R"({"a": [1, "b"]})"));
  EXPECT_FALSE(allows(object, "[1]"));
  const auto with = [](const Json& schema) {
    return Json{{"response_format",
                 {{"type", "json_schema"},
                  {"json_schema", {{"name", "a"}, {"strict", true}, {"schema", schema}}}}}};
  };
  ask(with({{"type", "integer"}}));
  const auto integer = client.engine.jobs().back().options.grammar;
  EXPECT_TRUE(allows(integer, "-12"));
  EXPECT_FALSE(allows(integer, "1.5"));
  const Json wrong = error(with({{"type", "string"}, {"format", "uri"}}));
  EXPECT_EQ(wrong["code"], "invalid_json_schema");
  EXPECT_EQ(wrong["param"], "response_format");
  EXPECT_EQ(error({{"response_format", {{"type", "xml"}}}})["param"], "response_format.type");
  EXPECT_EQ(error({{"response_format", {{"type", "json_schema"}}}})["param"], "response_format");
  EXPECT_EQ(error(with("text"))["param"], "response_format.json_schema.schema");
}

TEST_F(ChatCompletions, ASchemasPropertiesComeInTheOrderInWhichTheyWereSent) {
  client.ask("POST", kPath, R"({"messages": [{"role": "user", "content": "hi"}],
      "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {
          "type": "object", "required": ["b", "a"],
          "properties": {"b": {"type": "integer"}, "a": {"type": "integer"}},
          "additionalProperties": false}}}})");
  const auto grammar = client.engine.jobs().back().options.grammar;
  EXPECT_TRUE(allows(grammar, R"({"b": 1, "a": 2})"));
  EXPECT_FALSE(allows(grammar, R"({"a": 2, "b": 1})"));
}

}  // namespace
}  // namespace memlayers::testing
