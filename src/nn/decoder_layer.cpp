// SPDX-License-Identifier: Apache-2.0
#include "nn/decoder_layer.h"

#include <torch/nn/init.h>

#include <cmath>
#include <numbers>

#include "nn/project.h"
#include "nn/rms_norm.h"

namespace memlayers {
namespace {

constexpr double kInitStd = 0.02;  // Hugging Face's initializer_range

torch::nn::Linear linear(std::int64_t in, std::int64_t out, bool bias) {
  torch::nn::Linear layer(torch::nn::LinearOptions(in, out).bias(bias));
  const torch::NoGradGuard no_grad;
  torch::nn::init::normal_(layer->weight, 0, kInitStd);
  if (bias) torch::nn::init::zeros_(layer->bias);
  return layer;
}

// The halves of a head are a pair of coordinates each: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1
// sin).
at::Tensor rotate(const at::Tensor& x, const RopeTables& rope) {
  const auto halves = x.chunk(2, -1);
  return x * rope.cos + torch::cat({-halves[1], halves[0]}, -1) * rope.sin;
}

}  // namespace

at::Tensor rope_frequencies(const RopeConfig& rope, std::int64_t head_dim) {
  const at::Tensor exponent =
      torch::arange(0, head_dim, 2, torch::kFloat) / static_cast<double>(head_dim);
  at::Tensor frequency = torch::pow(rope.theta, exponent).reciprocal();
  if (rope.type == "linear") return frequency / rope.factor;
  if (rope.type == "llama3") {
    // Long waves are slowed by `factor`, short ones kept, those between mixed.
    const double low = rope.low_freq_factor, high = rope.high_freq_factor;
    const at::Tensor turns =
        static_cast<double>(rope.original_context) * frequency / (2 * std::numbers::pi);
    const at::Tensor keep = ((turns - low) / (high - low)).clamp(0, 1);
    return keep * frequency + (1 - keep) * frequency / rope.factor;
  }
  return frequency;
}

RopeTables rope_tables(const at::Tensor& frequencies, const at::Tensor& positions,
                       at::ScalarType dtype) {
  const at::Tensor angle = positions.to(torch::kFloat).unsqueeze(-1) * frequencies;  // [B, T, d/2]
  const at::Tensor both = torch::cat({angle, angle}, -1).unsqueeze(1);
  return {both.cos().to(dtype), both.sin().to(dtype)};
}

AttentionImpl::AttentionImpl(const ModelConfig& config)
    : heads(config.heads), kv_heads(config.num_kv_heads()), head_dim(config.attention_head_dim()) {
  const bool bias = config.attention_bias;
  q_proj = register_module("q_proj", linear(config.dim, heads * head_dim, bias));
  k_proj = register_module("k_proj", linear(config.dim, kv_heads * head_dim, bias));
  v_proj = register_module("v_proj", linear(config.dim, kv_heads * head_dim, bias));
  o_proj = register_module("o_proj", linear(heads * head_dim, config.dim, bias));
}

at::Tensor AttentionImpl::forward(const at::Tensor& x, const RopeTables& rope,
                                  const at::Tensor& mask, KvCache* cache, std::int64_t layer) {
  const std::int64_t B = x.size(0), T = x.size(1);
  const auto split = [&](const at::Tensor& y, std::int64_t count) {
    return y.view({B, T, count, head_dim}).transpose(1, 2);  // [B, heads, T, head_dim]
  };
  const at::Tensor q = rotate(split(nn::project(q_proj, x), heads), rope);
  at::Tensor k = rotate(split(nn::project(k_proj, x), kv_heads), rope);
  at::Tensor v = split(nn::project(v_proj, x), kv_heads);
  if (cache != nullptr) {
    const std::int64_t end = cache->length_ + T;
    at::Tensor &keys = cache->keys_[layer], &values = cache->values_[layer];
    if (cache->length_ == 0 &&
        (keys.scalar_type() != k.scalar_type() || keys.device() != k.device())) {
      keys = torch::zeros_like(keys, k.options());  // the model was moved since it was configured
      values = torch::zeros_like(values, v.options());
    }
    keys.narrow(2, cache->length_, T).copy_(k);
    values.narrow(2, cache->length_, T).copy_(v);
    k = keys.narrow(2, 0, end);
    v = values.narrow(2, 0, end);
  }
  if (kv_heads != heads) {
    k = k.repeat_interleave(heads / kv_heads, 1);
    v = v.repeat_interleave(heads / kv_heads, 1);
  }
  std::optional<at::Tensor> bias;
  if (mask.defined()) bias = mask;
  const bool is_causal = !mask.defined() && T > 1;
  const at::Tensor y = torch::scaled_dot_product_attention(q, k, v, bias, 0.0, is_causal);
  return nn::project(o_proj, y.transpose(1, 2).reshape({B, T, heads * head_dim}));
}

FeedForwardImpl::FeedForwardImpl(const ModelConfig& config) {
  const bool bias = config.mlp_bias;
  gate_proj = register_module("gate_proj", linear(config.dim, config.ff_dim, bias));
  up_proj = register_module("up_proj", linear(config.dim, config.ff_dim, bias));
  down_proj = register_module("down_proj", linear(config.ff_dim, config.dim, bias));
}

at::Tensor FeedForwardImpl::forward(const at::Tensor& x) {
  return nn::project(down_proj, torch::silu(nn::project(gate_proj, x)) * nn::project(up_proj, x));
}

DecoderLayerImpl::DecoderLayerImpl(const ModelConfig& config, std::int64_t layer,
                                   const MemoryPool& pool)
    : index(layer), norm_eps(config.norm_eps) {
  input_norm = register_parameter("input_layernorm", torch::ones({config.dim}));
  post_attention_norm = register_parameter("post_attention_layernorm", torch::ones({config.dim}));
  attention = register_module("self_attn", Attention(config));
  if (!pool.is_empty()) {
    memory = MemoryLayer(config.dim, *config.memory, pool);
    memory->number = layer;
  }
  if (memory.is_empty() || config.memory->placement == MemoryPlacement::kBeside) {
    feed_forward = register_module("mlp", FeedForward(config));
  }
  if (!memory.is_empty()) register_module("memory", memory);
}

at::Tensor DecoderLayerImpl::forward(const at::Tensor& x, const RopeTables& rope,
                                     const at::Tensor& mask, KvCache* cache, const Snapshot* rows) {
  const at::Tensor attended =
      x + attention->forward(nn::rms_norm(x, input_norm, norm_eps), rope, mask, cache, index);
  const at::Tensor normed = nn::rms_norm(attended, post_attention_norm, norm_eps);
  at::Tensor out = attended;
  if (!memory.is_empty()) out = out + memory->forward(normed, rows);
  if (!feed_forward.is_empty()) out = out + feed_forward->forward(normed);
  return out;
}

}  // namespace memlayers
