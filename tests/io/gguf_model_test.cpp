// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "io/gguf/config.h"
#include "io/gguf/names.h"
#include "io/gguf/rope_factors.h"
#include "io/gguf/source.h"
#include "io/model_source.h"
#include "support/temp_dir.h"
#include "support/testing.h"
#include "support/tiny_gguf.h"

namespace memlayers::io::gguf {
namespace {

using memlayers::testing::error_of;
using memlayers::testing::GgufBytes;
using memlayers::testing::says;
using memlayers::testing::TempDir;
using memlayers::testing::TinyGguf;
using memlayers::testing::write_file;
using Add = std::function<void(GgufBytes&)>;

class GgufModel : public ::testing::Test {
 protected:
  std::unique_ptr<ModelSource> open(const GgufBytes& file) {
    write_file(path_, file.bytes());
    return open_model_source(posix(), path_);
  }
  // The model `tiny` with more keys and tensors.
  std::unique_ptr<ModelSource> open(const TinyGguf& tiny, const Add& add = [](GgufBytes&) {}) {
    GgufBytes file = tiny.file();
    add(file);
    return open(file);
  }
  std::string error(const TinyGguf& tiny, const Add& add) {
    const std::string message = error_of([&] { open(tiny, add); });
    EXPECT_TRUE(says(message, {path_ + ": "}));
    EXPECT_EQ(message.find('\n'), std::string::npos);
    return message;
  }
  std::vector<float> read(const ModelSource& source, const std::string& name, std::int64_t first,
                          std::size_t count) {
    std::vector<float> numbers(count);
    source.read(name, first, std::as_writable_bytes(std::span(numbers)));
    return numbers;
  }
  TempDir folder_;
  std::string path_ = folder_ / "model.gguf";
};

TEST_F(GgufModel, KeysBecomeTheConfiguration) {
  const auto source = open({}, [](GgufBytes& file) { add_byte_tokenizer(file); });
  const ModelConfig& config = source->config();
  EXPECT_EQ(config.dim, 8);
  EXPECT_EQ(config.layers, 1);
  EXPECT_EQ(config.heads, 2);
  EXPECT_EQ(config.num_kv_heads(), 1);
  EXPECT_EQ(config.attention_head_dim(), 4);
  EXPECT_EQ(config.ff_dim, 12);
  EXPECT_EQ(config.context, 64);
  EXPECT_EQ(config.vocab_size, 8);
  EXPECT_EQ(config.norm_eps, 1e-6);
  EXPECT_EQ(config.rope.theta, 500000);
  EXPECT_EQ(config.rope.type, "default");
  EXPECT_TRUE(config.tie_embeddings);
  EXPECT_FALSE(config.attention_bias);
  EXPECT_EQ(config.bos_token, 0);
  EXPECT_EQ(config.eos_tokens, std::vector<std::int64_t>{1});
  EXPECT_EQ(read_model(posix(), path_).dim, 8);
  EXPECT_TRUE(is_model(posix(), path_));
}

TEST_F(GgufModel, FamiliesDiffer) {
  const auto qwen2 = open({.architecture = "qwen2", .has_head = true, .has_biases = true});
  EXPECT_TRUE(qwen2->config().attention_bias);
  EXPECT_FALSE(qwen2->config().has_attention_output_bias());
  EXPECT_FALSE(qwen2->config().tie_embeddings);
  const auto qwen3 = open({.architecture = "qwen3", .has_head_norms = true}, [](GgufBytes& file) {
    file.number("qwen3.attention.key_length", 4);
    file.number("qwen3.attention.value_length", 4);
  });
  EXPECT_TRUE(qwen3->config().attention_norm);
  const auto mistral =
      open({}, [](GgufBytes& file) { file.number("llama.attention.sliding_window", 16); });
  EXPECT_EQ(mistral->config().sliding_window, 16);
}

TEST_F(GgufModel, RopeScalings) {
  const auto rope = [&](const Add& add) { return open({}, add)->config().rope; };
  const RopeConfig linear = rope([](GgufBytes& file) {
    file.text("llama.rope.scaling.type", "linear");
    file.real("llama.rope.scaling.factor", 4);
  });
  EXPECT_EQ(linear.type, "linear");
  EXPECT_EQ(linear.factor, 4);
  EXPECT_EQ(rope([](GgufBytes& file) { file.real("llama.rope.scale_linear", 2); }).factor, 2);
  const RopeConfig yarn = rope([](GgufBytes& file) {
    file.text("llama.rope.scaling.type", "yarn");
    file.real("llama.rope.scaling.factor", 8);
    file.number("llama.rope.scaling.original_context_length", 32);
    file.real("llama.rope.scaling.yarn_beta_fast", 16);
    file.real("llama.rope.scaling.yarn_attn_factor", 2);
  });
  EXPECT_EQ(yarn.type, "yarn");
  EXPECT_EQ(yarn.original_context, 32);
  EXPECT_EQ(yarn.beta_fast, 16);
  EXPECT_EQ(yarn.beta_slow, 1);
  EXPECT_DOUBLE_EQ(yarn.attention_factor, 2 * (0.1 * std::log(8) + 1));
}

TEST_F(GgufModel, QueriesAndKeysOfLlamaAreInHalvesAgain) {
  const auto llama = open(TinyGguf{.has_biases = true});
  const auto qwen2 = open({.architecture = "qwen2", .has_biases = true});
  const std::size_t row = 8;
  for (const std::string name : {"q_proj", "k_proj", "v_proj"}) {
    const std::string weight = "model.layers.0.self_attn." + name + ".weight";
    const std::size_t rows = name == "q_proj" ? 8 : 4;
    const std::vector<float> paired = read(*llama, weight, 0, rows * row);
    const std::vector<float> plain = read(*qwen2, weight, 0, rows * row);
    const auto bias = read(*llama, "model.layers.0.self_attn." + name + ".bias", 0, rows);
    const auto plain_bias = read(*qwen2, "model.layers.0.self_attn." + name + ".bias", 0, rows);
    for (std::size_t r = 0; r < rows; ++r) {
      const std::size_t inner = r % 4;  // of a head's 4 rows: (0, 2), (1, 3) stand together
      const std::size_t stored = name == "v_proj" ? r : r - inner + 2 * (inner % 2) + inner / 2;
      for (std::size_t i = 0; i < row; ++i) {
        EXPECT_EQ(paired[r * row + i], plain[stored * row + i]) << name << " row " << r;
      }
      EXPECT_EQ(bias[r], plain_bias[stored]);
    }
    EXPECT_EQ(read(*llama, weight, 5, 11),
              std::vector<float>(paired.begin() + 5, paired.begin() + 16));
  }
}

TEST_F(GgufModel, AnyPartOfABlockIsRead) {
  const TinyGguf tiny{.dim = 64, .heads = 2, .ff_dim = 64};
  GgufBytes file = tiny.file();
  std::string blocks;
  for (int i = 0; i < 128; ++i)
    blocks += std::string("\x00\x3C", 2) + std::string(32, static_cast<char>(i));
  for (auto& info : file.infos) {
    if (info.name == "blk.0.ffn_up.weight") {
      info.type = 8;  // Q8_0
      file.data.replace(info.offset, blocks.size(), blocks);
    }
  }
  const auto source = open(file);
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  const std::vector<float> whole = read(*source, name, 0, 4096);
  EXPECT_EQ(whole[0], 0);
  EXPECT_EQ(whole[4095], 127);
  for (const std::size_t first : {0U, 1U, 31U, 32U, 4000U}) {
    for (const std::size_t count : {1U, 2U, 33U, 64U, 95U}) {
      EXPECT_EQ(read(*source, name, static_cast<std::int64_t>(first), count),
                std::vector<float>(whole.begin() + static_cast<std::ptrdiff_t>(first),
                                   whole.begin() + static_cast<std::ptrdiff_t>(first + count)));
    }
  }
}

TEST_F(GgufModel, WhatIsNotDoneIsRefusedByName) {
  const auto with = [&](const Add& add) { return error({}, add); };
  EXPECT_TRUE(
      says(error({.architecture = "gpt9"}, [](GgufBytes&) {}),
           {"general.architecture: expected one of \"llama\", \"qwen2\", \"qwen3\", got", "gpt9"}));
  EXPECT_TRUE(says(with([](GgufBytes& f) { f.text("general.type", "adapter"); }),
                   {"general.type: expected \"model\", got \"adapter\""}));
  EXPECT_TRUE(says(with([](GgufBytes& f) { f.number("llama.expert_count", 8); }),
                   {"llama.expert_count: expected 0, got 8"}));
  EXPECT_TRUE(says(with([](GgufBytes& f) { f.real("llama.logit_scale", 2); }), {"expected 1"}));
  EXPECT_TRUE(says(with([](GgufBytes& f) { f.real("llama.attn_logit_softcapping", 50); }),
                   {"attn_logit_softcapping: expected 0"}));
  EXPECT_TRUE(says(with([](GgufBytes& f) { f.flag("llama.attention.causal", false); }),
                   {"llama.attention.causal: expected true"}));
  EXPECT_TRUE(says(with([](GgufBytes& f) { f.flag("llama.use_parallel_residual", true); }),
                   {"expected false"}));
  EXPECT_TRUE(says(with([](GgufBytes& f) { f.number("llama.rope.dimension_sections", 1); }),
                   {"expected no such key"}));
  EXPECT_TRUE(says(with([](GgufBytes& f) { f.number("llama.rope.dimension_count", 2); }),
                   {"rope.dimension_count: expected 4, as many as a head's keys have, got 2"}));
  EXPECT_TRUE(says(with([](GgufBytes& f) { f.number("llama.attention.value_length", 8); }),
                   {"value_length: expected 4"}));
  EXPECT_TRUE(
      says(with([](GgufBytes& f) { f.real("llama.attention.scale", 1); }), {"1 / sqrt(4)"}));
  EXPECT_TRUE(says(with([](GgufBytes& f) { f.text("llama.rope.scaling.type", "longrope"); }),
                   {"expected \"none\", \"linear\" or \"yarn\", got \"longrope\""}));
  const auto yarn = [&](const char* key, float value) {
    return with([&](GgufBytes& f) {
      f.text("llama.rope.scaling.type", "yarn");
      f.real("llama.rope.scaling.factor", 8);
      f.real(key, value);
    });
  };
  EXPECT_TRUE(says(yarn("llama.rope.scaling.yarn_ext_factor", 0.5F), {"expected 1"}));
  EXPECT_TRUE(says(yarn("llama.rope.scaling.yarn_log_multiplier", 0.1F), {"expected 0"}));
  EXPECT_TRUE(says(with([](GgufBytes& f) { f.floats("blk.0.attn_q.scale", {1}, {1}); }),
                   {"tensor \"blk.0.attn_q.scale\": expected none of this name"}));
  EXPECT_TRUE(says(with([](GgufBytes& f) {
                     for (auto& info : f.infos) {
                       if (info.name == "output_norm.weight") info.type = 26;
                     }
                   }),
                   {"output_norm.weight", "expected a tensor of type F32", "got I32"}));
}

TEST_F(GgufModel, WhatDoesNotFitTogetherIsRefusedByName) {
  const auto changed = [&](const std::string& key, std::uint32_t value) {
    TinyGguf tiny;
    GgufBytes file;
    tiny.keys(file);
    const std::string name = memlayers::testing::gguf_string(key);
    const std::size_t at = file.key_bytes.find(name);
    file.key_bytes.replace(at + name.size() + 4, 4, memlayers::testing::little_endian(value));
    tiny.tensors(file);
    const std::string message = error_of([&] { open(file); });
    EXPECT_TRUE(says(message, {path_ + ": "}));
    return message;
  };
  EXPECT_TRUE(says(changed("llama.block_count", 1u << 30),
                   {"block_count: expected at most 11, as many as the file has tensors"}));
  EXPECT_TRUE(says(changed("llama.block_count", 2), {"blk.1.", "not in the file"}));
  EXPECT_TRUE(says(changed("llama.block_count", 0), {"block_count: expected an integer from 1"}));
  EXPECT_TRUE(says(changed("llama.embedding_length", 16), {"expected shape", "got"}));
  EXPECT_TRUE(says(changed("llama.feed_forward_length", 13),
                   {"tensor \"blk.0.ffn_gate.weight\": expected shape [13,8] by the file's keys, "
                    "got [12,8]"}));
  EXPECT_TRUE(says(changed("llama.attention.head_count", 3), {"a multiple of heads (3), got 8"}));
  EXPECT_TRUE(says(error({},
                         [](GgufBytes& f) {
                           add_byte_tokenizer(f);
                           f.number("tokenizer.ggml.padding_token_id", 8);
                         }),
                   {"padding_token_id: expected an integer from 0 to 7, got 8"}));
  GgufBytes empty;
  empty.text("general.architecture", "llama");
  write_file(path_, empty.bytes());
  EXPECT_TRUE(says(error_of([&] { open_model_source(posix(), path_); }),
                   {"expected a key \"llama.embedding_length\", found none"}));
}

TEST_F(GgufModel, FactorsOfFrequenciesAreLlama3sScaling) {
  RopeConfig wanted;
  wanted.theta = 500000;
  wanted.type = "llama3";
  const auto check = [&](std::int64_t head_dim) {
    const std::vector<float> factors = rope_factors(wanted, head_dim);
    RopeConfig read;
    read.theta = wanted.theta;
    read_rope_factors(factors, "here", read);
    EXPECT_EQ(read.type, "llama3");
    const std::vector<float> again = rope_factors(read, head_dim);
    for (std::size_t i = 0; i < factors.size(); ++i) {
      EXPECT_NEAR(again[i], factors[i], 2e-5 * double{factors[i]}) << i;
    }
    return read;
  };
  for (const double factor : {8.0, 32.0}) {
    wanted.factor = factor;
    for (const std::int64_t head_dim : {64, 128}) {
      const RopeConfig read = check(head_dim);
      EXPECT_EQ(read.factor, factor);
      EXPECT_EQ(read.low_freq_factor, 1);
      EXPECT_EQ(read.high_freq_factor, 4);
      EXPECT_EQ(read.original_context, 8192);
    }
  }
  wanted.low_freq_factor = 2;
  wanted.high_freq_factor = 9;
  wanted.original_context = 5000;
  check(128);
  wanted = {.theta = 10000, .type = "llama3", .factor = 4, .original_context = 100};
  for (const std::int64_t head_dim : {4, 8, 16}) check(head_dim);
}

TEST_F(GgufModel, FactorsThatAreNoScalingAreRefused) {
  const auto with = [&](const std::vector<float>& factors, std::uint32_t type = 0) {
    return [factors, type](GgufBytes& file) {
      file.floats("rope_freqs.weight", {factors.size()}, factors);
      file.infos.back().type = type;
    };
  };
  EXPECT_EQ(open({}, with({1, 1}))->config().rope.type, "default");
  EXPECT_EQ(open({}, with({1, 8}))->config().rope.type, "llama3");
  for (const std::vector<float>& wrong :
       std::vector<std::vector<float>>{{8, 1}, {0, 8}, {-1, 8}, {INFINITY, 8}, {NAN, 1}}) {
    EXPECT_TRUE(says(error({}, with(wrong)), {"rope_freqs.weight", "LLaMA 3's scaling"}));
  }
  EXPECT_TRUE(says(error({}, with({1, 2, 8})), {"expected 2 numbers of type F32", "got 3"}));
  EXPECT_TRUE(says(error({},
                         [](GgufBytes& file) {
                           file.text("llama.rope.scaling.type", "linear");
                           file.real("llama.rope.scaling.factor", 2);
                           file.floats("rope_freqs.weight", {2}, {1, 8});
                         }),
                   {"expected none beside rope.scaling.type \"linear\""}));
}

TEST_F(GgufModel, ConfigurationsThatNoArchitectureHasAreRefused) {
  const auto said = [](const std::function<void(ModelConfig&)>& change) {
    ModelConfig config;
    change(config);
    return error_of([&] { architecture_of(config, "here"); });
  };
  EXPECT_TRUE(says(said([](ModelConfig& c) { c.memory.emplace(); }), {"here: ", "memory layers"}));
  EXPECT_TRUE(says(said([](ModelConfig& c) { c.experts = 2; }), {"here: ", "experts"}));
  EXPECT_TRUE(says(said([](ModelConfig& c) { c.unrotated_layers = {1}; }), {"without RoPE"}));
  EXPECT_TRUE(says(said([](ModelConfig& c) { c.rope.type = "dynamic"; }), {"\"dynamic\""}));
  EXPECT_TRUE(says(said([](ModelConfig& c) {
                     c.sliding_window = 4;
                     c.sliding_layers = {{1}};
                   }),
                   {"window in some layers"}));
  ModelConfig qwen3;
  qwen3.attention_norm = true;
  EXPECT_STREQ(architecture_of(qwen3, "").name, "qwen3");
  EXPECT_STREQ(architecture_of({}, "").name, "llama");
}

TEST(GgufNames, AreThoseOfTheFormat) {
  EXPECT_EQ(tensor_name("model.layers.12.mlp.down_proj.weight"), "blk.12.ffn_down.weight");
  EXPECT_EQ(tensor_name("model.layers.0.self_attn.q_proj.bias"), "blk.0.attn_q.bias");
  EXPECT_EQ(tensor_name("lm_head.weight"), "output.weight");
  for (const char* other :
       {"", "weight", "model.weight", "model.layers.weight", "model.layers.1.memory.keys"}) {
    EXPECT_EQ(tensor_name(other), "") << other;
  }
}

TEST_F(GgufModel, TextsAreThoseOfAFolder) {
  const auto source = open({}, [](GgufBytes& file) {
    add_byte_tokenizer(file);
    file.text("tokenizer.chat_template", "{{ x }}");
    file.number("tokenizer.ggml.eot_token_id", 3);
  });
  EXPECT_EQ(source->text("chat_template.jinja"), "{{ x }}");
  EXPECT_EQ(nlohmann::json::parse(*source->text("generation_config.json")),
            nlohmann::json::parse(R"({"bos_token_id": 0, "eos_token_id": [1, 3]})"));
  EXPECT_EQ(nlohmann::json::parse(*source->text("config.json"))["model_type"], "llama");
  EXPECT_TRUE(source->text("tokenizer.json"));
  EXPECT_FALSE(source->text("tokenizer.model"));
  const auto bare = open(TinyGguf{});
  EXPECT_FALSE(bare->text("tokenizer.json"));
  EXPECT_FALSE(bare->text("chat_template.jinja"));
}

}  // namespace
}  // namespace memlayers::io::gguf
