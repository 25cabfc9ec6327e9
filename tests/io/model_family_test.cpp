// SPDX-License-Identifier: Apache-2.0
#include "io/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "io/model_config_testing.h"
#include "support/expect_error.h"

namespace memlayers::io {
namespace {

using memlayers::testing::expect_error;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::llama_config;
using testing::read_config;

TEST(ReadModelConfig, AFieldThatIsAbsentMeansWhatItMeansToTransformers) {
  const ModelConfig llama = read_config(R"({"model_type": "llama"})");
  EXPECT_EQ(llama.dim, 4096);
  EXPECT_EQ(llama.ff_dim, 11008);
  EXPECT_EQ(llama.layers, 32);
  EXPECT_EQ(llama.heads, 32);
  EXPECT_EQ(llama.num_kv_heads(), 32);
  EXPECT_EQ(llama.attention_head_dim(), 128);
  EXPECT_EQ(llama.vocab_size, 32000);
  EXPECT_EQ(llama.context, 2048);
  EXPECT_EQ(llama.norm_eps, 1e-6);
  EXPECT_EQ(llama.rope.type, "default");
  EXPECT_EQ(llama.rope.theta, 10000);
  EXPECT_FALSE(llama.tie_embeddings);
  EXPECT_FALSE(llama.attention_bias);
  EXPECT_FALSE(llama.mlp_bias);
  EXPECT_EQ(llama.pad_token, std::nullopt);
  EXPECT_THAT(llama.eos_tokens, ElementsAre()) << "generate() reads the file, not LlamaConfig";
  EXPECT_FALSE(llama.memory);

  const ModelConfig mistral =
      read_config(R"({"model_type": "mistral", "sliding_window": null, "hidden_size": 64})");
  EXPECT_EQ(mistral.dim, 64);
  EXPECT_EQ(mistral.ff_dim, 14336);
  EXPECT_EQ(mistral.layers, 32);
  EXPECT_EQ(mistral.heads, 32);
  EXPECT_EQ(mistral.num_kv_heads(), 8);
  EXPECT_EQ(mistral.attention_head_dim(), 2);
  EXPECT_EQ(mistral.vocab_size, 32000);
  EXPECT_EQ(mistral.context, 131072);
  EXPECT_EQ(mistral.norm_eps, 1e-6);
  EXPECT_EQ(mistral.rope.theta, 10000);
  EXPECT_FALSE(mistral.tie_embeddings);
  EXPECT_THAT(mistral.eos_tokens, ElementsAre());
}

TEST(ReadModelConfig, FamiliesDifferInWhatIsAbsent) {
  const ModelConfig qwen2 = read_config(R"({"model_type": "qwen2"})");
  EXPECT_EQ(qwen2.vocab_size, 151936);
  EXPECT_EQ(qwen2.context, 32768);
  EXPECT_TRUE(qwen2.attention_bias);
  EXPECT_FALSE(qwen2.has_attention_output_bias());
  EXPECT_FALSE(qwen2.sliding_window);
  const ModelConfig qwen3 = read_config(R"({"model_type": "qwen3", "hidden_size": 1024})");
  EXPECT_TRUE(qwen3.attention_norm);
  EXPECT_FALSE(qwen3.attention_bias);
  EXPECT_EQ(qwen3.attention_head_dim(), 128);
  const ModelConfig smollm3 = read_config(R"({"model_type": "smollm3", "num_hidden_layers": 9})");
  EXPECT_TRUE(smollm3.tie_embeddings);
  EXPECT_EQ(smollm3.rope.theta, 2e6);
  EXPECT_EQ(smollm3.num_kv_heads(), 4);
  EXPECT_THAT(smollm3.unrotated_layers, ElementsAre(3, 7));
  EXPECT_EQ(read_config(R"({"model_type": "mistral"})").window_of(31), 4096);
}

TEST(ReadModelConfig, WindowsAreThoseOfTheFamily) {
  const auto windows = [](const char* text) {
    const ModelConfig config = read_config(text);
    std::vector<std::int64_t> list;
    for (std::int64_t layer = 0; layer < config.layers; ++layer) {
      list.push_back(config.window_of(layer).value_or(0));
    }
    return list;
  };
  EXPECT_THAT(windows(R"({"model_type": "qwen2", "num_hidden_layers": 4, "sliding_window": 8,
                          "max_window_layers": 2, "use_sliding_window": true})"),
              ElementsAre(0, 0, 8, 8));
  EXPECT_THAT(windows(R"({"model_type": "qwen3", "num_hidden_layers": 2, "sliding_window": 8,
                          "max_window_layers": 0, "use_sliding_window": false})"),
              ElementsAre(0, 0));
  EXPECT_THAT(windows(R"({"model_type": "qwen3", "num_hidden_layers": 2, "sliding_window": 8,
                          "use_sliding_window": true,
                          "layer_types": ["sliding_attention", "full_attention"]})"),
              ElementsAre(8, 0));
  EXPECT_THAT(windows(R"({"model_type": "smollm3", "num_hidden_layers": 3, "sliding_window": 8,
                          "use_sliding_window": true, "no_rope_layers": [1, 0, 1]})"),
              ElementsAre(0, 8, 0));
  EXPECT_THAT(windows(R"({"model_type": "mistral", "num_hidden_layers": 2, "sliding_window": 7})"),
              ElementsAre(7, 7));
  EXPECT_THAT(windows(R"({"model_type": "mistral", "num_hidden_layers": 2,
                          "sliding_window": null})"),
              ElementsAre(0, 0));
}

