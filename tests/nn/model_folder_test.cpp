// SPDX-License-Identifier: Apache-2.0
// Model folders as others write them: which of the weights in them count, what is compared before
// memory is taken, and that loading sets weights and does nothing else.
#include "nn/model_folder.h"

#include <ATen/CPUGeneratorImpl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "io/model_source.h"
#include "io/safetensors.h"
#include "io/weight_shapes.h"
#include "nn/free_memory.h"
#include "nn/table.h"
#include "nn/unset_weights.h"
#include "support/altered_tensors.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/testing.h"

namespace memlayers {
namespace {

using memlayers::testing::expect_error;
using memlayers::testing::read_file;
using memlayers::testing::resident_bytes;
using memlayers::testing::TempDir;
using memlayers::testing::write_file;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

ModelConfig small_config() {
  ModelConfig config;
  config.dim = 24;
  config.layers = 2;
  config.heads = 4;
  config.kv_heads = 2;
  config.ff_dim = 40;
  config.vocab_size = 50;
  config.context = 64;
  return config;
}

ModelConfig with_memory(MemoryVariant variant = MemoryVariant::kMemoryPlus) {
  ModelConfig config = small_config();
  config.memory = MemoryConfig{.layers = std::vector<std::int64_t>{1},
                               .n_keys = 8,
                               .heads = 2,
                               .knn = 4,
                               .k_dim = 8,
                               .variant = variant};
  return config;
}

std::string text_of(at::IntArrayRef shape) {
  std::ostringstream text;
  text << shape;
  return text.str();
}

TEST(WeightShapes, AreThoseOfTheModel) {
  std::vector<ModelConfig> configs(10, with_memory());
  configs[0] = small_config();
  configs[1].memory->placement = MemoryPlacement::kBeside;
  configs[2] = with_memory(MemoryVariant::kPeer);
  configs[3] = with_memory(MemoryVariant::kPlain);
  configs[3].memory->gate = true;
  configs[3].memory->qk_norm = false;
  configs[4].memory->v_dim = 10;
  configs[4].head_dim = 10;
  configs[5].attention_bias = configs[5].mlp_bias = true;
  configs[6].tie_embeddings = false;
  configs[8] = configs[9] = with_memory(MemoryVariant::kNgram);
  configs[9].memory->value_proj = false;
  configs[7].experts = 3;
  configs[7].mlp_bias = true;
  for (const ModelConfig& config : configs) {
    std::vector<std::string> made, said;
    for (const auto& [name, parameter] : Llama(config)->dense_parameters()) {
      made.push_back(name + " " + text_of(parameter.sizes()));
    }
    for (const io::WeightShape& weight : io::weight_shapes(config)) {
      std::vector<std::int64_t> shape;
      for (const auto& extent : weight.extents) shape.push_back(extent.size);
      said.push_back(weight.name + " " + text_of(shape));
    }
    std::ranges::sort(made);
    std::ranges::sort(said);
    EXPECT_EQ(made, said);
  }
}

at::Tensor logits_of(Llama model) {
  const torch::NoGradGuard no_grad;
  return model->forward(torch::arange(1, 13, torch::kLong).view({2, 6}));
}

class ModelFolder : public ::testing::Test {
 protected:
  void save(const ModelConfig& config) {
    torch::manual_seed(1);
    model_ = Llama(config);
    save_model(model_, folder_.path());
  }
  void edit(const std::string& file, const std::function<void(nlohmann::json&)>& change) {
    nlohmann::json json = nlohmann::json::object();
    if (std::filesystem::exists(folder_ / file))
      json = nlohmann::json::parse(read_file(folder_ / file));
    change(json);
    write_file(folder_ / file, json.dump());
  }
  using Tensors = std::map<std::string, at::Tensor>;
  Tensors tensors() const {
    Tensors all;
    for (const auto& [name, parameter] : model_->dense_parameters()) {
      all.emplace(name, parameter.detach().clone());
    }
    return all;
  }
  void write(const std::string& file, const Tensors& tensors) {
    std::filesystem::remove(folder_ / file);
    std::vector<io::TensorToWrite> list;
    for (const auto& [name, tensor] : tensors) {
      const auto type =
          tensor.scalar_type() == torch::kHalf ? io::ElementType::kF16 : io::ElementType::kF32;
      list.push_back({name, type, tensor.sizes().vec(), nn::bytes_of(tensor)});
    }
    io::write_safetensors(io::posix(), folder_ / file, list);
  }
  Llama load() { return load_model(folder_.path()); }

