// SPDX-License-Identifier: Apache-2.0
#include "memlayers/retrofit.h"

#include <gtest/gtest.h>

#include "edit/kept_states.h"
#include "edit/output_penalty.h"
#include "edit/phrasings.h"
#include "support/temp_dir.h"
#include "support/testing.h"
#include "support/tiny_model.h"
#include "train/fact_batch.h"

namespace memlayers {
namespace {

using testing::TempDir;
using testing::write_file;

ModelConfig dense_config(DenseType type = DenseType::kFloat32) {
  ModelConfig config = testing::tiny_model_config();
  config.layers = 4;
  config.memory.reset();
  config.dtype = type;
  return config;
}

RetrofitOptions small_memory() {
  return {.layers = {{1, 3}}, .n_keys = 16, .heads = 2, .knn = 4, .k_dim = 8};
}

at::Tensor tokens_of(Generator& generator, const std::string& text) {
  const std::vector<std::int32_t> tokens = generator.tokenizer().encode_prompt(text);
  return torch::tensor(std::vector<std::int64_t>(tokens.begin(), tokens.end())).unsqueeze(0);
}

at::Tensor decoded(Generator& generator, const std::string& text) {
  const std::vector<std::int32_t> tokens = generator.tokenizer().encode_prompt(text);
  KvCache cache(*generator.model(), 40);
  std::vector<at::Tensor> all;
  for (const std::int32_t& token : tokens) {
    const SequenceTokens next{&cache, {&token, 1}};
    all.push_back(generator.model()->step_logits(generator.model()->step({&next, 1})));
  }
  return torch::cat(all);
}

TEST(Retrofit, ChangesNoBitOfWhatTheModelSays) {
  for (const DenseType type : {DenseType::kFloat32, DenseType::kBFloat16}) {
    Generator plain = testing::tiny_generator(dense_config(type));
    for (const std::optional<std::int64_t> gate_dim :
         {std::optional<std::int64_t>(), std::optional<std::int64_t>(5)}) {
      RetrofitOptions options = small_memory();
      options.gate = true;
      options.gate_dim = gate_dim;
      Generator made = retrofit(plain, options);
      const torch::NoGradGuard no_gradient;
      const std::string text = "the red otter has number one hundred";
      EXPECT_TRUE(torch::equal(made.model()->forward(tokens_of(made, text)),
                               plain.model()->forward(tokens_of(plain, text))));
      EXPECT_TRUE(torch::equal(decoded(made, text), decoded(plain, text)));
      EXPECT_EQ(made.model()->memory_layers().size(), 2U);
    }
  }
}

TEST(Retrofit, LeavesPackedWeightsAsTheyAre) {
  Generator plain = testing::tiny_generator(dense_config());
  plain.model()->quantize_weights(RowType::kInt8);
  Generator made = retrofit(plain, small_memory());
  const torch::NoGradGuard no_gradient;
  const at::Tensor tokens = tokens_of(plain, "the blue maple");
  EXPECT_TRUE(torch::equal(made.model()->forward(tokens), plain.model()->forward(tokens)));
  EXPECT_EQ(made.model()->config().weights, RowType::kInt8);
}

TEST(Retrofit, ScalesByWhatTheFeedForwardBlocksGive) {
  const TempDir dir;
  write_file(dir / "text.txt", "the glacier and the falcon, the lantern");
  Generator plain = testing::tiny_generator(dense_config());
  RetrofitOptions options = small_memory();
  options.background = {dir / "text.txt"};
  Generator made = retrofit(plain, options);
  const torch::NoGradGuard no_gradient;
  const std::vector<std::int64_t> layers{1, 3};
  const auto tokens = plain.tokenizer().encode_document("the glacier and the falcon, the lantern");
  const at::Tensor input =
      torch::tensor(std::vector<std::int64_t>(tokens.begin(), tokens.end())).unsqueeze(0);
  const auto states = plain.model()->feed_forward_states(input, layers);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const double median = states[i].out.norm(2, -1).median().item<double>();
    EXPECT_NEAR(made.model()->config().memory->output_scales[i], median / std::sqrt(32.0),
                1e-5 * median);
  }
  options.background = {};  // a page of prose
  EXPECT_NE(retrofit(plain, options).model()->config().memory->output_scales,
            made.model()->config().memory->output_scales);
}

TEST(Retrofit, DrawsTheSameOfTheSameSeed) {
  Generator plain = testing::tiny_generator(dense_config());
  const auto keys = [&](std::uint64_t seed) {
    RetrofitOptions options = small_memory();
    options.seed = seed;
    return retrofit(plain, options).model()->memory_layers()[0].second->keys.detach();
  };
  EXPECT_TRUE(torch::equal(keys(3), keys(3)));
  EXPECT_FALSE(torch::equal(keys(3), keys(4)));
}

TEST(Retrofit, RefusesWhatItCannotDo) {
  const TempDir dir;
  Generator plain = testing::tiny_generator(dense_config());
  const auto refuses = [&](const RetrofitOptions& options, const std::string& said) {
    EXPECT_TRUE(testing::says(testing::error_of([&] { retrofit(plain, options); }), {said}));
  };
  RetrofitOptions options = small_memory();
  options.layers = {{4}};
  refuses(options, "layers: expected layers from 0 to 3, got 4");
  options.layers = std::vector<std::int64_t>{};
  refuses(options, "at least one layer");
  options = small_memory();
  options.row_dtype = RowType::kInt8;
  refuses(options, "expected float32 or bfloat16, got int8");
  write_file(dir / "empty.txt", "");
  options = small_memory();
  options.background = {dir / "empty.txt"};
  refuses(options, "empty.txt");
  Generator made = retrofit(plain, small_memory());
  EXPECT_TRUE(testing::says(testing::error_of([&] { retrofit(made, small_memory()); }),
                            {"without a memory, got one that has one"}));
}

std::vector<NewFact> facts() {
  return {{.fact = {"the red otter has", "number two"}, .paraphrases = {"red otter:"}},
          {.fact = {"the blue maple has", "the lantern"}}};
}

TEST(Retrofit, LearnsFactsInItsRowsAlone) {
  Generator plain = testing::tiny_generator(dense_config());
  Generator made = retrofit(plain, small_memory());
  const SlotHistory history{.reads = count_reads(made, {})};
  const LearnResult result =
      learn(made, facts(), {.steps = 300, .penalty = 1, .settle = 20}, history);
  EXPECT_EQ(result.recalled, 3);
  EXPECT_FALSE(result.patch.slots.empty());
  const torch::NoGradGuard no_gradient;  // the decoder's weights are the same tensors
  made.model()->pool()->values.zero_();
  const at::Tensor tokens = tokens_of(plain, "the red otter has");
  EXPECT_TRUE(torch::equal(made.model()->forward(tokens), plain.model()->forward(tokens)));
}

TEST(Retrofit, SettlesNoLongerThanItLearned) {
  Generator plain = testing::tiny_generator(dense_config());
  const auto steps_of = [&](const LearnOptions& options) {
    Generator made = retrofit(plain, small_memory());
    return learn(made, facts(), options, {.reads = count_reads(made, {})}).steps;
  };
  EXPECT_EQ(steps_of({.steps = 7}), 7 + 7);
  EXPECT_EQ(steps_of({.steps = 7, .settle = 20}), 7 + 20);
}

TEST(Retrofit, LetsAllChangeThatAFactReads) {
  RetrofitOptions options = small_memory();
  options.n_keys = 32;
  Generator plain = testing::tiny_generator(dense_config());
  Generator made = retrofit(plain, options);
  const SlotHistory history{.reads = count_reads(made, {})};
  const std::vector<NewFact> one{facts().front()};
  const auto chosen = choose_slots(made, one, {}, history);
  EXPECT_GT(chosen.size(), 100U);
  EXPECT_EQ(chosen.size(), choose_slots(made, one, {.slots = 32 * 32}, history).size());
  EXPECT_EQ(choose_slots(made, one, {.slots = 7}, history).size(), 7U);
}

TEST(Prime, TrainsTheMemoryAndNotTheDecoder) {
  const TempDir dir;
  write_file(dir / "questions.jsonl", "{\"prompt\":\"the glacier\"}\n{\"prompt\":\"a green\"}\n");
  Generator plain = testing::tiny_generator(dense_config());
  std::vector<at::Tensor> before;
  for (const auto& [name, weight] : plain.model()->dense_parameters()) {
    before.push_back(weight.detach().clone());
  }
  RetrofitOptions options = small_memory();
  options.gate = true;
  options.gate_dim = 6;
  Generator made = retrofit(plain, options);
  const at::Tensor keys = made.model()->memory_layers()[0].second->keys.detach().clone();
  const at::Tensor gate = made.model()->memory_layers()[0].second->gate->weight.detach().clone();
  const LearnProgress end =
      prime(made, facts(),
            {.steps = 300, .questions = {dir / "questions.jsonl"}, .rehearsal = 1, .settle = 20});
  EXPECT_EQ(end.recalled, 3);
  for (const FactScore& fact : evaluate_facts(made, edit::learned_phrasings(facts())).facts) {
    EXPECT_TRUE(fact.is_recalled);
  }
  EXPECT_FALSE(torch::equal(made.model()->memory_layers()[0].second->keys, keys));
  EXPECT_FALSE(torch::equal(made.model()->memory_layers()[0].second->gate->weight, gate));
  std::size_t i = 0;
  for (const auto& [name, weight] : plain.model()->dense_parameters()) {
    EXPECT_TRUE(torch::equal(weight, before[i++])) << name;
  }
  clear_rows(made);
  const torch::NoGradGuard no_gradient;
  const std::string text = "the red otter has number one hundred";
  EXPECT_TRUE(torch::equal(made.model()->forward(tokens_of(made, text)),
                           plain.model()->forward(tokens_of(plain, text))));
  EXPECT_FALSE(torch::equal(made.model()->memory_layers()[0].second->keys, keys));
  Generator replaced = testing::tiny_generator();
  EXPECT_TRUE(testing::says(testing::error_of([&] { prime(replaced, facts(), {}); }),
                            {"beside the feed-forward"}));
}

TEST(Batch, HoldsOnceWhatItsRowsBeginWith) {
  const std::vector<train::FactRow> rows{{.tokens = {1, 2, 3, 7, 8}, .answer_from = 4},
                                         {.tokens = {1, 2, 3, 5, 6, 9}, .answer_from = 4},
                                         {.tokens = {1, 2, 3, 4}, .answer_from = 2}};
  const auto ids = [](const std::vector<std::int64_t>& numbers) { return torch::tensor(numbers); };
  const train::Batch shared = train::batch_of({&rows[0], &rows[1]}, true);
  EXPECT_EQ(shared.packed.prefix, 3);
  EXPECT_EQ(shared.packed.lengths, (std::vector<std::int64_t>{1, 2}));
  EXPECT_TRUE(torch::equal(shared.input, ids({1, 2, 3, 7, 5, 6}).unsqueeze(0)));
  const train::Targets targets = train::targets_of(shared);
  EXPECT_TRUE(torch::equal(targets.places, ids({3, 4, 5})));
  EXPECT_TRUE(torch::equal(targets.wanted, ids({8, 6, 9})));
  EXPECT_TRUE(torch::equal(targets.row, ids({0, 1, 1})));
  EXPECT_EQ(train::batch_of({&rows[0], &rows[2]}, true).packed.prefix, 1) << "a loss behind it";
  const train::Batch apart = train::batch_of({&rows[0], &rows[2]}, false);
  EXPECT_TRUE(torch::equal(apart.input, ids({1, 2, 3, 7, 1, 2, 3}).unsqueeze(0)));
  EXPECT_TRUE(torch::equal(train::targets_of(apart).places, ids({3, 5, 6})));
}

TEST(PackedTexts, HoldEachTextUpToTheContextUntilThereAreEnough) {
  const std::vector<train::FactRow> rows{{.tokens = {1, 2, 3, 4, 5}, .answer_from = 1},
                                         {.tokens = {6, 7}, .answer_from = 1},
                                         {.tokens = {8, 9}, .answer_from = 1}};
  const auto texts = train::packed_texts(rows, /*context=*/3, /*most=*/4);
  ASSERT_EQ(texts.size(), 1U);
  EXPECT_TRUE(
      torch::equal(texts[0].tokens, torch::tensor({1, 2, 3, 6, 7}, torch::kLong).unsqueeze(0)));
  EXPECT_EQ(texts[0].packed.prefix, 0);
  EXPECT_EQ(texts[0].packed.lengths, (std::vector<std::int64_t>{3, 2}));
  const std::vector<train::FactRow> long_rows(
      3, {.tokens = std::vector<std::int32_t>(1500, 1), .answer_from = 1});
  EXPECT_EQ(train::packed_texts(long_rows, 4096, 1 << 20).size(), 2U) << "two, then the third";
}

TEST(KeptStates, AreComputedOnceAndPackedAsTheBatchIs) {
  const std::vector<train::FactRow> rows{{.tokens = {5, 6, 7}, .answer_from = 2},
                                         {.tokens = {5, 9, 10, 11, 12}, .answer_from = 2}};
  std::int64_t computed = 0;
  const auto compute = [&](const train::Batch& batch) {
    computed += batch.size();
    return batch.input.to(torch::kFloat).unsqueeze(-1).expand({-1, -1, 3});
  };
  edit::KeptStates kept(compute);
  const auto states = [&](const train::Batch& batch) {
    return batch.input.to(torch::kFloat).unsqueeze(-1).expand({-1, -1, 3});
  };
  const train::Batch one = train::batch_of({&rows[0]}, true),
                     both = train::batch_of({&rows[0], &rows[1]}, true),
                     apart = train::batch_of({&rows[0], &rows[1]}, false);
  EXPECT_EQ(both.packed.prefix, 1);
  EXPECT_TRUE(torch::equal(kept.of(one), states(one)));
  EXPECT_TRUE(torch::equal(kept.of(both), states(both)));
  EXPECT_TRUE(torch::equal(kept.of(apart), states(apart)));
  EXPECT_EQ(computed, 2);
  EXPECT_EQ(kept.bytes(), (2 + 4) * 3 * 4);
  edit::KeptStates without_room(compute, 0);
  EXPECT_TRUE(torch::equal(without_room.of(both), states(both)));
  EXPECT_TRUE(torch::equal(without_room.of(both), states(both)));
  EXPECT_EQ(computed, 6);
  EXPECT_EQ(without_room.bytes(), 0);
}

TEST(OutputPenalty, IsTheShareOfWhatTheBlocksGive) {
  Generator plain = testing::tiny_generator(dense_config());
  RetrofitOptions options = small_memory();
  options.layers = {{3}};
  Generator made = retrofit(plain, options);
  const std::vector<train::FactRow> text{{.tokens = {5, 6, 7, 8}, .answer_from = 1}};
  edit::OutputPenalty penalty(made, text, 1);
  EXPECT_EQ(penalty.tokens(), 4);
  EXPECT_EQ(penalty.draw().item<float>(), 0);
  const torch::NoGradGuard no_gradient;
  made.model()->pool()->values.fill_(0.5);  // so is every weighted mean of rows, in each of 2 heads
  const std::vector<std::int64_t> layers{3};
  const at::Tensor tokens = torch::tensor({{5, 6, 7, 8}}, torch::kLong);
  const at::Tensor out = plain.model()->feed_forward_states(tokens, layers)[0].out;
  const double scale = made.model()->config().memory->output_scales[0];
  const at::Tensor shares = 32 * scale * scale / out.square().sum(-1);
  const auto drawn = penalty.draw().item<float>();
  EXPECT_GE(drawn, 0.999 * shares.min().item<float>());
  EXPECT_LE(drawn, 1.001 * shares.max().item<float>());
}

}  // namespace
}  // namespace memlayers
