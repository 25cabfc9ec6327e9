// SPDX-License-Identifier: Apache-2.0
#include "memlayers/decoder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "generate/decoder_testing.h"
#include "support/testing.h"

namespace memlayers {
namespace {

using testing::alone;
using testing::Answer;
using testing::Draw;
using testing::drawing;
using testing::error_of;
using testing::long_config;
using testing::make_decoder;
using testing::Request;
using testing::says;
using testing::tiny_generator;
using testing::tiny_model_config;
using testing::tiny_tokenizer;

// Sequences come and go at random; what each gives is what it gives alone with other pieces.
void expect_as_alone(const ModelConfig& config, unsigned seed, int requests) {
  Draw draw(seed);
  Generator generator = tiny_generator(config);
  const auto decoder = [&](std::int64_t prefill) {
    return Decoder(generator.model(), tiny_tokenizer(), {.prefill_tokens = prefill});
  };
  Decoder together = decoder(1 + draw.below(70)), single = decoder(256), others = decoder(64);
  std::map<std::int64_t, Request> open;
  std::map<std::int64_t, Answer> answers;
  int joined = 0, left = 0, compared = 0;
  while (joined < requests || !open.empty()) {
    while (joined < requests && open.size() < 6 && draw.often()) {
      const Request request = draw.request();
      open[together.join(request.prompt, request.options)] = request;
      ++joined;
    }
    if (!open.empty() && draw.below(40) == 0) {
      const std::int64_t leaving =
          std::next(open.begin(), draw.below(static_cast<std::int64_t>(open.size())))->first;
      EXPECT_TRUE(together.leave(leaving));
      EXPECT_FALSE(together.leave(leaving));
      open.erase(leaving);
      ++left;
    }
    at::set_num_threads(1 + static_cast<int>(draw.below(3)));
    if (draw.often()) together.set_prefill_tokens(1 + draw.below(70));
    std::int64_t last = -1;
    for (const DecodedToken& made : together.step()) {
      EXPECT_GT(made.sequence, last) << "in the order of joining";
      last = made.sequence;
      ASSERT_TRUE(open.contains(made.sequence)) << "of one that has left";
      add(made, answers[made.sequence]);
      if (!made.finish) continue;
      at::set_num_threads(1);
      EXPECT_EQ(answers[made.sequence], alone(single, open[made.sequence]))
          << "sequence " << made.sequence << " of seed " << seed;
      if (!open[made.sequence].options.prompt_logprobs) {
        EXPECT_EQ(answers[made.sequence], alone(others, open[made.sequence]));
      }
      ++compared;
      open.erase(made.sequence);
    }
  }
  at::set_num_threads(1);
  EXPECT_EQ(compared + left, requests);
  EXPECT_GT(compared, requests / 2);
  EXPECT_TRUE(together.is_idle());
  EXPECT_EQ(together.cache_bytes(), 0);
}

TEST(Decoder, ASequenceGivesWhatItGivesAloneWhateverComesAndGoesBesideIt) {
  expect_as_alone(long_config(), 1, 60);
}

TEST(Decoder, SoItDoesWithExpertsAndRowsFoundByNgrams) {
  ModelConfig config = long_config();
  config.experts = 4;
  expect_as_alone(config, 4, 12);
  config.memory->variant = MemoryVariant::kNgram;
  config.memory->knn = 2;
  config.memory->gate = false;
  expect_as_alone(config, 5, 12);
}

TEST(Decoder, SoItDoesInBfloat16WithRowsOfFewBits) {
  for (const RowType rows : {RowType::kInt8, RowType::kInt4, RowType::kBFloat16}) {
    ModelConfig config = long_config();
    config.dtype = DenseType::kBFloat16;
    config.memory->row_dtype = rows;
    config.memory->qk_norm = !config.memory->qk_norm;
    expect_as_alone(config, 2, 12);
  }
}

TEST(Decoder, SoItDoesWithPeerWithoutMemoryAndWithABesideIt) {
  ModelConfig config = long_config();
  config.memory->variant = MemoryVariant::kPeer;
  expect_as_alone(config, 3, 12);
  config = long_config();
  config.memory->placement = MemoryPlacement::kBeside;
  config.attention_bias = config.mlp_bias = true;
  config.tie_embeddings = true;
  expect_as_alone(config, 4, 12);
  config.memory.reset();
  expect_as_alone(config, 5, 12);
}

TEST(Decoder, APromptIsTakenInByPiecesThatHoldNobodyUp) {
  Decoder decoder = make_decoder(long_config(), {.prefill_tokens = 10});
  const std::int64_t first = decoder.join({5, 6}, drawing(30));
  EXPECT_EQ(decoder.step().size(), 1U);
  const std::int64_t second = decoder.join(std::vector<std::int32_t>(35, 7), drawing(30));
  const std::int64_t third = decoder.join(std::vector<std::int32_t>(3, 8), drawing(30));
  const auto given = [&] {
    std::vector<std::int64_t> sequences;
    for (const DecodedToken& made : decoder.step()) sequences.push_back(made.sequence);
    return sequences;
  };
  const std::vector<std::int64_t> one{first}, all{first, second, third};
  for (int step = 0; step < 3; ++step) EXPECT_EQ(given(), one) << step;
  EXPECT_EQ(given(), all) << "five of the second and three of the third";
  EXPECT_EQ(given(), all);
}

TEST(Decoder, OptionsOfOneSequenceAreNotThoseOfAnother) {
  Decoder decoder = make_decoder(long_config());
  GenerateOptions greedy = drawing(12), biased = drawing(12);
  greedy.temperature = 0;
  biased.logit_bias = {{77, 1e6}};
  const std::int64_t first = decoder.join({5, 6}, greedy), second = decoder.join({5, 6}, biased);
  std::map<std::int64_t, Answer> answers;
  while (!decoder.is_idle()) {
    for (const DecodedToken& made : decoder.step()) add(made, answers[made.sequence]);
  }
  EXPECT_EQ(answers[second].tokens, std::vector<std::int32_t>(12, 77));
  EXPECT_EQ(std::ranges::count(answers[first].tokens, 77), 0);
}

TEST(Decoder, AStopTokenEndsTheSequenceAndIsNoPartOfItsText) {
  Decoder decoder = make_decoder(long_config());
  const Answer whole = alone(decoder, {{5, 6}, drawing(10)});
  ASSERT_EQ(whole.tokens.size(), 10U);
  EXPECT_EQ(whole.finish, FinishReason::kLength);
  Request request{{5, 6}, drawing(10)};
  request.options.stop_tokens = {whole.tokens[4]};
  decoder.join(request.prompt, request.options);
  std::vector<DecodedToken> made;
  while (!decoder.is_idle()) {
    for (DecodedToken& token : decoder.step()) made.push_back(std::move(token));
  }
  const auto first = std::ranges::find(whole.tokens, whole.tokens[4]) - whole.tokens.begin();
  ASSERT_EQ(static_cast<std::ptrdiff_t>(made.size()), first + 1);
  EXPECT_TRUE(made.back().is_end);
  EXPECT_EQ(made.back().token, whole.tokens[4]);
  EXPECT_EQ(made.back().finish, FinishReason::kStop);
  std::string text;
  for (const DecodedToken& token : made) text += token.text;
  EXPECT_TRUE(whole.text.starts_with(text));
}

TEST(Decoder, LogprobsAreThoseOfAForwardPassAndTheChosenOneIsAmongTheMostLikely) {
  Generator generator = tiny_generator(long_config());
  Decoder decoder(generator.model(), tiny_tokenizer(), {.prefill_tokens = 4});
  Request request{{5, 6, 7, 8, 9, 10, 11}, drawing(6)};
  request.options.logprobs = 300;
  request.options.prompt_logprobs = true;
  request.options.repetition_penalty = 1.5;  // log-probabilities are the model's, without it
  decoder.join(request.prompt, request.options);
  std::vector<TokenLogprobs> places;
  std::vector<std::int32_t> tokens = request.prompt;
  while (!decoder.is_idle()) {
    for (const DecodedToken& made : decoder.step()) {
      for (const TokenLogprobs& place : made.prompt_logprobs) places.push_back(place);
      places.push_back(*made.logprobs);
      tokens.push_back(*made.token);
    }
  }
  ASSERT_EQ(places.size(), 13U);
  const torch::NoGradGuard no_gradient;
  const at::Tensor input = torch::tensor(tokens, torch::kInt).to(torch::kLong).unsqueeze(0);
  const at::Tensor wanted = generator.model()->forward(input)[0].to(torch::kDouble).log_softmax(-1);
  EXPECT_FALSE(places[0].logprob);
  for (std::size_t i = 1; i < places.size(); ++i) {
    const TokenLogprobs& place = places[i];
    EXPECT_EQ(place.token, tokens[i]);
    const auto logprob = [&](std::int32_t token) {
      return wanted[static_cast<std::int64_t>(i) - 1][token].item<double>();
    };
    EXPECT_NEAR(*place.logprob, logprob(place.token), 1e-3);
    ASSERT_EQ(place.top.size(), 300U);
    double last = 0;
    bool has_token = false;
    for (const auto& [token, number] : place.top) {
      EXPECT_LE(number, last);
      last = number;
      if (token != place.token) continue;
      has_token = true;
      EXPECT_EQ(number, *place.logprob) << "the same number";
    }
    EXPECT_TRUE(has_token);
  }
}

TEST(Decoder, ThePromptsLogprobsComeWithoutAnyToken) {
  Decoder decoder = make_decoder(long_config());
  GenerateOptions options = drawing(0);
  options.logprobs = 2;
  options.prompt_logprobs = true;
  decoder.join({5, 6, 7}, options);
  const auto made = decoder.step();
  ASSERT_EQ(made.size(), 1U);
  EXPECT_EQ(made[0].finish, FinishReason::kLength);
  EXPECT_FALSE(made[0].token);
  ASSERT_EQ(made[0].prompt_logprobs.size(), 3U);
  EXPECT_FALSE(made[0].prompt_logprobs[0].logprob);
  EXPECT_EQ(made[0].prompt_logprobs[2].token, 7);
  EXPECT_EQ(made[0].prompt_logprobs[2].top.size(), 2U);
}

TEST(Decoder, NothingToDoIsDoneAtOnce) {
  Decoder decoder = make_decoder(long_config());
  EXPECT_TRUE(decoder.step().empty());
  EXPECT_FALSE(decoder.leave(0));
  const std::int64_t sequence = decoder.join({5}, drawing(0));
  const auto made = decoder.step();
  ASSERT_EQ(made.size(), 1U);
  EXPECT_EQ(made[0].sequence, sequence);
  EXPECT_EQ(made[0].finish, FinishReason::kLength);
  EXPECT_FALSE(made[0].token);
  EXPECT_TRUE(decoder.is_idle());
}

TEST(Decoder, ASequenceThatDoesNotFitIsRefusedAndFitsWhenAnotherHasLeft) {
  std::int64_t page = 0;
  {
    Decoder decoder = make_decoder(long_config());
    decoder.join({5}, drawing(1));
    page = decoder.cache_bytes();
    decoder.join(std::vector<std::int32_t>(60, 5), drawing(5));  // 65 tokens
    EXPECT_EQ(decoder.cache_bytes(), 3 * page);
  }
  Decoder decoder = make_decoder(long_config(), {.cache_bytes = 3 * page, .sequences = 2});
  const std::int64_t first = decoder.join(std::vector<std::int32_t>(60, 5), drawing(5));
  EXPECT_TRUE(
      says(error_of([&] { decoder.join(std::vector<std::int32_t>(60, 5), drawing(5)); }),
           {"cache", std::to_string(page) + " of " + std::to_string(3 * page), "65 tokens"}));
  decoder.join({5}, drawing(5));
  EXPECT_TRUE(says(error_of([&] { decoder.join({5}, drawing(5)); }), {"at most 2 sequences"}));
  decoder.step();
  EXPECT_TRUE(decoder.leave(first));
  EXPECT_EQ(decoder.cache_bytes(), page);
  EXPECT_NO_THROW(decoder.join(std::vector<std::int32_t>(60, 5), drawing(5)));
  while (!decoder.is_idle()) decoder.step();
  EXPECT_EQ(decoder.cache_bytes(), 0);
}

TEST(Decoder, LogitsThatAreNotFiniteEndTheirSequenceAlone) {
  ModelConfig config = long_config();
  config.tie_embeddings = false;  // no other token's logits use the embedding of one
  Generator generator = tiny_generator(config);
  const Request good{{5, 6, 7}, drawing(8)};
  Decoder decoder(generator.model(), tiny_tokenizer());
  const Answer wanted = alone(decoder, good);
  ASSERT_EQ(std::ranges::count(wanted.tokens, 250), 0);
  {
    const torch::NoGradGuard no_gradient;
    generator.model()->dense_parameters()[0].second[250].fill_(
        std::numeric_limits<float>::quiet_NaN());  // the embedding of one token
  }
  const std::int64_t bad = decoder.join({5, 250}, drawing(8));
  const std::int64_t well = decoder.join(good.prompt, good.options);
  std::map<std::int64_t, Answer> answers;
  while (!decoder.is_idle()) {
    for (const DecodedToken& made : decoder.step()) add(made, answers[made.sequence]);
  }
  EXPECT_EQ(answers[well], wanted);
  EXPECT_EQ(answers[bad].finish, FinishReason::kError);
  EXPECT_TRUE(says(answers[bad].error, {"logits", "finite", "nan"}));
  EXPECT_TRUE(answers[bad].tokens.empty());
  EXPECT_TRUE(
      says(error_of([&] { generator.generate_tokens({{5, 250}}, drawing(8)); }), {"finite"}));
}

TEST(Decoder, SaysWhatIsWrongWithARequest) {
  Decoder decoder = make_decoder(long_config());
  const auto error = [&](const std::vector<std::int32_t>& prompt, const GenerateOptions& options) {
    return error_of([&] { decoder.join(prompt, options); });
  };
  EXPECT_TRUE(says(error({}, drawing(1)), {"prompt", "at least one"}));
  EXPECT_TRUE(says(error({5, 300}, drawing(1)), {"prompt", "[0, 300)", "got 300"}));
  EXPECT_TRUE(says(error({-1}, drawing(1)), {"prompt", "-1"}));
  EXPECT_TRUE(says(error(std::vector<std::int32_t>(201, 5), drawing(1)), {"at most 200", "201"}));
  EXPECT_TRUE(says(error({5}, drawing(-1)), {"max_tokens"}));
  EXPECT_TRUE(decoder.is_idle());
  EXPECT_TRUE(says(error_of([] { make_decoder(long_config(), {.prefill_tokens = 0}); }),
                   {"prefill_tokens", "0"}));
  EXPECT_TRUE(says(error_of([&] { decoder.set_prefill_tokens(0); }), {"prefill_tokens", "0"}));
  EXPECT_TRUE(says(error_of([] { make_decoder(long_config(), {.cache_bytes = -1}); }),
                   {"cache_bytes", "-1"}));
  EXPECT_TRUE(
      says(error_of([] { make_decoder(long_config(), {.sequences = 0}); }), {"sequences", "0"}));
  ModelConfig small = long_config();
  small.vocab_size = 299;
  Llama model(small);
  EXPECT_TRUE(says(error_of([&] { Decoder(model, tiny_tokenizer()); }), {"at most 299"}));
}

}  // namespace
}  // namespace memlayers
