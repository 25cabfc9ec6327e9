// SPDX-License-Identifier: Apache-2.0
#include "io/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "io/model_config_testing.h"
#include "support/expect_error.h"

namespace memlayers::io {
namespace {

using memlayers::testing::expect_error;
using memlayers::testing::TempDir;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::llama_config;
using testing::read_config;

json with_memory() {
  ModelConfig config;
  config.memory.emplace();
  return json::parse(model_config_json(config));
}

TEST(ReadModelConfig, ReadsALlamaOfTransformers4) {
  const ModelConfig config = read_config(llama_config().dump());
  EXPECT_EQ(config.dim, 64);
  EXPECT_EQ(config.layers, 4);
  EXPECT_EQ(config.heads, 8);
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.attention_head_dim(), 8);
  EXPECT_EQ(config.ff_dim, 172);
  EXPECT_EQ(config.vocab_size, 128);
  EXPECT_EQ(config.context, 131072);
  EXPECT_EQ(config.norm_eps, 1e-6);
  EXPECT_EQ(config.rope.type, "llama3");
  EXPECT_EQ(config.rope.theta, 500000);
  EXPECT_EQ(config.rope.factor, 8);
  EXPECT_EQ(config.rope.high_freq_factor, 4);
  EXPECT_EQ(config.rope.original_context, 8192);
  EXPECT_TRUE(config.tie_embeddings);
  EXPECT_EQ(config.bos_token, 100);
  EXPECT_THAT(config.eos_tokens, ElementsAre(101, 102));
  EXPECT_EQ(config.pad_token, std::nullopt);
  EXPECT_EQ(config.dtype, DenseType::kBFloat16);
  EXPECT_FALSE(config.memory);
}

TEST(ReadModelConfig, ReadsTheNewerSpellings) {
  json config = llama_config();
  config.erase("rope_scaling");
  config.erase("rope_theta");
  config.erase("torch_dtype");
  config["rope_parameters"] = {{"rope_type", "linear"}, {"rope_theta", 1e6}, {"factor", 2}};
  config["dtype"] = "float32";
  config["eos_token_id"] = 7;
  config["pad_token_id"] = -1;
  const ModelConfig read_back = read_config(config.dump());
  EXPECT_EQ(read_back.rope.type, "linear");
  EXPECT_EQ(read_back.rope.theta, 1e6);
  EXPECT_EQ(read_back.rope.factor, 2);
  EXPECT_EQ(read_back.dtype, DenseType::kFloat32);
  EXPECT_THAT(read_back.eos_tokens, ElementsAre(7));
  EXPECT_EQ(read_back.pad_token, std::nullopt);
}

TEST(ReadModelConfig, TakesTheOlderWordForTheTypeOfRope) {
  json config = llama_config();
  config["rope_scaling"] = {{"type", "linear"}, {"factor", 4}};
  EXPECT_EQ(read_config(config.dump()).rope.type, "linear");
  config["rope_scaling"] = nullptr;
  EXPECT_EQ(read_config(config.dump()).rope.type, "default");
}

TEST(ReadModelConfig, ComputesFloat16InFloat32) {
  json config = llama_config();
  config["torch_dtype"] = "float16";
  EXPECT_EQ(read_config(config.dump()).dtype, DenseType::kFloat32);
}

TEST(ModelConfigJson, ReadsBackToTheSame) {
  std::vector<ModelConfig> configs(8);
  configs[1] = read_config(llama_config().dump());
  configs[2].memory = MemoryConfig{.layers = {{2, 5}},
                                   .n_keys = 31,
                                   .heads = 1,
                                   .knn = 7,
                                   .k_dim = 6,
                                   .v_dim = 100,
                                   .variant = MemoryVariant::kPlain,
                                   .placement = MemoryPlacement::kBeside,
                                   .qk_norm = false,
                                   .gate = true,
                                   .gate_dim = 3,
                                   .output_scales = {1.0 / 3, 4},
                                   .row_dtype = RowType::kBFloat16};
  configs[3].memory = MemoryConfig{.variant = MemoryVariant::kPeer, .value_proj = false};
  configs[3].rope = {.theta = 12345.678, .type = "linear", .factor = 1.1};
  configs[3].pad_token = 3;
  configs[3].bos_token = 1;
  configs[3].eos_tokens = {2};
  configs[4].experts = 8;
  configs[5] = configs[2];
  configs[5].experts = 2;
  configs[6].memory = MemoryConfig{.knn = 2, .variant = MemoryVariant::kNgram};
  configs[7].memory = MemoryConfig{.frozen_keys = true};
  for (const ModelConfig& config : configs) {
    const std::string text = model_config_json(config);
    const ModelConfig again = read_config(text);
    EXPECT_EQ(model_config_json(again), text);
    EXPECT_EQ(again.memory_layers(), config.memory_layers());
    EXPECT_EQ(again.row_width(), config.row_width());
    EXPECT_EQ(again.experts, config.experts);
    if (config.memory) {
      EXPECT_EQ(again.memory->output_scales, config.memory->output_scales);
      EXPECT_EQ(again.memory->variant, config.memory->variant);
      EXPECT_EQ(again.memory->frozen_keys, config.memory->frozen_keys);
    }
    EXPECT_EQ(again.rope.theta, config.rope.theta);
    EXPECT_EQ(again.rope.factor, config.rope.factor);
  }
}

TEST(ModelConfigJson, CallsOnlyAPlainDecoderALlama) {
  EXPECT_EQ(json::parse(model_config_json({}))["model_type"], "llama");
  EXPECT_EQ(json::parse(model_config_json({}))["architectures"][0], "LlamaForCausalLM");
  EXPECT_FALSE(json::parse(model_config_json({})).contains("memlayers"));
  EXPECT_EQ(with_memory()["model_type"], "memlayers");
  EXPECT_EQ(with_memory()["architectures"][0], "MemlayersForCausalLM");
}

// What transformers 5.24's LlamaConfig and MistralConfig say of each field that is absent;
// tests/python/test_transformers.py compares with the installed one.
TEST(ReadModelConfig, NamesFileAndFieldThatIsWrong) {
  const std::pair<const char*, const char*> wrong[] = {
      {R"({"hidden_size": "64"})", R"(hidden_size: expected an integer, got "64")"},
      {R"({"hidden_size": 64.5})", "hidden_size: expected an integer, got 64.5"},
      {R"({"hidden_size": 18446744073709551615})", "hidden_size: expected an integer, got 1844"},
      {R"({"hidden_size": -64})", "[model] dim: expected at least 1, got -64"},
      {R"({"hidden_size": null})", R"(expected a field "hidden_size", found none)"},
      {R"({"num_hidden_layers": 9223372036854775807})", "[model] layers: expected at most"},
      {R"({"num_attention_heads": 7})", "[model] dim: expected a multiple of heads (7), got 64"},
      {R"({"rms_norm_eps": "small"})", "rms_norm_eps: expected a number"},
      {R"({"rms_norm_eps": 0})", "norm_eps: expected a number above 0"},
      {R"({"tie_word_embeddings": 1})", "tie_word_embeddings: expected true or false, got 1"},
      {R"({"hidden_act": "gelu"})", R"(hidden_act: expected "silu", got "gelu")"},
      {R"({"hidden_act": 3})", "hidden_act: expected a string, got 3"},
      {R"({"model_type": "gemma2"})",
       R"(model_type: expected "llama", "mistral", "qwen2", "qwen3", "smollm3" or "memlayers")"},
      {R"({"sliding_window": 4096})", "sliding_window: expected null, got 4096"},
      {R"({"torch_dtype": "int8"})", "torch_dtype: expected \"float32\""},
      {R"({"bos_token_id": 128})", "bos_token_id: expected tokens from 0 to 127, got 128"},
      {R"({"eos_token_id": [1, -1]})", "eos_token_id: expected tokens from 0 to 127, got [1,-1]"},
      {R"({"pad_token_id": -2})", "pad_token_id: expected tokens from 0 to 127, got -2"},
      {R"({"eos_token_id": ["a"]})", "eos_token_id: expected an integer or a list"},
      {R"({"eos_token_id": "a"})", "eos_token_id: expected an integer or a list"},
      {R"({"rope_scaling": 3})", "rope_scaling: expected an object, got 3"},
      {R"({"rope_scaling": {"rope_type": "longrope", "factor": 2}})",
       R"(rope_type: expected "default", "linear", "dynamic", "llama3" or "yarn", got "longrope")"},
      {R"({"rope_scaling": {"rope_type": "llama3", "factor": null, "low_freq_factor": null}})",
       R"(rope_scaling: expected a field "factor", found none)"},
      {R"({"rope_parameters": {"full_attention": {"rope_type": "default"}}})",
       "rope_parameters: full_attention: expected a number or string"},
  };
  for (const auto& [patch, message] : wrong) {
    json config = llama_config();
    // merge_patch would take a null for a removal, and a rope's fields together.
    const json changes = json::parse(patch);
    for (const auto& [name, value] : changes.items()) config[name] = value;
    if (config["rope_scaling"].is_object() && changes.contains("rope_scaling")) {
      for (const auto& [name, value] : changes["rope_scaling"].items()) {
        if (value.is_null()) config["rope_scaling"].erase(name);
      }
    }
    expect_error([&] { read_config(config.dump()); },
                 AllOf(HasSubstr("config.json: "), HasSubstr(message)));
  }
}

TEST(ReadModelConfig, NamesTheMemoryFieldThatIsWrong) {
  const std::pair<const char*, const char*> wrong[] = {
      {R"({"knn": 200})", "[memory] knn: expected at most n_keys (128), got 200"},
      {R"({"k_dim": 7})", "[memory] k_dim: expected an even number, got 7"},
      {R"({"layers": [9]})", "[memory] layers: expected layers from 0 to 7, got 9"},
      {R"({"variant": "memory"})",
       R"(memlayers: memory: variant: expected "plain" or "memory+" or "peer" or "ngram", got "memory")"},
      {R"({"frozen_keys": 1})", "memory: frozen_keys: expected true or false, got 1"},
      {R"({"row_dtype": "int3"})", R"(memory: row_dtype: expected "float32" or "bfloat16")"},
      {R"({"gate": "yes"})", "memory: gate: expected true or false, got \"yes\""},
      {R"({"gate": false, "gate_dim": 4})", "[memory] gate: expected true beside gate_dim"},
      {R"({"gate": true, "gate_dim": 0})", "[memory] gate_dim: expected at least 1, got 0"},
      {R"({"output_scales": [1, "a"]})", "memory: output_scales: expected a list of numbers"},
      {R"({"output_scales": [1, 2, 3, 4, 5]})", "[memory] output_scales: expected 3 numbers"},
      {R"({"output_scales": [1, 0, 1]})", "[memory] output_scales: expected a number above 0"},
      {R"({"n_key": 3})", R"(memory: unknown field "n_key"; did you mean "n_keys"?)"},
  };
  for (const auto& [patch, message] : wrong) {
    json config = with_memory();
    config["memlayers"]["memory"].update(json::parse(patch));
    expect_error([&] { read_config(config.dump()); },
                 AllOf(HasSubstr("config.json: "), HasSubstr(message)));
  }
  const json whole = with_memory();
  for (const auto& [name, value] : whole["memlayers"]["memory"].items()) {
    json config = whole;
    config["memlayers"]["memory"].erase(name);
    expect_error([&] { read_config(config.dump()); },
                 HasSubstr("memory: expected a field \"" + name + "\", found none"));
  }
}

TEST(ReadModelConfig, NamesExpertsThatAreWrong) {
  for (const auto& [experts, message] :
       {std::pair("0", "[model] experts: expected at least 1, got 0"),
        std::pair("\"2\"", "memlayers: experts: expected an integer, got \"2\"")}) {
    json config = with_memory();
    config["memlayers"]["experts"] = json::parse(experts);
    expect_error([&] { read_config(config.dump()); },
                 AllOf(HasSubstr("config.json: "), HasSubstr(message)));
  }
}

TEST(ReadModelConfig, RefusesWhatIsNotAnObjectOfJson) {
  for (const char* text : {"", "{", "[]", "3", "{\"hidden_size\": NaN}", "{\"a\": 1, \"a\": 2}",
                           "{\"hidden_size\": 1e999}", "\xff"}) {
    expect_error([&] { read_config(text); }, HasSubstr("config.json: expected"));
  }
  expect_error([&] { read_config(std::string(100'000, '[')); },
               HasSubstr("nested at most 64 deep"));
  const TempDir dir;
  expect_error([&] { read_model_config(posix(), dir / "config.json"); },
               HasSubstr("config.json: cannot open: No such file or directory"));
}

TEST(ReadModelConfig, WithAnyByteAlteredIsAnErrorOrAConfiguration) {
  const std::string text = with_memory().dump();
  for (std::size_t i = 0; i < text.size(); ++i) {
    std::string altered = text;
    altered[i] = static_cast<char>(altered[i] ^ (1 << i % 8));
    try {
      read_config(altered).validate();
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("config.json: "));
    }
  }
}

}  // namespace
}  // namespace memlayers::io
