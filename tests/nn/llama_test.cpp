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
#include "support/temp_dir.h"

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

TEST(Llama, CacheGivesTheLogitsOfTheWholeSequence) {
  Llama model(small_config());
  const torch::NoGradGuard no_grad;
  const at::Tensor tokens = random_tokens({2, 12});
  const at::Tensor wanted = model->forward(tokens);
  KvCache cache(model->config(), 2, 12);
  std::vector<at::Tensor> parts;
  std::int64_t begin = 0;
  for (std::int64_t count : {5, 1, 4, 1, 1}) {
    parts.push_back(model->forward(tokens.narrow(1, begin, count), &cache));
    begin += count;
  }
  expect_close(torch::cat(parts, 1), wanted);
  EXPECT_THROW(model->forward(tokens.narrow(1, 0, 1), &cache), c10::ValueError);  // full
}

TEST(Llama, PaddingOnTheLeftChangesNothing) {
  Llama model(small_config());
  const torch::NoGradGuard no_grad;
  const at::Tensor tokens = random_tokens({1, 7});
  const at::Tensor wanted = model->forward(tokens);
  KvCache cache(model->config(), 2, 20);
  cache.set_padding({3, 0});
  const at::Tensor padded =
      torch::cat({torch::cat({torch::zeros({1, 3}, torch::kLong), tokens.narrow(1, 0, 5)}, 1),
                  random_tokens({1, 8})});
  const at::Tensor first = model->forward(padded, &cache);
  expect_close(first.narrow(0, 0, 1).narrow(1, 3, 5), wanted.narrow(1, 0, 5));
  cache.keep_rows({0});
  const at::Tensor second = model->forward(tokens.narrow(1, 5, 2), &cache);
  expect_close(second, wanted.narrow(1, 5, 2));
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
  KvCache cache(model->config(), 64, 6);
  model->forward(tokens.narrow(1, 0, 5), &cache);
  const at::Tensor narrow = model->forward(tokens.narrow(1, 5, 1), &cache).select(1, 0);
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
  rewrite([](auto& tensors) {
    static std::vector<float> bad(24, std::numeric_limits<float>::quiet_NaN());
    tensors.back().bytes = std::as_bytes(std::span(bad));
  });
  expect_names(message(), "model.norm.weight");
  expect_names(message(), "NaN");
}

TEST_F(DamagedModel, NanInThePoolIsRefused) {
  const torch::NoGradGuard no_grad;
  model_->pool()->values[63][5] = std::numeric_limits<float>::quiet_NaN();
  const testing::TempDir other;
  save_model(model_, other.path());
  EXPECT_THROW(load_model(other.path()), Error);
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
