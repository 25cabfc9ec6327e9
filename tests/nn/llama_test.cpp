// SPDX-License-Identifier: Apache-2.0
#include "memlayers/llama.h"

#include <gtest/gtest.h>
#include <torch/serialize.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <filesystem>
#include <sstream>

#include "io/folder.h"
#include "io/safetensors.h"
#include "memlayers/error.h"
#include "nn/decoder_layer.h"
#include "support/altered_rows.h"
#include "support/altered_tensors.h"
#include "support/temp_dir.h"
#include "support/testing.h"

namespace memlayers {
namespace {

ModelConfig small_config() {
  ModelConfig config;
  config.dim = 24;
  config.layers = 3;
  config.heads = 4;
  config.kv_heads = 2;
  config.ff_dim = 40;
  config.vocab_size = 50;
  config.context = 64;
  config.memory = MemoryConfig{
      .layers = std::vector<std::int64_t>{0, 2}, .n_keys = 8, .heads = 2, .knn = 4, .k_dim = 8};
  return config;
}

at::Tensor random_tokens(at::IntArrayRef shape) {
  return torch::randint(3, 50, shape, torch::kLong);
}

void expect_close(const at::Tensor& got, const at::Tensor& wanted, double tolerance = 2e-5) {
  ASSERT_EQ(got.sizes(), wanted.sizes());
  EXPECT_LE((got - wanted).abs().max().item<double>(), tolerance);
}

TEST(Llama, HasMemoryWhereItIsConfigured) {
  ModelConfig config = small_config();
  EXPECT_EQ(Llama(config)->memory_layers().size(), 2);
  EXPECT_EQ(Llama(config)->memory_layers()[1].first, 2);
  const auto names_of = [](const Llama& model) {
    std::string names;
    for (const auto& [name, tensor] : model->dense_parameters()) names += name + "\n";
    return names;
  };
  EXPECT_EQ(names_of(Llama(config)).find("layers.0.mlp"), std::string::npos);
  EXPECT_NE(names_of(Llama(config)).find("model.layers.0.memory.keys"), std::string::npos);
  config.memory->placement = MemoryPlacement::kBeside;
  EXPECT_NE(names_of(Llama(config)).find("layers.0.mlp"), std::string::npos);
  config.memory->layers = std::vector<std::int64_t>{};
  EXPECT_TRUE(Llama(config)->pool().is_empty());
}

std::vector<std::int32_t> ids_of(const at::Tensor& tokens) {  // [T]
  const at::Tensor ids = tokens.to(torch::kInt).contiguous();
  const auto* data = ids.const_data_ptr<std::int32_t>();
  return {data, data + ids.numel()};
}

TEST(Llama, CacheGivesTheLogitsOfTheWholeSequence) {
  Llama model(small_config());
  const torch::NoGradGuard no_grad;
  const at::Tensor tokens = random_tokens({2, 12});
  const at::Tensor wanted = model->forward(tokens);
  const std::vector<std::int32_t> first = ids_of(tokens[0]), second = ids_of(tokens[1]);
  KvCache caches[]{KvCache(*model, 12), KvCache(*model, 12)};
  std::vector<at::Tensor> parts;
  std::size_t begin = 0;
  for (const std::size_t count : {5, 1, 4, 1, 1}) {
    const std::vector<SequenceTokens> next{{&caches[0], std::span(first).subspan(begin, count)},
                                           {&caches[1], std::span(second).subspan(begin, count)}};
    const auto rows = static_cast<std::int64_t>(count);
    parts.push_back(model->step_logits(model->step(next)).view({2, rows, -1}));
    begin += count;
  }
  expect_close(torch::cat(parts, 1), wanted);
  const std::vector<SequenceTokens> more{{&caches[0], std::span(first).first(1)}};
  EXPECT_THROW(model->step(more), c10::ValueError);  // full
}

TEST(Llama, TheTwoHalvesOfItsStatesAreTheWhole) {
  for (const MemoryPlacement placement : {MemoryPlacement::kReplace, MemoryPlacement::kBeside}) {
    ModelConfig config = small_config();
    config.memory->layers = std::vector<std::int64_t>{1, 2};
    config.memory->placement = placement;
    config.memory->output_scales = {0.5, 3};
    torch::manual_seed(4);
    Llama model(config);
    const torch::NoGradGuard no_grad;
    const at::Tensor tokens = random_tokens({2, 9});
    const at::Tensor whole = model->hidden_states(tokens);
    const at::Tensor states = model->states_before_memory(tokens);
    EXPECT_TRUE(torch::equal(model->hidden_states_from(states), whole));
    model->pool()->values.detach().mul_(2);
    EXPECT_FALSE(torch::equal(model->hidden_states(tokens), whole));
    EXPECT_TRUE(torch::equal(model->states_before_memory(tokens), states));
  }
  ModelConfig dense = small_config();
  dense.memory.reset();
  EXPECT_THROW(Llama(dense)->states_before_memory(random_tokens({1, 2})), c10::ValueError);
  EXPECT_THROW(Llama(small_config())->hidden_states_from(torch::zeros({1, 2, 3})), c10::ValueError);
}

TEST(Llama, ShowsWhatFeedForwardBlocksTakeAndGive) {
  ModelConfig config = small_config();
  config.memory->layers = std::vector<std::int64_t>{1};
  config.memory->placement = MemoryPlacement::kBeside;
  Llama model(config);
  const torch::NoGradGuard no_grad;
  const at::Tensor tokens = random_tokens({2, 5});
  const std::vector<std::int64_t> layers{0, 1};
  const auto shown = model->feed_forward_states(tokens, layers);
  ASSERT_EQ(shown.size(), 2U);
  EXPECT_EQ(shown[1].in.sizes(), at::IntArrayRef({2, 5, 24}));
  EXPECT_EQ(shown[1].out.sizes(), at::IntArrayRef({2, 5, 24}));
  MemoryLayer memory = model->memory_layers()[0].second;
  model->set_output_scales({2});
  const auto again = model->feed_forward_states(tokens, layers);
  EXPECT_TRUE(torch::equal(again[1].in, shown[1].in));
  EXPECT_EQ(model->config().memory->output_scales, std::vector<double>{2});
  EXPECT_EQ(memory->output_scale, 2);
  EXPECT_THROW(model->set_output_scales({1, 2}), c10::ValueError);
  const std::vector<std::int64_t> too_high{3};
  EXPECT_THROW(model->feed_forward_states(tokens, too_high), c10::ValueError);
  const std::vector<std::int64_t> replaced{0};
  EXPECT_THROW(Llama(small_config())->feed_forward_states(tokens, replaced), c10::ValueError);
}

TEST(Llama, SequencesOfDifferentLengthsInOneStepChangeNothing) {
  Llama model(small_config());
  const torch::NoGradGuard no_grad;
  const at::Tensor tokens = random_tokens({1, 7});
  const at::Tensor wanted = model->forward(tokens);
  const std::vector<std::int32_t> first = ids_of(tokens[0]), second = ids_of(random_tokens({8}));
  KvCache one(*model, 20), other(*model, 20);
  const std::vector<SequenceTokens> both{{&other, second}, {&one, std::span(first).first(5)}};
  expect_close(model->step_logits(model->step(both)).slice(0, 8), wanted[0].slice(0, 0, 5));
  const std::vector<SequenceTokens> rest{{&one, std::span(first).subspan(5)}};
  expect_close(model->step_logits(model->step(rest)), wanted[0].slice(0, 5));
}

// Long enough for several pages and blocks of queries, in both types, with and without groups of
// heads.
TEST(Llama, ATokenHasTheSameBitsHoweverASequenceIsCutIntoSteps) {
  for (const bool is_bfloat16 : {false, true}) {
    ModelConfig config = small_config();
    config.context = 200;
    config.heads = 4;
    config.head_dim = 6;
    config.kv_heads = is_bfloat16 ? 4 : 2;
    if (is_bfloat16) config.dtype = DenseType::kBFloat16;
    Llama model(config);
    const torch::NoGradGuard no_grad;
    const std::vector<std::int32_t> tokens = ids_of(random_tokens({150}));
    const std::vector<std::int32_t> beside = ids_of(random_tokens({100}));
    const auto hidden = [&](std::initializer_list<std::size_t> counts, bool is_alone) {
      KvCache cache(*model, 150), other(*model, 200);
      std::vector<at::Tensor> parts;
      std::size_t begin = 0;
      for (const std::size_t count : counts) {
        std::vector<SequenceTokens> next{{&cache, std::span(tokens).subspan(begin, count)}};
        if (!is_alone) next.insert(next.begin(), {&other, std::span(beside).first(7)});
        parts.push_back(model->step(next).slice(0, is_alone ? 0 : 7));
        begin += count;
      }
      return torch::cat(parts);
    };
    const at::Tensor whole = hidden({150}, true);
    EXPECT_TRUE(torch::equal(hidden({1, 2, 3, 60, 1, 64, 19}, true), whole));
    EXPECT_TRUE(torch::equal(hidden({63, 1, 1, 85}, false), whole));
    const int threads = at::get_num_threads();
    at::set_num_threads(threads == 1 ? 3 : 1);
    EXPECT_TRUE(torch::equal(hidden({100, 50}, false), whole));
    at::set_num_threads(threads);
    const at::Tensor logits = model->step_logits(whole);
    EXPECT_TRUE(torch::equal(model->step_logits(whole.slice(0, 70, 71)), logits.slice(0, 70, 71)));
  }
}

TEST(Llama, SaysWhatIsWrongWithAStep) {
  Llama model(small_config());
  KvCache cache(*model, 4);
  const auto error = [&](const std::vector<SequenceTokens>& next) -> std::string {
    try {
      model->step(next);
    } catch (const c10::ValueError& wrong) {
      return wrong.what_without_backtrace();
    }
    return "";
  };
  const std::vector<std::int32_t> tokens{1, 2}, wrong{1, 50}, none;
  EXPECT_TRUE(testing::says(error({}), {"at least one sequence"}));
  EXPECT_TRUE(testing::says(error({{&cache, none}}), {"1 to 4 tokens", "got 0"}));
  EXPECT_TRUE(testing::says(error({{&cache, wrong}}), {"[0, 50)", "got 50"}));
  EXPECT_TRUE(testing::says(error({{&cache, tokens}, {&cache, tokens}}), {"once"}));
  ModelConfig config = small_config();
  config.layers = 4;
  Llama other(config);
  KvCache of_other(*other, 4);
  EXPECT_TRUE(testing::says(error({{&cache, tokens}, {&of_other, tokens}}), {"this model"}));
  EXPECT_EQ(cache.length(), 0);
}

TEST(KvCache, CountsInItsBudgetUntilItIsGone) {
  Llama model(small_config());
  auto unlimited = std::make_shared<CacheBudget>();
  std::int64_t bytes = 0;
  {
    const KvCache cache(*model, 65, unlimited);
    bytes = cache.bytes();
    EXPECT_EQ(unlimited->bytes(), bytes);
    const ModelConfig& config = model->config();
    EXPECT_EQ(bytes, 2 * 2 * 64 * config.layers * config.num_kv_heads() *
                         config.attention_head_dim() * 4);  // two pages of keys and values
  }
  EXPECT_EQ(unlimited->bytes(), 0);
  auto budget = std::make_shared<CacheBudget>(bytes);
  std::optional<KvCache> first(std::in_place, *model, 64, budget);
  KvCache second(*model, 64, budget);
  EXPECT_TRUE(testing::says(testing::error_of([&] { KvCache(*model, 1, budget); }),
                            {"cache", "at most 0 of", std::to_string(bytes), "1 tokens"}));
  KvCache moved(std::move(second));
  first.reset();
  EXPECT_EQ(budget->bytes(), bytes / 2);
  EXPECT_NO_THROW(KvCache(*model, 1, budget));
  EXPECT_THROW(KvCache(*model, 0), c10::ValueError);
}

TEST(Llama, SavedAndLoadedItIsTheSameModelBitForBit) {
  for (bool is_bfloat16 : {false, true}) {
    for (bool is_tied : {false, true}) {
      ModelConfig config = small_config();
      config.tie_embeddings = is_tied;
      config.memory->variant = is_tied ? MemoryVariant::kPeer : MemoryVariant::kMemoryPlus;
      config.attention_bias = config.mlp_bias = is_tied;
      if (is_bfloat16) {
        config.dtype = DenseType::kBFloat16;
        config.memory->row_dtype = RowType::kBFloat16;
      }
      Llama model(config, 7);
      const testing::TempDir folder;
      save_model(model, folder.path());
      Llama loaded = load_model(folder.path());
      const torch::NoGradGuard no_grad;
      const at::Tensor tokens = random_tokens({2, 9});
      EXPECT_TRUE(torch::equal(loaded->forward(tokens), model->forward(tokens)));
      EXPECT_TRUE(torch::equal(loaded->pool()->values, model->pool()->values));
      EXPECT_EQ(loaded->pool()->id, model->pool()->id);
    }
  }
}

TEST(Llama, TrainsInBfloat16) {
  ModelConfig config = small_config();
  config.dtype = DenseType::kBFloat16;
  Llama model(config);
  const at::Tensor tokens = random_tokens({2, 9});
  const at::Tensor loss = answer_loss(model, model->hidden_states(tokens), tokens);
  loss.backward();
  EXPECT_TRUE(std::isfinite(loss.item<float>()));
  for (const auto& [name, parameter] : model->dense_parameters()) {
    EXPECT_TRUE(parameter.grad().defined()) << name;
  }
  EXPECT_EQ(model->pool()->gradient().size(), 2);
}

TEST(Llama, LossCountsOnlyTheTargetsThatAreGiven) {
  Llama model(small_config());
  const at::Tensor tokens = random_tokens({2, 9});
  at::Tensor targets = torch::full({2, 9}, kIgnoredTarget, torch::kLong);
  targets[1][4] = 17;
  const at::Tensor hidden = model->hidden_states(tokens);
  const double wanted = -model->logits(hidden)[1][4].log_softmax(0)[17].item<double>();
  EXPECT_NEAR(answer_loss(model, hidden, targets).item<double>(), wanted, 1e-5);
  targets.fill_(kIgnoredTarget);
  EXPECT_EQ(answer_loss(model, hidden, targets).item<double>(), 0);
}

TEST(Llama, RopeScalingsAreThoseOfTheirFormulas) {
  // Long waves are slowed by the factor, short ones are kept.
  RopeConfig rope;
  constexpr std::int64_t kHeadDim = 6;
  const at::Tensor plain = rope_frequencies(rope, kHeadDim);
  rope.type = "llama3";
  rope.factor = 8;
  rope.original_context = 32;
  const at::Tensor ratio = plain / rope_frequencies(rope, kHeadDim);
  EXPECT_NEAR(ratio[0].item<double>(), 1, 1e-5);   // 32 / 2 pi = 5 turns: above high_freq_factor 4
  EXPECT_NEAR(ratio[-1].item<double>(), 8, 1e-4);  // below one turn
  rope.type = "linear";
  EXPECT_NEAR((plain / rope_frequencies(rope, kHeadDim)).max().item<double>(), 8, 1e-4);
}

TEST(Llama, MovedToBfloat16ItGeneratesWithACache) {
  Llama model(small_config());
  const torch::NoGradGuard no_grad;
  const at::Tensor tokens = random_tokens({64, 6});
  const at::Tensor wide = model->forward(tokens).select(1, 5);
  model->to(torch::kBFloat16);
  std::vector<std::vector<std::int32_t>> ids;
  std::vector<KvCache> caches;
  for (std::int64_t row = 0; row < 64; ++row) {
    ids.push_back(ids_of(tokens[row]));
    caches.emplace_back(*model, 6);
  }
  const auto step = [&](std::size_t begin, std::size_t count) {
    std::vector<SequenceTokens> next;
    for (std::size_t row = 0; row < 64; ++row) {
      next.push_back({&caches[row], std::span(ids[row]).subspan(begin, count)});
    }
    return model->step_logits(model->step(next));
  };
  step(0, 5);
  const at::Tensor narrow = step(5, 1);
  // The mean, not the largest: where two slots' scores nearly tie, rounding may choose the other
  // one.
  EXPECT_LE((narrow - wide).abs().mean().item<double>(), 0.2 * wide.abs().mean().item<double>())
      << "the largest: " << (narrow - wide).abs().max().item<double>() << " of "
      << wide.abs().max().item<double>();
}

TEST(Llama, FlopsAreThoseOfTheMatrixProducts) {
  ModelConfig config = small_config();
  config.memory.reset();
  const Flops flops = count_flops(config, 1);
  EXPECT_EQ(flops.feed_forward, 3 * 2 * 3 * 24 * 40);
  EXPECT_EQ(flops.attention, 3 * 2 * (24 * (2 * 24 + 2 * 12) + 2 * 24));
  EXPECT_EQ(flops.logits, 2 * 24 * 50);
  const Flops with_memory = count_flops(small_config(), 1);
  EXPECT_EQ(with_memory.feed_forward, 2 * 3 * 24 * 40);
  EXPECT_EQ(with_memory.memory,
            2 * 2 * (24 * 16 + 2 * 8 * 8 + 2 * 4 * 24 + 24 * 24 + 24 + 24 * 24));
}

class DamagedModel : public ::testing::Test {
 protected:
  void SetUp() override {
    model_ = Llama(small_config());
    save_model(model_, folder_.path());
  }
  // The model's dense file again, with one tensor changed by `change`.
  void rewrite(const std::function<void(std::vector<io::TensorToWrite>&)>& change) {
    const std::string path = folder_ / "model.safetensors";
    const std::string copy = folder_ / "copy";
    std::filesystem::rename(path, copy);
    const auto file = io::SafetensorsFile::open(io::posix(), copy);
    std::vector<io::TensorToWrite> tensors;
    for (const auto& [name, view] : file.tensors()) {
      tensors.push_back({name, view.type, view.shape, view.bytes});
    }
    change(tensors);
    io::write_safetensors(io::posix(), path, tensors);
    std::filesystem::remove(copy);
  }
  std::string message() {
    try {
      load_model(folder_.path());
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  static void expect_names(const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }

  testing::TempDir folder_;
  Llama model_{nullptr};
};

TEST_F(DamagedModel, AMissingTensorIsNamed) {
  rewrite([](auto& tensors) { tensors.pop_back(); });
  expect_names(message(), "model.norm.weight");
}

TEST_F(DamagedModel, AnUnknownTensorIsNamed) {
  rewrite([](auto& tensors) { tensors.back().name = "model.surprise"; });
  expect_names(message(), "model.norm.weight");
  rewrite([](auto& tensors) {
    tensors.push_back(tensors.back());
    tensors.back().name = "model.norm.weight";
  });
  expect_names(message(), "model.surprise");
}

TEST_F(DamagedModel, AWrongShapeIsNamedWithBothShapes) {
  rewrite([](auto& tensors) { tensors.back().shape = {4, 6}; });
  expect_names(message(), "model.norm.weight");
  expect_names(message(), "[24]");
  expect_names(message(), "[4, 6]");
}

TEST_F(DamagedModel, NanInWeightsIsNamed) {
  testing::fill_tensor(folder_ / "model.safetensors", "model.norm.weight", 0xff);
  expect_names(message(), "model.norm.weight");
  expect_names(message(), "NaN");
}

TEST_F(DamagedModel, NanInThePoolIsRefused) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const torch::NoGradGuard no_grad;
  const testing::TempDir other;
  save_model(model_, other.path());
  // Rows of 24 numbers begin 32 apart.
  testing::alter_row_number(other / "pool/chunk-0-0.safetensors", 63 * 32 + 5, kNan);
  EXPECT_TRUE(testing::says(testing::error_of([&] { load_model(other.path()); }),
                            {"chunk-0-0.safetensors", "NaN or infinity in the row of slot 63"}));
  model_->pool()->values[63][5] = kNan;
  const testing::TempDir none;
  EXPECT_THROW(save_model(model_, none.path()), Error);
}

TEST_F(DamagedModel, IsNotSavedWithAWeightThatIsNotFinite) {
  const torch::NoGradGuard no_grad;
  const testing::TempDir other;
  model_->dense_parameters().back().second[3] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(testing::says(testing::error_of([&] { save_model(model_, other.path()); }),
                            {"\"model.norm.weight\": expected finite numbers"}));
}

TEST_F(DamagedModel, APoolOfAnotherShapeIsRefused) {
  ModelConfig config = small_config();
  config.memory->n_keys = 9;
  const testing::TempDir other;
  save_model(Llama(config), other.path());
  std::filesystem::remove_all(folder_ / "pool");
  std::filesystem::rename(other / "pool", folder_ / "pool");
  expect_names(message(), "expected 64 rows of 24 float32");
}

TEST_F(DamagedModel, AMissingFileIsNamed) {
  std::filesystem::remove(folder_ / "config.json");
  expect_names(message(), "config.json");
}

TEST(Llama, IsSavedAndLoadedAsAnyTorchModule) {
  Llama model(small_config(), 1), loaded(small_config(), 2);
  std::stringstream stream;
  torch::save(model, stream);
  torch::load(loaded, stream);
  const at::Tensor tokens = random_tokens({2, 5});
  EXPECT_TRUE(torch::equal(loaded->forward(tokens), model->forward(tokens)));
  EXPECT_TRUE(torch::equal(loaded->pool()->values, model->pool()->values));
}

TEST(ModelFolder, AModelMovedToATypeThatItsConfigurationDoesNotNameIsNotSaved) {
  const testing::TempDir folder;
  Llama model(small_config());
  model->to(torch::kBFloat16);
  EXPECT_THROW(save_model(model, folder.path()), Error);  // rows of half the size
  model->to(torch::kHalf);
  EXPECT_THROW(save_model(model, folder.path()), Error);
}

}  // namespace
}  // namespace memlayers
