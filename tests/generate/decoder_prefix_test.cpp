// SPDX-License-Identifier: Apache-2.0
// Pages that stay for prompts that begin alike, drafts, and sequences without memory: each gives
// the bits that it gives without them.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "generate/decoder_testing.h"
#include "memlayers/store.h"
#include "support/temp_dir.h"
#include "support/testing.h"

namespace memlayers {
namespace {

using testing::add;
using testing::alone;
using testing::Answer;
using testing::Draw;
using testing::drawing;
using testing::error_of;
using testing::long_config;
using testing::Request;
using testing::says;
using testing::TempDir;
using testing::tiny_generator;
using testing::tiny_tokenizer;

std::vector<std::int32_t> counted(std::int64_t length, std::int32_t step = 7) {
  std::vector<std::int32_t> tokens;
  for (std::int64_t i = 0; i < length; ++i) {
    tokens.push_back(static_cast<std::int32_t>(3 + i * step % 297));
  }
  return tokens;
}

Answer finish(Decoder& decoder, std::int64_t sequence) {
  Answer answer;
  while (!decoder.is_idle()) {
    for (const DecodedToken& made : decoder.step()) {
      if (made.sequence == sequence) add(made, answer);
    }
  }
  return answer;
}

std::int64_t page_bytes(const Llama& model) { return KvCache::bytes_of(*model, 1); }

TEST(KeptPages, ASequenceGivesWhatItGivesAloneWhateverWasKeptAndDrafted) {
  for (const unsigned seed : {1U, 2U}) {
    Draw draw(seed, /*shared=*/true);
    Generator generator = tiny_generator(long_config());
    Decoder together(generator.model(), tiny_tokenizer(),
                     {.prefill_tokens = 1 + draw.below(70),
                      .cache_bytes = 30 * page_bytes(generator.model()),
                      .keeps_prefixes = true,
                      .drafted_tokens = 6});
    Decoder single(generator.model(), tiny_tokenizer());
    std::map<std::int64_t, Request> open;
    std::map<std::int64_t, bool> is_off;
    std::map<std::int64_t, Answer> answers;
    std::int64_t cached = 0;
    for (int joined = 0; joined < 40 || !open.empty();) {
      while (joined < 40 && open.size() < 5 && draw.often()) {
        const Request request = draw.request();
        const bool off = !draw.often();
        const std::int64_t sequence =
            together.join(request.prompt, request.options, {.is_off = off});
        cached += together.cached_tokens(sequence);
        open[sequence] = request;
        is_off[sequence] = off;
        ++joined;
      }
      at::set_num_threads(1 + static_cast<int>(draw.below(2)));
      for (const DecodedToken& made : together.step()) {
        add(made, answers[made.sequence]);
        if (!made.finish) continue;
        const Request& request = open[made.sequence];
        const std::int64_t again =
            single.join(request.prompt, request.options, {.is_off = is_off[made.sequence]});
        EXPECT_EQ(answers[made.sequence], finish(single, again)) << made.sequence;
        open.erase(made.sequence);
      }
    }
    at::set_num_threads(1);
    EXPECT_GT(cached, 300) << "prompts that share nothing would test nothing";
    EXPECT_GT(together.drafted_tokens(), together.accepted_tokens());
    EXPECT_LE(together.cache_bytes(), 30 * page_bytes(generator.model()));
  }
}

TEST(KeptPages, CountInTheBudgetAndGoBeforeASequenceIsRefused) {
  Generator generator = tiny_generator(long_config());
  const std::int64_t page = page_bytes(generator.model());
  Decoder decoder(generator.model(), tiny_tokenizer(),
                  {.cache_bytes = 4 * page, .keeps_prefixes = true});
  finish(decoder, decoder.join(counted(130), drawing(1)));
  EXPECT_EQ(decoder.cache_bytes(), 2 * page) << "two full pages stay";
  const std::int64_t same = decoder.join(counted(131), drawing(1));
  EXPECT_EQ(decoder.cached_tokens(same), 128);
  EXPECT_EQ(decoder.cache_bytes(), 3 * page) << "one of its own";
  const std::int64_t other = decoder.join(counted(60, 5), drawing(1));
  EXPECT_TRUE(says(error_of([&] { decoder.join({5}, drawing(1)); }), {"cache"}))
      << "held pages do not go";
  EXPECT_THROW(decoder.join({5}, drawing(1)), NoPlace);
  decoder.leave(same);
  decoder.leave(other);
  finish(decoder, decoder.join(counted(130, 11), drawing(1)));
  EXPECT_EQ(decoder.cache_bytes(), 3 * page) << "one page of the first went: the last";
  const std::int64_t third = decoder.join(counted(140), drawing(1));
  EXPECT_EQ(decoder.cached_tokens(third), 64);
  decoder.leave(third);
}

TEST(KeptPages, TheLastTokenOfAPromptIsComputedAndItsLogprobsAreThere) {
  Generator generator = tiny_generator(long_config());
  Decoder decoder(generator.model(), tiny_tokenizer(), {.keeps_prefixes = true});
  Request request{counted(128), drawing(3)};
  request.options.logprobs = 2;
  const Answer cold = alone(decoder, request);
  const std::int64_t again = decoder.join(request.prompt, request.options);
  EXPECT_EQ(decoder.cached_tokens(again), 64);
  EXPECT_EQ(finish(decoder, again), cold);
  request.options.prompt_logprobs = true;
  const std::int64_t whole = decoder.join(request.prompt, request.options);
  EXPECT_EQ(decoder.cached_tokens(whole), 0) << "each place of the prompt is asked for";
  EXPECT_EQ(finish(decoder, whole).numbers.size(), 127U * 3 + 3U * 3);
}

TEST(KeptPages, AnAnswersPagesServeTheNextTurn) {
  Generator generator = tiny_generator(long_config());
  Decoder decoder(generator.model(), tiny_tokenizer(), {.keeps_prefixes = true});
  const Answer first = alone(decoder, {counted(100), drawing(40)});
  std::vector<std::int32_t> next = counted(100);
  next.insert(next.end(), first.tokens.begin(), first.tokens.end());
  const std::int64_t turn = decoder.join(next, drawing(5));
  EXPECT_EQ(decoder.cached_tokens(turn), 128);
  Decoder other(generator.model(), tiny_tokenizer());
  EXPECT_EQ(finish(decoder, turn), alone(other, {next, drawing(5)}));
}

TEST(KeptPages, EqualPromptsThatRunTogetherEndWithOnePageEach) {
  Generator generator = tiny_generator(long_config());
  const std::int64_t page = page_bytes(generator.model());
  Decoder decoder(generator.model(), tiny_tokenizer(),
                  {.prefill_tokens = 300, .keeps_prefixes = true});
  for (int i = 0; i < 3; ++i) decoder.join(counted(70), drawing(20));
  decoder.step();
  EXPECT_EQ(decoder.cache_bytes(), page + 3 * page);
}

// A model that reads its pool from files, and a store that edits it.
class KeptPagesOfAStore : public ::testing::Test {
 protected:
  KeptPagesOfAStore() {
    ModelConfig config = long_config();
    config.memory->n_keys = 24;
    save_model(tiny_generator(config).model(), dir_.path());
    model_ = open_model(dir_.path());
    store_.emplace(Store::open(dir_ / "pool"));
  }
  Snapshot now() {
    model_->pool()->refresh();
    return *model_->pool()->snapshot();
  }
  // Rows of these slots become something else.
  Snapshot apply(const std::string& id, std::vector<std::int64_t> slots) {
    const Snapshot before = now();
    Patch patch{.id = id, .pool = before.pool_id(), .width = before.width()};
    for (const std::int64_t slot : slots) {
      std::vector<float> row(static_cast<std::size_t>(before.width()));
      for (std::size_t i = 0; i < row.size(); ++i) {
        row[i] = 3 * std::sin(static_cast<float>(slot + 1) * static_cast<float>(i + 1));
      }
      const auto bytes = std::as_bytes(std::span(row));
      patch.rows.insert(patch.rows.end(), bytes.begin(), bytes.end());
    }
    patch.slots = std::move(slots);
    store_->apply(patch);
    return now();
  }
  Decoder decoder() { return {model_, tiny_tokenizer(), {.keeps_prefixes = true}}; }
  Answer cold(const std::vector<std::int32_t>& prompt, const SequenceMemory& memory) {
    Decoder single(model_, tiny_tokenizer());
    return finish(single, single.join(prompt, drawing(8), memory));
  }
  static std::vector<std::int64_t> between(std::int64_t first, std::int64_t end) {
    std::vector<std::int64_t> slots;
    for (; first < end; ++first) slots.push_back(first);
    return slots;
  }
  // Which slots the tokens of a prompt read, and which they do not.
  std::pair<std::vector<std::int64_t>, std::vector<std::int64_t>> slots_of(
      const std::vector<std::int32_t>& prompt) {
    std::set<std::int64_t> read;
    Decoder single(model_, tiny_tokenizer());
    for (std::size_t length = 1; length <= prompt.size(); ++length) {
      single.join({prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(length)},
                  drawing(1), {.slots = 1000});
      for (const DecodedToken& made : single.step()) {
        for (const ReadSlot& slot : made.slots) read.insert(slot.slot);
      }
    }
    std::vector<std::int64_t> others;
    for (std::int64_t slot = 0; slot < model_->pool()->slots(); ++slot) {
      if (!read.contains(slot)) others.push_back(slot);
    }
    return {{read.begin(), read.end()}, others};
  }