TEST(ReadModelConfig, YarnScalesSineAndCosineAsItsFieldsSay) {
  const auto yarn = [](const char* fields) {
    json config = llama_config();
    config["rope_scaling"] = json::parse(fields);
    config["rope_scaling"]["rope_type"] = "yarn";
    config["rope_scaling"]["original_max_position_embeddings"] = 32768;
    return read_config(config.dump()).rope;
  };
  EXPECT_NEAR(yarn(R"({"factor": 4})").attention_factor, 0.1 * std::log(4.0) + 1, 1e-12);
  EXPECT_EQ(yarn(R"({"factor": 0.5})").attention_factor, 1);
  EXPECT_EQ(yarn("{}").factor, 4) << "of the two contexts";
  EXPECT_EQ(yarn(R"({"factor": 4, "attention_factor": 0.7})").attention_factor, 0.7);
  EXPECT_EQ(yarn(R"({"factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0})").attention_factor, 1);
  EXPECT_EQ(yarn(R"({"factor": 4, "beta_fast": 16, "truncate": false})").beta_fast, 16);
  EXPECT_FALSE(yarn(R"({"factor": 4, "beta_fast": 16, "truncate": false})").truncate);
}

TEST(ReadModelConfig, ListsOfLayersThatDoNotFitAreNamed) {
  const std::pair<const char*, const char*> wrong[] = {
      {R"({"model_type": "qwen3", "num_hidden_layers": 2, "layer_types": ["full_attention"]})",
       "layer_types: expected 2 strings"},
      {R"({"model_type": "qwen3", "num_hidden_layers": 1, "layer_types": ["sliding_attention"]})",
       "layer_types: expected \"full_attention\" alone without a sliding window"},
      {R"({"model_type": "qwen3", "num_hidden_layers": 1, "layer_types": ["linear_attention"]})",
       "layer_types: expected \"full_attention\" and \"sliding_attention\" alone"},
      {R"({"model_type": "smollm3", "num_hidden_layers": 2, "no_rope_layers": [1]})",
       "no_rope_layers: expected a number a layer, 2"},
      {R"({"model_type": "smollm3", "no_rope_layer_interval": 0})", "no_rope_layer_interval"},
      {R"({"model_type": "mistral", "sliding_window": 0})", "sliding_window: expected at least 1"},
      {R"({"model_type": "smollm3", "num_hidden_layers": 2147483648})",
       "[model] layers: expected at most 65536, got 2147483648"},
      {R"({"model_type": "memlayers", "memlayers": {"base": "gemma"}})",
       "memlayers: base: expected \"llama\""},
  };
  for (const auto& [text, message] : wrong) {
    expect_error([&] { read_config(text); }, AllOf(HasSubstr("config.json: "), HasSubstr(message)));
  }
}

