// SPDX-License-Identifier: Apache-2.0
#include "memlayers/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "support/expect_error.h"

namespace memlayers {
namespace {

using memlayers::testing::expect_error;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// What `change` makes of a good configuration is refused with this message.
template <class Config>
struct Wrong {
  std::function<void(Config&)> change;
  std::string message;
};

template <class Config>
void expect_all_refused(const Config& good, const std::vector<Wrong<Config>>& wrong) {
  good.validate();
  for (const Wrong<Config>& each : wrong) {
    Config config = good;
    each.change(config);
    expect_error([&] { config.validate(); }, HasSubstr(each.message));
  }
}

TEST(ModelConfig, NamesTheFirstWrongField) {
  ModelConfig good;
  good.memory.emplace();
  using C = ModelConfig;
  expect_all_refused<C>(
      good,
      {{[](C& c) { c.dim = 0; }, "[model] dim: expected at least 1, got 0"},
       {[](C& c) { c.dim = kHuge; }, "[model] dim: expected at most 2147483648, got 92233720"},
       {[](C& c) { c.dim = 100; }, "[model] dim: expected a multiple of heads (8), got 100"},
       {[](C& c) { c.layers = -1; }, "[model] layers: expected at least 1, got -1"},
       {[](C& c) { c.heads = 0; }, "[model] heads: expected at least 1, got 0"},
       {[](C& c) { c.kv_heads = 0; }, "[model] kv_heads: expected at least 1, got 0"},
       {[](C& c) { c.kv_heads = 3; }, "[model] kv_heads: expected a divisor of heads (8), got 3"},
       {[](C& c) { c.kv_heads = 16; }, "[model] kv_heads: expected a divisor of heads (8), got 16"},
       {[](C& c) { c.head_dim = 33; }, "[model] head_dim: expected an even number, got 33"},
       {[](C& c) { c.head_dim = -2; }, "[model] head_dim: expected at least 1, got -2"},
       {[](C& c) { c.dim = 8; }, "[model] head_dim: expected an even number, got 1"},
       {[](C& c) { c.ff_dim = 0; }, "[model] ff_dim: expected at least 1, got 0"},
       {[](C& c) { c.experts = 0; }, "[model] experts: expected at least 1, got 0"},
       {[](C& c) { c.experts = 4097; }, "[model] experts: expected at most 4096, got 4097"},
       {[](C& c) {
          c.experts = 2;
          c.memory->layers = {{0, 1, 2, 3, 4, 5, 6, 7}};
        },
        "[model] experts: expected 1 where memory stands in place of every feed-forward, got 2"},
       {[](C& c) { c.vocab_size = 0; }, "[model] vocab_size: expected at least 1, got 0"},
       {[](C& c) { c.context = 0; }, "[model] context: expected at least 1, got 0"},
       {[](C& c) { c.norm_eps = 0; }, "[model] norm_eps: expected a number above 0, got 0"},
       {[](C& c) { c.rope.theta = kNan; },
        "[model] rope_theta: expected a number above 0, got nan"},
       {[](C& c) { c.rope.theta = kInfinity; }, "rope_theta: expected a number above 0, got inf"},
       {[](C& c) { c.rope.factor = -2; }, "[model] rope_factor: expected a number above 0, got -2"},
       {[](C& c) { c.rope.type = "longrope"; },
        "[model] rope_type: expected \"default\", \"linear\", \"dynamic\", \"llama3\" or"},
       {[](C& c) { c.rope = {.type = "llama3", .low_freq_factor = 0}; }, "rope_low_freq_factor: "},
       {[](C& c) { c.rope = {.type = "llama3", .high_freq_factor = 1}; },
        "[model] rope_high_freq_factor: expected a number above rope_low_freq_factor (1), got 1"},
       {[](C& c) { c.rope = {.type = "llama3", .original_context = 0}; },
        "[model] rope_original_context: expected at least 1, got 0"}});
}

TEST(MemoryConfig, NamesTheFirstWrongField) {
  ModelConfig good;
  good.memory.emplace();
  using C = ModelConfig;
  expect_all_refused<C>(
      good,
      {{[](C& c) { c.memory->knn = 200; }, "[memory] knn: expected at most n_keys (128), got 200"},
       {[](C& c) { c.memory->knn = 0; }, "[memory] knn: expected at least 1, got 0"},
       {[](C& c) { c.memory->n_keys = 0; }, "[memory] n_keys: expected at least 1, got 0"},
       {[](C& c) { c.memory->n_keys = 1 << 30; }, "[memory] n_keys: expected n_keys^2 rows below"},
       {[](C& c) { c.memory->n_keys = kHuge; }, "[memory] n_keys: expected at most 2147483648"},
       {[](C& c) { c.memory->heads = 0; }, "[memory] heads: expected at least 1, got 0"},
       {[](C& c) { c.memory->k_dim = 7; }, "[memory] k_dim: expected an even number, got 7"},
       {[](C& c) { c.memory->k_dim = 0; }, "[memory] k_dim: expected at least 2, got 0"},
       {[](C& c) { c.memory->v_dim = 0; }, "[memory] v_dim: expected at least 1, got 0"},
       {[](C& c) { c.memory->v_dim = kHuge; }, "[memory] v_dim: expected at most 2147483648"},
       {[](C& c) {
          c.memory->v_dim = 64;
          c.memory->value_proj = false;
        },
        "[memory] value_proj: expected true where v_dim (64) differs from dim (256), got false"},
       {[](C& c) { c.memory->variant = MemoryVariant::kNgram; },
        "[memory] knn: expected at most 7, n-grams of 2 to 8 tokens, with variant \"ngram\", got "
        "32"},
       {[](C& c) {
          c.memory->variant = MemoryVariant::kNgram;
          c.memory->knn = 2;
          c.memory->gate = true;
        },
        "[memory] gate: expected false with variant \"ngram\", got true"},
       {[](C& c) {
          c.memory->variant = MemoryVariant::kNgram;
          c.memory->knn = 2;
          c.memory->frozen_keys = true;
        },
        "[memory] frozen_keys: expected false with variant \"ngram\", got true"},
       {[](C& c) {
          c.memory->variant = MemoryVariant::kNgram;
          c.memory->knn = 2;
          c.memory->open_keys = 100;
        },
        "[memory] open_keys: expected none with variant \"ngram\", got 100"},
       {[](C& c) { c.memory->layers = {{8}}; },
        "[memory] layers: expected layers from 0 to 7, got 8"},
       {[](C& c) { c.memory->layers = {{-1}}; },
        "[memory] layers: expected layers from 0 to 7, got -1"},
       {[](C& c) { c.memory->layers = {{1, 1}}; },
        "[memory] layers: expected ascending numbers, got 1 after 1"},
       {[](C& c) { c.memory->layers = {{3, 1}}; },
        "[memory] layers: expected ascending numbers, got 1 after 3"}});
}

TEST(TrainConfig, NamesTheFirstWrongField) {
  TrainConfig good;
  good.data.train = {"a.txt"};
  good.train.steps = 10;
  using C = TrainConfig;
  expect_all_refused<C>(
      good,
      {{[](C& c) { c.out = ""; }, "out: expected a folder"},
       {[](C& c) { c.model.dim = 0; }, "[model] dim: "},
       {[](C& c) { c.data.train = {}; }, "[data] train: expected at least one file, got none"},
       {[](C& c) { c.train.steps = {}; },
        "[train] steps, epochs: expected one of the two, got none"},
       {[](C& c) { c.train.epochs = 1; },
        "[train] steps, epochs: expected one of the two, got both"},
       {[](C& c) { c.train.steps = 0; }, "[train] steps: expected at least 1, got 0"},
       {[](C& c) {
          c.train.steps = {};
          c.train.epochs = -0.5;
        },
        "[train] epochs: expected a number above 0, got -0.5"},
       {[](C& c) { c.train.batch_tokens = 0; }, "[train] batch_tokens: expected at least 1, got 0"},
       {[](C& c) { c.train.accumulate = 0; }, "[train] accumulate: expected at least 1, got 0"},
       {[](C& c) { c.train.lr = kNan; }, "[train] lr: expected a number from 0 to 1000, got nan"},
       {[](C& c) { c.train.value_lr = -1; }, "[train] value_lr: expected a number from 0 to 1000"},
       {[](C& c) { c.train.min_lr_ratio = 2; },
        "[train] min_lr_ratio: expected a number from 0 to 1, got 2"},
       {[](C& c) { c.train.weight_decay = -1; }, "[train] weight_decay: "},
       {[](C& c) { c.train.value_weight_decay = -1; }, "[train] value_weight_decay: "},
       {[](C& c) { c.train.beta1 = 1; },
        "[train] beta1: expected a number from 0 to 0.999999999, got 1"},
       {[](C& c) { c.train.beta2 = -1; }, "[train] beta2: "},
       {[](C& c) { c.train.value_beta1 = 1; }, "[train] value_beta1: "},
       {[](C& c) { c.train.value_beta2 = 1; }, "[train] value_beta2: "},
       {[](C& c) { c.train.eps = 0; }, "[train] eps: expected a number above 0, got 0"},
       {[](C& c) { c.train.balance = -1; }, "[train] balance: expected a number from 0 to 1000"},
       {[](C& c) { c.train.clip = -1; }, "[train] clip: expected a number above 0, got -1"},
       {[](C& c) { c.train.value_clip = -1; }, "[train] value_clip: "},
       {[](C& c) { c.train.warmup = -1; }, "[train] warmup: expected at least 0, got -1"},
       {[](C& c) { c.train.threads = -1; }, "[train] threads: expected at least 0, got -1"},
       {[](C& c) { c.train.log_every = 0; }, "[train] log_every: expected at least 1, got 0"},
       {[](C& c) { c.train.eval_every = -1; }, "[train] eval_every: "},
       {[](C& c) { c.train.save_every = -1; }, "[train] save_every: "},
       {[](C& c) { c.train.sample_every = -1; }, "[train] sample_every: "},
       {[](C& c) { c.train.keep = 0; }, "[train] keep: expected at least 1, got 0"},
       {[](C& c) { c.train.max_bad_steps = 0; }, "[train] max_bad_steps: "},
       {[](C& c) {
          c.model.memory.emplace();
          c.model.memory->row_dtype = RowType::kInt8;
        },
        "[memory] row_dtype: expected float32 or bfloat16 to train, got int8"},
       {[](C& c) { c.train.master_rows = true; },
        "[train] master_rows: expected false unless [memory] row_dtype is \"bfloat16\", got "
        "true"}});
}

TEST(TrainConfig, NamesTheFieldThatDenseAdamWCannotTake) {
  TrainConfig good;
  good.data.train = {"a.txt"};
  good.train.steps = 10;
  good.train.value_optimizer = PoolOptimizer::kDenseAdamW;
  using C = TrainConfig;
  const std::string rest = " for value_optimizer \"dense_adamw\", got ";
  expect_all_refused<C>(
      good,
      {{[](C& c) { c.train.value_beta2 = 0.81; },
        "[train] value_beta1: expected at most 0.995 sqrt(value_beta2) = 0.8955" + rest + "0.9"},
       {[](C& c) { c.train.value_beta1 = c.train.value_beta2 = 0; },
        "[train] value_beta2: expected a number above 0" + rest + "0"},
       {[](C& c) { c.train.value_weight_decay = 1000; },
        "[train] value_weight_decay: expected below 1 / value_lr = 1000" + rest + "1000"},
       {[](C& c) { c.train.eps = 1e-31; },
        "[train] eps: expected at least 1e-30" + rest + "1e-31"}});
  good.train.value_optimizer = PoolOptimizer::kAdamW;
  good.train.value_beta2 = 0.81;
  EXPECT_NO_THROW(good.validate());
}

TEST(DefaultMemoryLayers, AreAtMostThreeCentredWithWideStride) {
  EXPECT_THAT(default_memory_layers(0), IsEmpty());
  EXPECT_THAT(default_memory_layers(1), ElementsAre(0));
  EXPECT_THAT(default_memory_layers(2), ElementsAre(0, 1));
  EXPECT_THAT(default_memory_layers(3), ElementsAre(0, 1, 2));
  EXPECT_THAT(default_memory_layers(8), ElementsAre(1, 3, 5));
  EXPECT_THAT(default_memory_layers(24), ElementsAre(5, 11, 17));
  for (std::int64_t n = 1; n < 200; ++n) {
    MemoryConfig memory{.layers = default_memory_layers(n)};
    EXPECT_NO_THROW(memory.validate(256, n)) << n;
    EXPECT_EQ(static_cast<std::int64_t>(memory.layers->size()), std::min<std::int64_t>(3, n));
  }
}

TEST(ModelConfig, ResolvesWhatIsAbsent) {
  ModelConfig config;
  EXPECT_EQ(config.num_kv_heads(), 8);
  EXPECT_EQ(config.attention_head_dim(), 32);
  EXPECT_THAT(config.memory_layers(), IsEmpty());
  config.memory = MemoryConfig{};
  EXPECT_THAT(config.memory_layers(), ElementsAre(1, 3, 5));
  EXPECT_EQ(config.row_width(), 256);
  config.memory->v_dim = 64;
  EXPECT_EQ(config.value_dim(), 64);
  config.memory->variant = MemoryVariant::kPeer;
  EXPECT_EQ(config.row_width(), 320);  // U and V
  config.memory->layers = {std::vector<std::int64_t>{}};
  EXPECT_THAT(config.memory_layers(), IsEmpty());
}

}  // namespace
}  // namespace memlayers
