// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "support/api_client.h"

namespace memlayers::testing {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr const char* kPath = "/v1/completions";

class Completions : public ::testing::Test {
 protected:
  ApiClient client;
};

TEST_F(Completions, ContinueATextInOpenAisShape) {
  client.engine.say("once", " upon");
  const Json answer = client.post(kPath, {{"model", "letters"}, {"prompt", "once"}});
  EXPECT_EQ(answer["object"], "text_completion");
  EXPECT_THAT(answer["id"].get<std::string>(), ::testing::StartsWith("cmpl-"));
  EXPECT_EQ(answer["model"], "letters");
  ASSERT_EQ(answer["choices"].size(), 1U);
  EXPECT_EQ(
      answer["choices"][0],
      Json({{"index", 0}, {"text", " upon"}, {"logprobs", nullptr}, {"finish_reason", "stop"}}));
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 5);  // BOS and four letters
  EXPECT_EQ(answer["usage"]["completion_tokens"], 6);
  EXPECT_EQ(answer["usage"]["total_tokens"], 11);
  EXPECT_EQ(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 1);
}

TEST_F(Completions, TakeTextsIdsAndListsOfBoth) {
  client.engine.say("a", "1");
  client.engine.say("b", "2");
  const auto texts = [&](const Json& prompt) {
    std::string all;
    const Json answer = client.post(kPath, {{"prompt", prompt}});
    for (const auto& choice : answer["choices"]) {
      all += std::to_string(choice["index"].get<int>()) + choice["text"].get<std::string>() + ";";
    }
    return all;
  };
  EXPECT_EQ(texts("a"), "01;");
  EXPECT_EQ(texts({"a", "b"}), "01;12;");
  EXPECT_EQ(texts({97, 98}), "02;");
  EXPECT_EQ(texts({{97}, {98}}), "01;12;");
  EXPECT_EQ(client.engine.jobs().back().prompt, std::vector<std::int32_t>{98});  // as they are
}

TEST_F(Completions, PutTheBeginningOfATextThereOnce) {
  client.post(kPath, {{"prompt", "ab"}});
  EXPECT_EQ(client.engine.jobs().back().prompt, (std::vector<std::int32_t>{256, 97, 98}));
  client.post(kPath, {{"prompt", "ab"}, {"add_special_tokens", false}});
  EXPECT_EQ(client.engine.jobs().back().prompt, (std::vector<std::int32_t>{97, 98}));
}

TEST_F(Completions, GiveSeveralAnswersWithSeedsOfTheirOwn) {
  const Json answer =
      client.post(kPath, {{"prompt", {"a", "b"}}, {"n", 3}, {"best_of", 3}, {"seed", 40}});
  ASSERT_EQ(answer["choices"].size(), 6U);
  std::vector<std::uint64_t> seeds;
  for (const api::Job& job : client.engine.jobs()) seeds.push_back(job.options.seed);
  EXPECT_EQ(seeds, (std::vector<std::uint64_t>{40, 41, 42, 40, 41, 42}));
  for (int i = 0; i < 6; ++i) EXPECT_EQ(answer["choices"][i]["index"], i);
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 4);  // a prompt counts once
  EXPECT_EQ(client.error(kPath, {{"prompt", "a"}, {"n", 2}, {"best_of", 4}})["param"], "best_of");
  EXPECT_EQ(client.error(kPath, {{"prompt", "a"}, {"n", 9}})["param"], "n");
  client.post(kPath, {{"prompt", "a"}, {"n", 8}});
}

TEST_F(Completions, HandEverySamplingFieldOn) {
  client.post(kPath, {{"prompt", "a"},
                      {"temperature", 0.5},
                      {"top_p", 0.9},
                      {"top_k", 7},
                      {"min_p", 0.1},
                      {"repetition_penalty", 1.1},
                      {"presence_penalty", -1},
                      {"frequency_penalty", 2},
                      {"logit_bias", {{"65", -100}, {"66", 1.5}}},
                      {"stop", {"x", "yz"}},
                      {"stop_token_ids", {10}},
                      {"ignore_eos", true},
                      {"max_tokens", 5},
                      {"seed", 18446744073709551615ULL}});
  const GenerateOptions options = client.engine.jobs().back().options;
  EXPECT_EQ(options.temperature, 0.5);
  EXPECT_EQ(options.top_p, 0.9);
  EXPECT_EQ(options.top_k, 7);
  EXPECT_EQ(options.min_p, 0.1);
  EXPECT_EQ(options.repetition_penalty, 1.1);
  EXPECT_EQ(options.presence_penalty, -1);
  EXPECT_EQ(options.frequency_penalty, 2);
  EXPECT_EQ(options.logit_bias,
            (std::vector<std::pair<std::int32_t, double>>{{65, -100}, {66, 1.5}}));
  EXPECT_EQ(options.stop, (std::vector<std::string>{"x", "yz"}));
  EXPECT_EQ(options.stop_tokens, std::vector<std::int32_t>{10});
  EXPECT_TRUE(options.ignore_eos);
  EXPECT_EQ(options.max_tokens, 5);
  EXPECT_EQ(options.seed, UINT64_MAX);
}

TEST_F(Completions, HaveOpenAisDefaults) {
  client.post(kPath, {{"prompt", "a"}, {"temperature", nullptr}, {"stop", nullptr}});
  client.post(kPath, {{"prompt", "a"}});
  const auto jobs = client.engine.jobs();
  EXPECT_EQ(jobs[0].options.temperature, 1);
  EXPECT_EQ(jobs[0].options.max_tokens, 16);
  EXPECT_FALSE(jobs[0].options.top_k || jobs[0].options.top_p || jobs[0].options.logprobs);
  EXPECT_NE(jobs[0].options.seed, jobs[1].options.seed);
}