TEST(ReadModelConfig, NullMeansAsManyKeyValueHeadsAsHeads) {
  for (const char* type : {"llama", "mistral"}) {
    json config = llama_config();
    config["model_type"] = type;
    config["num_key_value_heads"] = nullptr;
    config["max_position_embeddings"] = 100;
    EXPECT_EQ(read_config(config.dump()).num_kv_heads(), 8) << type;
  }
}

TEST(ReadModelConfig, RopeScalingGoesBeforeRopeParameters) {
  json config = llama_config();
  config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 2}, {"rope_theta", 5}};
  config["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 3}, {"rope_theta", 7}};
  EXPECT_EQ(read_config(config.dump()).rope.factor, 2);
  EXPECT_EQ(read_config(config.dump()).rope.theta, 5);
  config["rope_scaling"] = nullptr;
  EXPECT_EQ(read_config(config.dump()).rope.factor, 3);
  EXPECT_EQ(read_config(config.dump()).rope.theta, 7);
  config["rope_parameters"].erase("rope_theta");
  EXPECT_EQ(read_config(config.dump()).rope.theta, 500000);
}

TEST(ReadModelConfig, TheOriginalContextIsTheWholeOneWhereNoneIsGiven) {
  json config = llama_config();
  config["rope_scaling"].erase("original_max_position_embeddings");
  EXPECT_EQ(read_config(config.dump()).rope.original_context, 131072);
  config["original_max_position_embeddings"] = 77;
  EXPECT_EQ(read_config(config.dump()).rope.original_context, 77);
}

TEST(ReadModelConfig, FieldsThatWouldChangeLogitsAreRefusedByName) {
  const std::pair<const char*, const char*> refused[] = {
      {"partial_rotary_factor", "0.5"},
      {"attn_logit_softcapping", "50.0"},
      {"final_logit_softcapping", "30.0"},
      {"attention_multiplier", "0.1"},
      {"attention_chunk_size", "8192"},
      {"clip_qkv", "8.0"},
      {"quantization_config", R"({"quant_method": "gptq"})"},
      {"embedding_multiplier", "12"},
      {"residual_multiplier", "0.2"},
      {"logits_scaling", "8"},
      {"logit_scale", "0.06"},
      {"num_experts", "8"},
      {"num_local_experts", "8"},
      {"is_encoder_decoder", "true"},
      {"add_cross_attention", "true"},
      {"use_qk_norm", "true"},
      {"alibi", "true"},
      {"parallel_attn", "true"},
      {"use_parallel_residual", "true"},
      {"use_sliding_window", "true"},
      {"sliding_window", "64"},
      {"layer_types", R"(["full_attention", "sliding_attention"])"},
      {"hidden_act", R"("relu")"},
      {"rope_parameters", R"({"rope_type": "default", "partial_rotary_factor": 0.5})"},
  };
  for (const auto& [name, value] : refused) {
    json config = llama_config();
    config["rope_scaling"] = nullptr;
    config[name] = json::parse(value);
    expect_error([&] { read_config(config.dump()); },
                 AllOf(HasSubstr("config.json: "), HasSubstr(name), HasSubstr(": expected ")));
    config[name] = nullptr;
    EXPECT_EQ(read_config(config.dump()).dim, 64) << name;
  }
}

TEST(ReadModelConfig, WhatWouldChangeNothingIsTaken) {
  json config = llama_config();
  config["partial_rotary_factor"] = 1.0;
  config["logit_scale"] = 1;
  config["num_experts"] = 0;
  config["use_sliding_window"] = false;
  config["hidden_act"] = "swish";
  config["layer_types"] = std::vector<std::string>(4, "full_attention");
  config["pretraining_tp"] = 2;
  config["initializer_range"] = 0.5;
  config["attention_dropout"] = 0.5;
  EXPECT_EQ(read_config(config.dump()).dim, 64);
}

TEST(ReadModelConfig, AMistralHasNoBiases) {
  json config = llama_config();
  config["model_type"] = "mistral";
  config["sliding_window"] = nullptr;
  EXPECT_EQ(read_config(config.dump()).dim, 64);
  for (const char* name : {"attention_bias", "mlp_bias"}) {
    config[name] = true;
    expect_error([&] { read_config(config.dump()); },
                 HasSubstr(std::string(name) + ": expected null"));
    config[name] = false;
  }
}

}  // namespace
}  // namespace memlayers::io
