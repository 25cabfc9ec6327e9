// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "api/request.h"
#include "support/api_client.h"

namespace memlayers::testing {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr const char* kChat = "/v1/chat/completions";
constexpr const char* kCompletions = "/v1/completions";

Json chat_with(const std::string& field, const Json& value) {
  Json body{{"messages", {{{"role", "user"}, {"content", "hi"}}}}};
  body[field] = value;
  return body;
}
Json completion_with(const std::string& field, const Json& value) {
  Json body{{"prompt", "hi"}};
  body[field] = value;
  return body;
}

class RequestFields : public ::testing::Test {
 protected:
  ApiClient client;
};

TEST_F(RequestFields, OfAWrongTypeOrOutOfRangeAreNamed) {
  const Json huge = 1e300;
  const std::vector<std::pair<std::string, std::vector<Json>>> wrong{
      {"temperature", {-0.1, 2.1, "hot", true, huge, Json::array()}},
      {"top_p", {0, -1, 1.1, "x"}},
      {"top_k", {-2, 1.5, "x"}},
      {"min_p", {-0.1, 1.1, "x"}},
      {"repetition_penalty", {0, 11, "x"}},
      {"presence_penalty", {-2.1, 2.1, "x"}},
      {"frequency_penalty", {-2.1, 2.1, "x"}},
      {"logit_bias", {"x", Json::array(), {{"999", 1}}, {{"a", 1}}, {{"-1", 1}}}},
      {"seed", {1.5, "x", true}},
      {"n", {0, 9, 1.5, "x"}},
      {"stop", {5, "", {{"a", 1}}}},
      {"stop_token_ids", {5, {{"a", 1}}}},
      {"ignore_eos", {0, "x"}},
      {"stream", {0, "x"}},
      {"response_format", {5, "json", Json::array()}},
      {"explain", {0, 33, "x", 1.5}},
      {"receipt", {1, "x"}},
      {"memory", {{{"version", 1}}, 5}},  // this model has none
      {"model", {5, true}}};
  for (const auto& [field, values] : wrong) {
    for (const Json& value : values) {
      for (const auto& [path, body] : {std::pair(kChat, chat_with(field, value)),
                                       std::pair(kCompletions, completion_with(field, value))}) {
        const Json error = client.error(path, body);
        EXPECT_THAT(error["param"].get<std::string>(), ::testing::StartsWith(field)) << body;
        EXPECT_THAT(error["message"].get<std::string>(), HasSubstr(field)) << body;
      }
    }
  }
  EXPECT_EQ(client.error(kChat, chat_with("temperature", 3))["message"],
            "temperature: expected a number in [0, 2], got 3");
}

TEST_F(RequestFields, ThatAreNotKnownAreNamedWithTheNearest) {
  const Json error = client.error(kChat, chat_with("temprature", 1));
  EXPECT_EQ(error["param"], "temprature");
  EXPECT_THAT(error["message"].get<std::string>(), HasSubstr("did you mean \"temperature\"?"));
  for (const char* field : {"best_of", "suffix", "echo", "prompt", "min_tokens", "guided_json"}) {
    EXPECT_EQ(client.error(kChat, chat_with(field, 1))["param"], field);
  }
  EXPECT_EQ(client.error(kCompletions, completion_with("messages", Json::array()))["param"],
            "messages");
  EXPECT_EQ(client.error(kCompletions, completion_with("memory", {{"pin", 1}}))["param"], "memory");
}

TEST_F(RequestFields, ThatAreNotSupportedAreRefusedUnlessTheyChangeNothing) {
  const std::vector<std::pair<std::string, Json>> refused{
      {"tools", {{{"type", "function"}}}},    {"tool_choice", "required"},
      {"functions", {{{"name", "f"}}}},       {"function_call", {{"name", "f"}}},
      {"modalities", {"text", "audio"}},      {"audio", {{"voice", "x"}}},
      {"prediction", {{"type", "content"}}},  {"reasoning_effort", "high"},
      {"web_search_options", Json::object()}, {"store", true},
      {"service_tier", "priority"},           {"verbosity", "high"}};
  for (const auto& [field, value] : refused) {
    const Json error = client.error(kChat, chat_with(field, value));
    EXPECT_EQ(error["code"], "unsupported_parameter") << field;
    EXPECT_EQ(error["param"], field);
  }
  EXPECT_EQ(client.error(kCompletions, completion_with("suffix", "end"))["param"], "suffix");
  const std::vector<std::pair<std::string, Json>> harmless{
      {"user", "ada"},          {"metadata", {{"a", "b"}}}, {"store", false},
      {"service_tier", "auto"}, {"safety_identifier", "x"}, {"prompt_cache_key", "x"}};
  for (const auto& [field, value] : harmless) {
    client.post(kChat, chat_with(field, value));
    client.post(kCompletions, completion_with(field, value));
  }
  for (const auto& [field, value] : {std::pair<std::string, Json>{"modalities", Json{"text"}},
                                     {"tool_choice", "auto"},
                                     {"verbosity", "medium"},
                                     {"reasoning_effort", "none"},
                                     {"tools", nullptr}}) {
    client.post(kChat, chat_with(field, value));
  }
}

// Every field of the tables can be null, which is as if it were not there; none is looked over.
TEST_F(RequestFields, AreAllAbsentWhereTheyAreNull) {
  for (const api::FieldRule& rule : api::chat_rules()) {
    if (rule.name == "messages") continue;
    client.post(kChat, chat_with(std::string(rule.name), nullptr));
  }
  for (const api::FieldRule& rule : api::completion_rules()) {
    if (rule.name == "prompt") continue;
    client.post(kCompletions, completion_with(std::string(rule.name), nullptr));
  }
}

TEST_F(RequestFields, AreRefusedOfEveryTypeThatTheirSchemaDoesNotKnow) {
  for (const auto& [path, rules] :
       {std::pair(kChat, api::chat_rules()), std::pair(kCompletions, api::completion_rules())}) {
    for (const api::FieldRule& rule : rules) {
      if (rule.neutral == "*") continue;
      const std::string field(rule.name);
      // No field takes a list of objects with this member.
      const Json wrong = {{{"no such member", 1}}};
      Json body =
          path == std::string(kChat) ? chat_with(field, wrong) : completion_with(field, wrong);
      client.error(path, body);
    }
  }
}

TEST_F(RequestFields, MustBeOneJsonObjectOfUtf8) {
  const std::string open(65, '['), close(65, ']');
  for (const std::string& body :
       {std::string(), std::string("{"), std::string("[]"), std::string("null"),
        std::string("\"text\""), std::string(R"({"prompt":"a","prompt":"b"})"),
        std::string("{\"prompt\":\"\xff\"}"), std::string(R"({"prompt":"\ud800"})"),
        R"({"prompt":)" + open + close + "}", std::string(R"({"prompt":"a"} {})"),
        std::string(R"({"prompt":"a","temperature":NaN})"), std::string(1, '\0')}) {
    const http::Response response = client.ask("POST", kCompletions, body);
    EXPECT_EQ(response.status, 400) << body;
    expect_openai_error(response);
  }
  const std::string deepest(63, '['), end(63, ']');  // with the object: 64
  const http::Response response =
      client.ask("POST", kCompletions, R"({"prompt":"a","metadata":)" + deepest + end + "}");
  EXPECT_EQ(response.status, 200) << response.body;
}

TEST_F(RequestFields, NameTheModelThatIsThere) {
  const Json error = client.error(kChat, chat_with("model", "gpt-9"), 404);
  EXPECT_EQ(error["code"], "model_not_found");
  EXPECT_EQ(error["param"], "model");
  ApiClient other;
  other.options.model_aliases = {"gpt-9"};
  other.post(kChat, chat_with("model", "gpt-9"));
}

}  // namespace
}  // namespace memlayers::testing