// What lm-eval's local-completions sends, and how it takes the answer apart.
TEST_F(Completions, EchoWithLogProbabilitiesAsLmEvalReadsThem) {
  const std::string text = "the heron stands";
  for (const char* said : {" ok", ""}) {  // the generated token may be the end
    client.engine.say(text, said);
    const Json answer = client.post(kPath, {{"model", "letters"},
                                            {"prompt", text},
                                            {"temperature", 0},
                                            {"max_tokens", 1},
                                            {"logprobs", 1},
                                            {"seed", 1234},
                                            {"echo", true}});
    const Json& choice = answer["choices"][0];
    const Json& logprobs = choice["logprobs"];
    const std::size_t tokens = text.size() + 1;  // with BOS
    for (const char* list : {"tokens", "token_logprobs", "top_logprobs", "text_offset"}) {
      ASSERT_EQ(logprobs[list].size(), tokens + 1) << list;
    }
    EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
    EXPECT_TRUE(logprobs["top_logprobs"][0].is_null());
    EXPECT_EQ(logprobs["tokens"][0], "<s>");
    bool some_greedy = false, some_not = false;
    for (std::size_t i = 1; i <= tokens; ++i) {
      const Json& top = logprobs["top_logprobs"][i];
      const Json& own = logprobs["token_logprobs"][i];
      EXPECT_EQ(top.at(logprobs["tokens"][i].get<std::string>()), own);
      double best = -1e9;
      for (const auto& [name, value] : top.items()) best = std::max(best, value.get<double>());
      (own == best ? some_greedy : some_not) = true;
    }
    EXPECT_TRUE(some_greedy && some_not);
    EXPECT_EQ(logprobs["text_offset"][1], 0);
    EXPECT_EQ(logprobs["text_offset"][5], 4);
    EXPECT_EQ(choice["text"], text + std::string(said).substr(0, 1));
  }
}

TEST_F(Completions, ScoreAPromptWithoutAnAnswer) {
  const Json choice = client.post(
      kPath, {{"prompt", "abc"}, {"max_tokens", 0}, {"echo", true}, {"logprobs", 2}})["choices"][0];
  EXPECT_EQ(choice["text"], "abc");
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(choice["logprobs"]["tokens"], Json({"<s>", "a", "b", "c"}));
}

TEST_F(Completions, NamePartsOfCharactersApart) {
  client.engine.say("a", "\xF0\x9F\xA6\xA9");  // a flamingo, a byte a token
  const Json choice =
      client.post(kPath, {{"prompt", "a"}, {"logprobs", 5}, {"temperature", 0}})["choices"][0];
  EXPECT_EQ(choice["text"], "\xF0\x9F\xA6\xA9");
  const Json& logprobs = choice["logprobs"];
  EXPECT_EQ(logprobs["tokens"][0], "bytes:\\xf0");
  EXPECT_EQ(logprobs["tokens"][3], "bytes:\\xa9");
  for (const auto& top : logprobs["top_logprobs"]) EXPECT_GE(top.size(), 5U) << top;
}

TEST_F(Completions, EndAtAStopStringWhereverItIsSplit) {
  client.engine.say("a", "keep STOP drop");
  for (const std::string stop : {"STOP", "ST", "P d", "keep", "p"}) {
    const Json choice =
        client.post(kPath, {{"prompt", "a"}, {"stop", stop}, {"max_tokens", 50}})["choices"][0];
    const std::string all = "keep STOP drop";
    EXPECT_EQ(choice["text"], all.substr(0, all.find(stop)));
    EXPECT_EQ(choice["finish_reason"], "stop");
  }
  std::vector<std::string> stops(16, "never");
  client.post(kPath, {{"prompt", "a"}, {"stop", stops}});
  stops.push_back("one more");
  EXPECT_EQ(client.error(kPath, {{"prompt", "a"}, {"stop", stops}})["param"], "stop");
  EXPECT_EQ(client.error(kPath, {{"prompt", "a"}, {"stop", {"x", ""}}})["param"], "stop[1]");
}

TEST_F(Completions, NeverCutAPrompt) {
  const std::int64_t room = client.engine.context() - 1;  // BOS is there
  EXPECT_EQ(client.post(kPath, {{"prompt", std::string(static_cast<std::size_t>(room - 1), 'a')},
                                {"ignore_eos", true}})["choices"][0]["finish_reason"],
            "length");
  const Json error =
      client.error(kPath, {{"prompt", std::string(static_cast<std::size_t>(room), 'a')}});
  EXPECT_EQ(error["code"], "context_length_exceeded");
  EXPECT_EQ(error["param"], "prompt");
  EXPECT_THAT(error["message"].get<std::string>(), HasSubstr("512"));
  // To be scored it needs no room behind it.
  client.post(kPath, {{"prompt", std::string(static_cast<std::size_t>(room), 'a')},
                      {"echo", true},
                      {"max_tokens", 0}});
  client.post(kPath, {{"prompt", "a"}, {"max_tokens", 100000}, {"ignore_eos", true}});
  EXPECT_EQ(client.engine.jobs().back().options.max_tokens, 510);  // what the context has room for
}

TEST_F(Completions, RefuseAPromptThatIsNone) {
  for (const Json& prompt : {Json(), Json(5), Json::array(), Json({"a", 5}), Json({-1}),
                             Json({258}), Json({1.5}), Json({{97}, Json::array()}), Json({{}})}) {
    const Json error = client.error(kPath, {{"prompt", prompt}});
    if (!prompt.is_null()) {
      EXPECT_THAT(error["param"].get<std::string>(), HasSubstr("prompt")) << prompt;
    }
  }
  client.error(kPath, {{"prompt", std::vector<std::string>(129, "a")}});
}

}  // namespace
}  // namespace memlayers::testing