  TempDir folder_;
  Llama model_{nullptr};
};

TEST_F(ModelFolder, AnIndexOfShardsCountsOnlyWithoutASingleFile) {
  save(small_config());
  Tensors stale = tensors();
  for (auto& [name, tensor] : stale) tensor.mul_(0.5);
  write("old.safetensors", stale);
  edit("model.safetensors.index.json", [&](nlohmann::json& index) {
    for (const auto& [name, tensor] : stale) index["weight_map"][name] = "old.safetensors";
  });
  EXPECT_TRUE(torch::equal(logits_of(load()), logits_of(model_)));
  std::filesystem::remove(folder_ / "model.safetensors");
  EXPECT_FALSE(torch::equal(logits_of(load()), logits_of(model_)));
}

TEST_F(ModelFolder, AnotherHeadThanTheTiedOneIsKept) {
  save(small_config());
  Tensors two = tensors();
  two["lm_head.weight"] = two["model.embed_tokens.weight"].clone();
  write("model.safetensors", two);
  EXPECT_TRUE(load()->config().tie_embeddings);
  two["lm_head.weight"][49][23].add_(1);
  write("model.safetensors", two);
  for (Llama model : {load(), open_model(folder_.path())}) {
    EXPECT_FALSE(model->config().tie_embeddings);
    EXPECT_EQ(model->dense_parameters().back().first, "lm_head.weight");
    EXPECT_FALSE(torch::equal(logits_of(model), logits_of(model_)));
  }
}

TEST_F(ModelFolder, OneOfTwoTiedWeightsServesForBoth) {
  save(small_config());
  Tensors one = tensors();
  one["lm_head.weight"] = one["model.embed_tokens.weight"];
  one.erase("model.embed_tokens.weight");
  write("model.safetensors", one);
  EXPECT_TRUE(torch::equal(logits_of(load()), logits_of(model_)));
}

TEST_F(ModelFolder, AGenerationEndsWhereGenerationConfigSays) {
  save(small_config());
  edit("config.json", [](nlohmann::json& config) { config["eos_token_id"] = 2; });
  std::filesystem::remove(folder_ / "generation_config.json");  // else it alone counts
  EXPECT_THAT(load()->config().eos_tokens, ElementsAre(2));
  edit("generation_config.json", [](nlohmann::json& config) { config["eos_token_id"] = {7, 9}; });
  EXPECT_THAT(load()->config().eos_tokens, ElementsAre(7, 9));
  EXPECT_THAT(open_model(folder_.path())->config().eos_tokens, ElementsAre(7, 9));
}

TEST_F(ModelFolder, AnAdapterIsRefused) {
  save(small_config());
  write_file(folder_ / "adapter_config.json", "{}");
  expect_error([&] { load(); }, HasSubstr("adapter_config.json: expected a model by itself"));
}

TEST_F(ModelFolder, Float16WeightsAreReadInFloat32) {
  save(small_config());
  Tensors narrow = tensors();
  for (auto& [name, tensor] : narrow) tensor = tensor.to(torch::kHalf);
  write("model.safetensors", narrow);
  for (const auto& [name, parameter] : load()->dense_parameters()) {
    EXPECT_TRUE(torch::equal(parameter, narrow.at(name).to(torch::kFloat))) << name;
  }
}

TEST_F(ModelFolder, SizesThatTheWeightsDoNotHaveTakeNoMemory) {
  const std::pair<const char*, std::vector<std::string>> wrong[] = {
      {"num_hidden_layers", {"num_hidden_layers of config.json: expected 2"}},
      {"vocab_size", {"model.embed_tokens.weight", "vocab_size of config.json", "[50, 24]"}},
      {"intermediate_size", {"mlp.gate_proj.weight", "intermediate_size of config.json"}},
      {"head_dim", {"self_attn.q_proj.weight", "head_dim of config.json"}},
  };
  save(small_config());
  const std::string config = read_file(folder_ / "config.json");
  for (const auto& [field, parts] : wrong) {
    edit("config.json", [&](nlohmann::json& json) {
      json[field] = field == std::string("num_hidden_layers") ? 60'000 : 2'000'000'000;
    });
    const std::int64_t before = resident_bytes();
    expect_error([&] { load(); }, AllOf(HasSubstr(parts[0]), HasSubstr(parts.back())));
    expect_error([&] { open_model(folder_.path()); },
                 AllOf(HasSubstr(folder_.path()), HasSubstr(parts[parts.size() / 2])));
    EXPECT_LT(resident_bytes() - before, 64 << 20) << field;
    write_file(folder_ / "config.json", config);
  }
}

TEST_F(ModelFolder, SizesOfAMemoryThatTheWeightsDoNotHaveTakeNoMemory) {
  save(with_memory());
  for (const char* field : {"n_keys", "heads", "k_dim", "v_dim"}) {
    const std::string config = read_file(folder_ / "config.json");
    edit("config.json",
         [&](nlohmann::json& json) { json["memlayers"]["memory"][field] = 1'000'000; });
    expect_error([&] { load(); }, AllOf(HasSubstr("model.layers.1.memory."),
                                        HasSubstr(std::string("memory ") + field)));
    write_file(folder_ / "config.json", config);
  }
}

TEST_F(ModelFolder, FewerLayersThanTheWeightsHaveAreNotSilentlyLeftOut) {
  save(small_config());
  edit("config.json", [](nlohmann::json& config) { config["num_hidden_layers"] = 1; });
  expect_error([&] { load(); }, HasSubstr("num_hidden_layers of config.json: expected 2"));
}

TEST_F(ModelFolder, WeightsThatAreNotFiniteAreFoundWhereverTheyStand) {
  ModelConfig config = small_config();
  config.dtype = DenseType::kBFloat16;
  for (const bool is_bfloat16 : {false, true}) {
    std::filesystem::remove(folder_ / "model.safetensors");  // no file is written over
    std::filesystem::remove(folder_ / "config.json");
    save(is_bfloat16 ? config : small_config());
    for (const double bad :
         {std::numeric_limits<double>::quiet_NaN(), -std::numeric_limits<double>::infinity()}) {
      Tensors all = tensors();
      for (auto& [name, tensor] : all) tensor = tensor.to(torch::kFloat);
      const std::string name = "model.layers.1.mlp.down_proj.weight";
      const std::int64_t place = 23 * all[name].size(1) + 39;
      write("model.safetensors", all);
      testing::alter_tensors(folder_ / "model.safetensors", [&](testing::AlteredTensors& file) {
        const auto number = static_cast<float>(bad);
        std::memcpy(file.tensors.at(name).data() + place * std::int64_t{sizeof(number)}, &number,
                    sizeof(number));
      });
      for (const auto& open : {std::function<void()>([&] { load(); }),
                               std::function<void()>([&] { open_model(folder_.path()); })}) {
        expect_error(open, HasSubstr("tensor \"model.layers.1.mlp.down_proj.weight\": expected "
                                     "finite weights, got NaN or infinity"));
      }
    }
  }
}

TEST_F(ModelFolder, LoadingDrawsNoRandomNumbers) {
  save(with_memory());
  const at::Generator generator = at::detail::getDefaultCPUGenerator();
  const at::Tensor before = generator.get_state();
  const at::Tensor wanted = logits_of(model_);
  EXPECT_TRUE(torch::equal(logits_of(load()), wanted));
  EXPECT_TRUE(torch::equal(logits_of(open_model(folder_.path())), wanted));
  EXPECT_TRUE(torch::equal(generator.get_state(), before));
}

TEST(WithMemoryFor, NamesWhatAsksForMoreThanThereIs) {
  EXPECT_EQ(testing::error_of([] {
              nn::with_memory_for("[model] ff_dim", [] { torch::empty({std::int64_t{1} << 48}); });
            }),
            "[model] ff_dim: out of memory: no room for 1125899906842624 bytes more");
  EXPECT_EQ(testing::error_of(
                [] { nn::with_memory_for("a.bin", []() -> int { throw std::bad_alloc(); }); }),
            "a.bin: out of memory");
  EXPECT_THROW(nn::with_memory_for("x", [] { torch::ones({2}).view({3}); }), c10::Error);
  EXPECT_EQ(nn::with_memory_for("x", [] { return 3; }), 3);
}

TEST(UnsetWeights, EndWithTheirScope) {
  EXPECT_FALSE(nn::are_weights_unset());
  {
    const nn::UnsetWeights outer;
    {
      const nn::UnsetWeights inner;
    }
    EXPECT_TRUE(nn::are_weights_unset());
    EXPECT_EQ(nn::make_linear(3, 5, true)->weight.sizes(), at::IntArrayRef({5, 3}));
    EXPECT_TRUE(nn::make_embedding(7, 3)->weight.requires_grad());
  }
  EXPECT_FALSE(nn::are_weights_unset());
}

// A model of some size: 60 MB of weights, most of them in one tensor.
TEST_F(ModelFolder, OpeningHoldsTheWeightsOnce) {
  ModelConfig config = small_config();
  config.dim = 256;
  config.vocab_size = 50'000;
  config.ff_dim = 1024;
  save(config);
  model_ = Llama(nullptr);
  const double weights = 4.0 * (50'000 * 256 + 2 * (256 * 256 * 3 + 3 * 256 * 1024));
  load();  // whatever torch takes for the first time
  const std::int64_t before = resident_bytes();
  Llama opened = open_model(folder_.path());
  EXPECT_LT(static_cast<double>(resident_bytes() - before), 1.1 * weights + (4 << 20));
}

}  // namespace
}  // namespace memlayers
