// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>

#include <atomic>
#include <cmath>
#include <thread>

#include "serve/serving.h"

namespace memlayers {
namespace {

using testing::Answer;
using testing::Draw;
using testing::drawing;
using testing::error_of;
using ::testing::HasSubstr;
using testing::Heard;
using testing::Request;
using testing::says;
using testing::Serving;

using EngineTest = Serving;

TEST_F(EngineTest, AnswersAreThoseOfADecoderAloneUnderAnyLoadWithEditsAndCancelsBeside) {
  for (const std::int64_t drafted : {0, 5}) {
    open({.sequences = 4, .waiting = 500, .prefill_tokens = 40, .drafted_tokens = drafted});
    std::map<std::uint64_t, Snapshot> versions;
    const auto note = [&] {
      const Snapshot now = memory().snapshot();
      versions.emplace(now.version(), now);
    };
    note();
    Draw draw(static_cast<unsigned>(3 + drafted), /*shared=*/true);
    struct Asked {
      std::int64_t id;
      Request request;
      bool is_off;
      std::shared_ptr<Heard> heard;
    };
    std::vector<Asked> asked;
    int cancelled = 0, edits = 0;
    for (int i = 0; i < 60; ++i) {
      const Request request = draw.request();
      const bool is_off = draw.below(5) == 0;
      const auto [id, heard] = ask(request, {.off = is_off});
      if (draw.below(8) == 0) {
        engine_->cancel({id});
        ++cancelled;
      } else {
        asked.push_back({id, request, is_off, heard});
      }
      if (draw.below(6) != 0) continue;
      const std::string name = "p" + std::to_string(drafted) + std::to_string(edits / 2);
      if (edits % 2 == 0) {
        memory().apply(patch(name, {draw.below(36)}), std::nullopt);
      } else {
        memory().rollback(name, std::nullopt);
      }
      ++edits;
      note();
    }
    for (const Asked& each : asked) {
      const Answer answer = each.heard->answer();
      EXPECT_EQ(each.heard->starts(), 1);
      SequenceMemory memory{.is_off = each.is_off};
      memory.rows = versions.at(each.heard->version());
      EXPECT_EQ(answer, alone_with(each.request, memory)) << each.id;
    }
    EXPECT_GT(cancelled, 0);
    EXPECT_GT(edits, 3);
    EXPECT_TRUE(engine_->wait_until_idle(60));
    const api::EngineCounters counters = engine_->counters();
    EXPECT_EQ(counters.running, 0);
    EXPECT_EQ(counters.waiting, 0);
    EXPECT_EQ(counters.cache_usage, 0);
    EXPECT_GT(counters.prefix_hits, 0);
    EXPECT_GT(counters.prefix_queries, counters.prefix_hits);
    EXPECT_GT(counters.generated_tokens, 100);
    EXPECT_EQ(counters.drafted_tokens > 0, drafted > 0);
    EXPECT_FALSE(counters.trouble);
    engine_.reset();
  }
}

TEST_F(EngineTest, APromptThatWasAnsweredIsThereTheNextTimeAndTheAnswerIsTheSame) {
  open();
  Request request{std::vector<std::int32_t>(150, 9), drawing(12)};
  request.options.logprobs = 3;
  const auto cold = ask(request).second;
  const Answer first = cold->answer();
  EXPECT_EQ(cold->cached(), 0);
  const auto warm = ask(request).second;
  EXPECT_EQ(warm->answer(), first);
  EXPECT_EQ(warm->cached(), 128);
  EXPECT_EQ(engine_->counters().prefix_hits, 128);
  EXPECT_EQ(engine_->counters().prefix_queries, 300);
}

TEST_F(EngineTest, BeyondTheQueueRequestsAreRefusedWithATimeToWait) {
  open({.sequences = 1, .waiting = 2});
  const auto running = ask(long_request());
  running.second->wait_for_tokens(1);
  const auto first = ask(long_request(1)), second = ask(long_request(1));
  EXPECT_EQ(engine_->counters().waiting, 2);
  const api::Refusal refusal = refusal_of([&] { ask(long_request(1)); });
  EXPECT_EQ(refusal.status(), 429);
  EXPECT_EQ(refusal.code(), "queue_full");
  EXPECT_THAT(refusal.what(), HasSubstr("at most 2 sequences that wait, got 3"));
  ASSERT_TRUE(refusal.retry_after_s);
  EXPECT_GE(*refusal.retry_after_s, 1);
  engine_->cancel({running.first});
  EXPECT_EQ(first.second->answer().tokens, second.second->answer().tokens);
  EXPECT_EQ(ask(long_request(1)).second->answer().tokens, first.second->answer().tokens);
}

TEST_F(EngineTest, ARequestOfSeveralIsTakenWholeOrNotAtAll) {
  open({.sequences = 1, .waiting = 1});
  const auto running = ask(long_request());
  running.second->wait_for_tokens(1);
  const auto heard = std::make_shared<Heard>();
  EXPECT_EQ(refusal_of([&] {
              engine_->submit({{job(long_request(2)), heard}, {job(long_request(2)), heard}});
            }).status(),
            429);
  EXPECT_EQ(refusal_of([&] {
              engine_->submit({{job(long_request(2)), heard}, {job({{400}, drawing(2)}), heard}});
            }).status(),
            400);
  EXPECT_EQ(engine_->counters().waiting, 0);
  EXPECT_FALSE(heard->has_started());
}

TEST_F(EngineTest, ACancelledSequenceIsGoneWithinAStepAndHeardNoMore) {
  open({.sequences = 1});
  const auto [id, heard] = ask(long_request());
  heard->wait_for_tokens(2);
  const auto queued = ask(long_request());
  engine_->cancel({id, queued.first, 999});
  EXPECT_TRUE(engine_->wait_until_idle(60));
  const std::size_t tokens = heard->tokens();
  EXPECT_LT(tokens, 150U);
  EXPECT_EQ(engine_->counters().running, 0);
  EXPECT_EQ(ask(long_request(5)).second->answer().tokens.size(), 5U);
  EXPECT_EQ(heard->tokens(), tokens);
  EXPECT_FALSE(queued.second->has_started());
}

TEST_F(EngineTest, AListenerMayCancelItself) {
  open();
  const auto heard = std::make_shared<Heard>();
  std::atomic<std::int64_t> id = -1;
  heard->on_token = [&] {
    while (id < 0) std::this_thread::yield();
    engine_->cancel({id});
  };
  id = engine_->submit({{job(long_request()), heard}}).front();
  EXPECT_TRUE(engine_->wait_until_idle(60));
  EXPECT_EQ(heard->tokens(), 1U);
}

TEST_F(EngineTest, WhatDoesNotFitBesideOthersWaitsAndWhatNeverFitsIsRefused) {
  plain_ = open_model(folder());
  const std::int64_t page = KvCache::bytes_of(*plain_, 1);
  open({.sequences = 4, .cache_bytes = 3 * page, .keeps_prefixes = false});
  const auto first = ask(long_request(120)).second;  // two pages
  first->wait_for_tokens(1);
  const auto second = ask(long_request(120)).second, third = ask({{5}, drawing(3)}).second;
  first->answer();
  EXPECT_EQ(second->answer(), first->answer());
  EXPECT_EQ(third->answer().tokens.size(), 3U);
  const api::Refusal refusal =
      refusal_of([&] { ask({std::vector<std::int32_t>(180, 5), drawing(20)}); });
  EXPECT_EQ(refusal.status(), 400);
  EXPECT_EQ(refusal.code(), "context_length_exceeded");
}

TEST_F(EngineTest, SaysWhatIsWrongWithARequest) {
  open({.context = 50});
  EXPECT_EQ(engine_->context(), 50);
  const auto refused = [&](const Request& request, const std::string& code,
                           const std::string& param, const std::string& text) {
    const api::Refusal refusal = refusal_of([&] { ask(request); });
    EXPECT_EQ(refusal.status(), 400);
    EXPECT_EQ(refusal.code(), code);
    EXPECT_EQ(refusal.param(), param);
    EXPECT_THAT(refusal.what(), HasSubstr(text));
  };
  refused({{}, drawing(1)}, "empty_prompt", "prompt", "at least one token");
  refused({{5, 300}, drawing(1)}, "invalid_token", "prompt", "[0, 300), got 300");
  refused({std::vector<std::int32_t>(51, 5), drawing(1)}, "context_length_exceeded", "prompt",
          "at most 50 tokens, the model's context, got 51");
  GenerateOptions options = drawing(1);
  options.top_p = 2;
  refused({{5}, options}, "invalid_value", "top_p", "top_p");
  const auto whole = ask({std::vector<std::int32_t>(45, 5), drawing(100)}).second;
  EXPECT_EQ(whole->answer().tokens.size(), 5U) << "to the end of the context";
  EXPECT_TRUE(says(error_of([&] { open({.sequences = 0}); }), {"slots", "at least 1", "0"}));
  for (const double slowdown : {1.0, -2.0, std::nan("")}) {
    EXPECT_TRUE(says(error_of([&] { open({.slowdown = slowdown}); }), {"slowdown", "above 1"}));
  }
}

TEST_F(EngineTest, APoolThatLosesItsPagesFailsThatRequestAndTheOthersGoOn) {
  open({.sequences = 4});
  const auto off = ask(long_request(100), {.off = true}).second;
  off->wait_for_tokens(1);
  for (const auto& file : std::filesystem::directory_iterator(pool())) {
    if (file.path().filename().string().starts_with("chunk-")) {
      std::filesystem::resize_file(file.path(), 0);
    }
  }
  const auto reading = ask(long_request(5)).second;
  const Answer failed = reading->answer();
  EXPECT_EQ(failed.finish, FinishReason::kError);
  EXPECT_TRUE(reading->is_fault());
  EXPECT_THAT(failed.error, HasSubstr("chunk-"));
  ASSERT_TRUE(engine_->counters().trouble);
  EXPECT_EQ(*engine_->counters().trouble, failed.error);
  EXPECT_EQ(off->answer().tokens.size(), 100U) << "it reads nothing of the pool";
  EXPECT_EQ(ask(long_request(5), {.off = true}).second->answer().tokens.size(), 5U);
}

TEST_F(EngineTest, DrainingRefusesWhatComesAndAnswersWhatIsThere) {
  open({.sequences = 1});
  const auto running = ask(long_request(60)).second, waiting = ask(long_request(5)).second;
  engine_->drain();
  const api::Refusal refusal = refusal_of([&] { ask(long_request(1)); });
  EXPECT_EQ(refusal.status(), 503);
  EXPECT_EQ(running->answer().tokens.size(), 60U);
  EXPECT_EQ(waiting->answer().tokens.size(), 5U);
  EXPECT_TRUE(engine_->wait_until_idle(60));
}

TEST_F(EngineTest, StoppingEndsAllWithAnError) {
  open({.sequences = 1});
  std::atomic<bool> goes_on = false;
  const auto running = std::make_shared<Heard>();
  running->on_token = [&] {
    while (!goes_on) std::this_thread::yield();
  };
  engine_->submit({{job(long_request()), running}});
  const auto waiting = ask(long_request()).second;
  running->wait_for_tokens(1);
  EXPECT_FALSE(engine_->wait_until_idle(0));
  std::thread stopping([&] { engine_->stop(); });
  bool is_stopping = false;
  while (!is_stopping) {
    try {
      engine_->cancel({ask(long_request()).first});
    } catch (const api::Refusal& refusal) {
      EXPECT_EQ(refusal.status(), 503);
      is_stopping = true;
    }
  }
  goes_on = true;
  stopping.join();
  EXPECT_EQ(running->answer().finish, FinishReason::kError);
  EXPECT_EQ(waiting->answer().finish, FinishReason::kError);
}

TEST_F(EngineTest, TellsTheModelByItsFolderAndADigestOfItsWeights) {
  open();
  const std::string digest = engine_->weights_digest();
  EXPECT_EQ(digest.size(), 32U);
  EXPECT_EQ(engine_->model_id(), std::filesystem::path(folder()).filename());
  EXPECT_EQ(engine_->chat_template(), nullptr);
  EXPECT_EQ(engine_->end_tokens().size(), 1U);
  memory().apply(patch_of_all("p"), std::nullopt);
  open({.model_id = "other"});
  EXPECT_EQ(engine_->weights_digest(), digest) << "of what edits leave alone";
  EXPECT_EQ(engine_->model_id(), "other");
}

TEST(EngineWithoutMemory, AnswersAndHasNoPool) {
  ModelConfig config = testing::long_config();
  config.memory.reset();
  const testing::TempDir dir;
  save_model(testing::tiny_generator(config).model(), dir.path());
  testing::write_file(dir / testing::tiny_tokenizer()->file_name(),
                      testing::tiny_tokenizer()->file_bytes());
  const auto engine = serve::ModelEngine::open(dir.path());
  EXPECT_EQ(engine->memory(), nullptr);
  const auto heard = std::make_shared<Heard>();
  engine->submit({{{.prompt = {5, 6}, .options = drawing(4), .memory = {.off = true}}, heard}});
  EXPECT_EQ(heard->answer().tokens.size(), 4U);
  EXPECT_EQ(heard->version(), 0U);
  try {
    engine->submit({{{.prompt = {5}, .options = {}, .memory = {.version = 1}}, heard}});
    ADD_FAILURE() << "expected a Refusal";
  } catch (const api::Refusal& refusal) {
    EXPECT_EQ(refusal.status(), 400);
    EXPECT_EQ(refusal.param(), "memory.version");
  }
}

}  // namespace
}  // namespace memlayers