  TempDir dir_;
  Llama model_{nullptr};
  std::optional<Store> store_;
};

TEST_F(KeptPagesOfAStore, StayAfterAPatchOfOtherSlotsAndNotAfterOneOfTheirs) {
  const auto prompt = counted(70, 1);
  const auto [read, others] = slots_of({prompt.begin(), prompt.begin() + 64});
  ASSERT_FALSE(read.empty());
  ASSERT_FALSE(others.empty()) << "a prompt that reads every slot tests nothing";
  Decoder decoder = this->decoder();
  const Snapshot base = now();
  const auto cached = [&](const SequenceMemory& memory) {
    const std::int64_t sequence = decoder.join(prompt, drawing(8), memory);
    const std::int64_t tokens = decoder.cached_tokens(sequence);
    EXPECT_EQ(finish(decoder, sequence), cold(prompt, memory));
    return tokens;
  };
  EXPECT_EQ(cached({base}), 0);
  EXPECT_EQ(cached({base}), 64);
  const Snapshot disjoint = apply("others", others);
  EXPECT_EQ(cached({disjoint}), 64) << "no row that they read has changed";
  EXPECT_EQ(cached({.is_off = true}), 0) << "memory gives nothing";
  EXPECT_EQ(cached({.is_off = true}), 64);
  const Snapshot touching = apply("theirs", {read.front()});
  EXPECT_EQ(cached({touching}), 0);
  EXPECT_EQ(cached({touching}), 64);
  EXPECT_EQ(cached({base}), 64) << "an older version that somebody holds";
  EXPECT_EQ(cached({disjoint}), 64);
  const std::vector<std::string> theirs{"theirs"};
  EXPECT_EQ(cached({touching.without(theirs)}), 64) << "as it was before that patch";
  store_->rollback("theirs");
  EXPECT_EQ(cached({now()}), 64);
  EXPECT_EQ(cached({touching, /*is_off=*/true}), 64) << "off, whatever the rows";
}

TEST_F(KeptPagesOfAStore, PagesBehindAPageThatChangedAreComputedAnew) {
  const auto prompt = counted(140, 1);
  const auto [first, rest] = slots_of({prompt.begin(), prompt.begin() + 64});
  Decoder decoder = this->decoder();
  finish(decoder, decoder.join(prompt, drawing(8), {now()}));
  const Snapshot touching = apply("p", {first.front()});
  const std::int64_t sequence = decoder.join(prompt, drawing(8), {touching});
  EXPECT_EQ(decoder.cached_tokens(sequence), 0);
  EXPECT_EQ(finish(decoder, sequence), cold(prompt, {touching}));
}

TEST_F(KeptPagesOfAStore, SequencesOfManyViewsStandTogetherEachAsAlone) {
  const Snapshot base = now();
  const Snapshot one = apply("one", between(0, 400)), two = apply("two", between(200, 576));
  const std::vector<std::string> first{"one"}, both{"one", "two"};
  const std::vector<SequenceMemory> memories{
      {two}, {base}, {two.without(first)}, {one}, {two, true}, {two.without(both)}, {two}};
  Decoder decoder = this->decoder();
  std::map<std::int64_t, std::size_t> number;
  for (std::size_t i = 0; i < memories.size(); ++i) {
    number[decoder.join(counted(20), drawing(8), memories[i])] = i;
  }
  std::map<std::size_t, Answer> answers;
  while (!decoder.is_idle()) {
    for (const DecodedToken& made : decoder.step()) add(made, answers[number[made.sequence]]);
  }
  for (std::size_t i = 0; i < memories.size(); ++i) {
    EXPECT_EQ(answers[i], cold(counted(20), memories[i])) << i;
  }
  EXPECT_NE(answers[0], answers[1]) << "patches that change nothing would test nothing";
  EXPECT_NE(answers[0], answers[2]);
  EXPECT_NE(answers[0], answers[4]);
  EXPECT_EQ(answers[1].tokens, answers[5].tokens);
}

TEST(Drafts, AreRightWhereTextRepeatsAndChangeNothing) {
  Generator generator = tiny_generator(long_config());
  const Request request{counted(20, 0), [] {
                          GenerateOptions options = drawing(150);
                          options.temperature = 0;
                          return options;
                        }()};
  Decoder plain(generator.model(), tiny_tokenizer());
  const Answer wanted = alone(plain, request);
  Decoder drafting(generator.model(), tiny_tokenizer(), {.drafted_tokens = 8});
  drafting.join(request.prompt, request.options);
  Answer answer;
  int steps = 0;
  for (; !drafting.is_idle(); ++steps) {
    for (const DecodedToken& made : drafting.step()) add(made, answer);
  }
  EXPECT_EQ(answer, wanted);
  EXPECT_GT(drafting.accepted_tokens(), 0) << "a greedy answer of a small model runs in circles";
  EXPECT_EQ(steps, 150 - drafting.accepted_tokens());
}

TEST(SlotsOfTokens, AreThoseOfGreatestWeightInOrder) {
  Generator generator = tiny_generator(long_config());
  Decoder decoder(generator.model(), tiny_tokenizer(), {.drafted_tokens = 4});
  decoder.join({5, 6, 7}, drawing(1));
  decoder.join({5, 6, 7, 8}, drawing(6), {.slots = 4});
  decoder.join({5, 6, 7, 8}, drawing(6), {.is_off = true, .slots = 4});
  bool is_seen = false;
  while (!decoder.is_idle()) {
    for (const DecodedToken& made : decoder.step()) {
      if (made.sequence != 1) {
        EXPECT_TRUE(made.slots.empty());
        continue;
      }
      is_seen = true;
      ASSERT_EQ(made.slots.size(), 4U);
      for (std::size_t i = 0; i < 4; ++i) {
        EXPECT_EQ(made.slots[i].layer, 1);
        EXPECT_GT(made.slots[i].weight, 0);
        EXPECT_LE(made.slots[i].weight, made.slots[i == 0 ? 0 : i - 1].weight);
      }
    }
  }
  EXPECT_TRUE(is_seen);
  EXPECT_TRUE(says(error_of([&] { decoder.join({5}, drawing(1), {.slots = -1}); }),
                   {"slots", "0 or more", "-1"}));
}

}  // namespace
}  // namespace memlayers
