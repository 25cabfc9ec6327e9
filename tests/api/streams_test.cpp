// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "io/utf8.h"
#include "support/api_client.h"

namespace memlayers::testing {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr const char* kChat = "/v1/chat/completions";
constexpr const char* kCompletions = "/v1/completions";

// What the events of each choice say together; fails where they are not as OpenAI's clients expect:
// one id, the role first and once, text without a reason, an empty delta with the reason last.
struct Told {
  std::map<int, std::string> texts, reasons;
  Json usage;
};
Told told_by(const Events& events, bool is_chat) {
  Told told;
  for (const Json& chunk : events.chunks) {
    EXPECT_EQ(chunk.at("id"), events.chunks[0].at("id"));
    EXPECT_EQ(chunk.at("object"), is_chat ? "chat.completion.chunk" : "text_completion");
    EXPECT_EQ(chunk.at("model"), "letters");
    EXPECT_TRUE(chunk.at("created").is_number_integer());
    if (chunk.at("choices").empty()) {
      EXPECT_EQ(&chunk, &events.chunks.back());
      told.usage = chunk.value("usage", Json());
      continue;
    }
    const Json& choice = chunk["choices"][0];
    const int index = choice.at("index");
    EXPECT_FALSE(told.reasons.contains(index)) << "behind the end: " << chunk;
    const bool is_first = !told.texts.contains(index);
    std::string text;
    if (is_chat) {
      const Json& delta = choice.at("delta");
      EXPECT_EQ(delta.contains("role"), is_first) << chunk;
      text = delta.value("content", "");
      if (!choice.at("finish_reason").is_null()) {
        EXPECT_EQ(delta, Json::object());
      }
    } else {
      text = choice.at("text");
      if (!choice.at("finish_reason").is_null()) {
        EXPECT_EQ(text, "");
      }
    }
    EXPECT_EQ(io::valid_utf8_bytes(text), text.size());
    told.texts[index] += text;
    if (!choice.at("finish_reason").is_null()) told.reasons[index] = choice["finish_reason"];
  }
  return told;
}

class Streams : public ::testing::Test {
 protected:
  Json chat(const Json& more = Json::object()) const {
    Json body{{"messages", {{{"role", "user"}, {"content", "hi"}}}}, {"stream", true}};
    body.update(more);
    return body;
  }
  Told told(const Json& body) {
    const http::Response response = client.ask("POST", kChat, body.dump());
    EXPECT_EQ(response.status, 200) << response.body;
    return told_by(events_of(response.body), true);
  }
  ApiClient client;
};

TEST_F(Streams, SayRoleThenTextThenTheReasonThenDone) {
  client.engine.say("[assistant]", "Hello.");
  const http::Response response = client.ask("POST", kChat, chat().dump());
  EXPECT_EQ(header_of(response, "content-type"), "text/event-stream; charset=utf-8");
  EXPECT_EQ(header_of(response, "cache-control"), "no-cache");
  EXPECT_EQ(header_of(response, "x-accel-buffering"), "no");
  const Events events = events_of(response.body);
  EXPECT_TRUE(events.is_done);
  EXPECT_EQ(events.chunks.size(), 8U);  // role, six letters, reason
  const Told told = told_by(events, true);
  EXPECT_EQ(told.texts.at(0), "Hello.");
  EXPECT_EQ(told.reasons.at(0), "stop");
  EXPECT_TRUE(told.usage.is_null());
  for (const Json& chunk : events.chunks) EXPECT_FALSE(chunk.contains("usage"));
}

TEST_F(Streams, TellUsageInAnEventOfItsOwnIfAsked) {
  client.engine.say("[assistant]", "ab");
  const http::Response response =
      client.ask("POST", kChat, chat({{"stream_options", {{"include_usage", true}}}}).dump());
  const Events events = events_of(response.body);
  EXPECT_EQ(told_by(events, true).usage["completion_tokens"], 3);
  for (std::size_t i = 0; i + 1 < events.chunks.size(); ++i) {
    EXPECT_TRUE(events.chunks[i].at("usage").is_null());
  }
  EXPECT_TRUE(told(chat({{"stream_options", {{"include_usage", false}}}})).usage.is_null());
  Json whole = chat({{"stream_options", {{"include_usage", true}}}});
  whole.erase("stream");
  EXPECT_EQ(client.error(kChat, whole)["param"], "stream_options");
}

TEST_F(Streams, HaveOneOrderForEachOfSeveralAnswers) {
  client.engine.say("[assistant]", "abc");
  const Told told = this->told(chat({{"n", 3}}));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(told.texts.at(i) + told.reasons.at(i), "abcstop");
  client.engine.say("a", "1");
  client.engine.say("b", "2");
  const http::Response response =
      client.ask("POST", kCompletions, Json{{"prompt", {"a", "b"}}, {"stream", true}}.dump());
  const auto texts = told_by(events_of(response.body), false).texts;
  EXPECT_EQ(texts.at(0) + texts.at(1), "12");
}

TEST_F(Streams, EchoThePromptInTheFirstEvent) {
  client.engine.say("once", " upon");
  const http::Response response = client.ask(
      "POST", kCompletions,
      Json{{"prompt", "once"}, {"stream", true}, {"echo", true}, {"logprobs", 1}}.dump());
  const Events events = events_of(response.body);
  EXPECT_EQ(told_by(events, false).texts.at(0), "once upon");
  std::vector<int> offsets;
  std::size_t tokens = 0;
  for (const Json& chunk : events.chunks) {
    const Json& logprobs = chunk["choices"][0]["logprobs"];
    if (logprobs.is_null()) continue;
    tokens += logprobs["tokens"].size();
    for (const Json& offset : logprobs["text_offset"]) offsets.push_back(offset);
  }
  EXPECT_EQ(tokens, 11U);  // BOS, 4, 5 and the end
  EXPECT_TRUE(std::ranges::is_sorted(offsets));
}

TEST_F(Streams, NeverSplitACharacterNorLeakAStopString) {
  const std::string said = "\xF0\x9F\xA6\xA9 \xC3\xA9t\xC3\xA9 END tail";
  client.engine.say("[assistant]", said);
  EXPECT_EQ(told(chat()).texts.at(0), said);
  for (std::size_t begin = 10; begin < 14; ++begin) {
    for (std::size_t size = 1; size < 5; ++size) {
      const std::string stop = said.substr(begin, size);
      const Told cut = told(chat({{"stop", stop}}));
      EXPECT_EQ(cut.texts.at(0), said.substr(0, said.find(stop))) << stop;
      EXPECT_EQ(cut.reasons.at(0), "stop");
    }
  }
}

TEST_F(Streams, SayWhyTheyEndedWhereTheLengthDid) {
  client.engine.say("[assistant]", "abcdef");
  const Told cut = told(chat({{"max_tokens", 3}}));
  EXPECT_EQ(cut.texts.at(0), "abc");
  EXPECT_EQ(cut.reasons.at(0), "length");
}

TEST_F(Streams, TellAnErrorInTheMiddleAsAnEvent) {
  client.engine.say("[assistant]", "abcdef");
  client.engine.fails_at = 3;
  const http::Response response = client.ask("POST", kChat, chat().dump());
  EXPECT_EQ(response.status, 200);
  const Events events = events_of(response.body);
  EXPECT_FALSE(events.is_done);
  const Json& error = events.chunks.back().at("error");
  EXPECT_EQ(error.at("type"), "server_error");
  EXPECT_TRUE(error.at("code").is_string());
  // Without a stream it is the answer's status.
  EXPECT_EQ(client.error(kChat, {{"messages", chat()["messages"]}}, 503)["code"],
            "generation_failed");
}

TEST_F(Streams, HaveCommentsWhileTheyWait) {
  client.options.comment_s = 0.01;
  client.engine.places = 1;
  client.engine.say("[assistant]", "ab");
  const auto first = client.begin("POST", kChat, chat().dump());
  client.wait_for_sequences(1);
  const auto second = client.begin("POST", kChat, chat().dump());
  while (second->response().body.find(": in the queue\n\n") == std::string::npos) {
    second->wait_for_news();
  }
  EXPECT_EQ(client.finish(*first).status, 200);
  const Events events = events_of(client.finish(*second).body);
  EXPECT_GE(events.comments, 1);
  EXPECT_EQ(told_by(events, true).texts.at(0), "ab");
}

TEST_F(Streams, EndWithinAStepWhenTheClientLeaves) {
  client.engine.say("[assistant]", std::string(200, 'a'));
  for (const bool streams : {true, false}) {
    Json body = chat({{"n", 2}});
    body["stream"] = streams;
    const auto exchange = client.begin("POST", kChat, body.dump());
    client.wait_for_sequences(2);
    while (!exchange->is_watched()) exchange->wait_for_news();  // the engine may know it first
    client.engine.step();
    exchange->leave();
    client.engine.step();
    EXPECT_EQ(client.engine.sequences(), 0U);
    EXPECT_FALSE(exchange->is_over());
  }
  // One that left before the engine heard of it.
  const auto gone = client.begin("POST", kChat, chat().dump());
  gone->leave();
  client.wait_for_sequences(1);
  while (client.engine.sequences() > 0) client.engine.step();
  EXPECT_LT(gone->response().body.size(), 2000U);
}

TEST_F(Streams, RefuseWhatComesWhenTheQueueIsFull) {
  client.engine.places = 1;
  client.engine.queue = 0;
  client.engine.say("[assistant]", "ab");
  const auto first = client.begin("POST", kChat, chat().dump());
  client.wait_for_sequences(1);
  const auto second = client.begin("POST", kChat, chat().dump());
  while (!second->is_over()) second->wait_for_news();
  const http::Response refused = second->response();
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(header_of(refused, "retry-after"), "2");
  EXPECT_EQ(header_of(refused, "retry-after-ms"), "1500");
  expect_openai_error(refused);
  EXPECT_EQ(client.finish(*first).status, 200);
}

TEST_F(Streams, ShowTheSlotsBehindEachToken) {
  TempDir folder;
  client.engine.add_memory(folder.path());
  client.engine.say("[assistant]", "ab");
  const http::Response response = client.ask("POST", kChat, chat({{"explain", true}}).dump());
  EXPECT_EQ(client.engine.jobs().back().explain_slots, 8);
  EXPECT_NE(header_of(response, "x-memlayers-pool-version"), "");
  std::string tokens;
  for (const Json& chunk : events_of(response.body).chunks) {
    EXPECT_EQ(std::to_string(chunk["memory"]["version"].get<std::uint64_t>()),
              header_of(response, "x-memlayers-pool-version"));
    for (const Json& token : chunk["choices"][0].value("explain", Json::array())) {
      tokens += token["token"].get<std::string>();
      EXPECT_EQ(token["slots"][0]["slot"], 7);
      EXPECT_EQ(token["slots"][0]["patch"], "p1");
    }
  }
  EXPECT_EQ(tokens, "ab</s>");
}

}  // namespace
}  // namespace memlayers::testing
