// SPDX-License-Identifier: Apache-2.0
// The parts of one decoder layer, under Hugging Face's names.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstdint>

#include "memlayers/llama.h"

namespace memlayers {

// Rotary position embedding of the positions at hand, computed once for all layers. [B or 1, 1, T,
// head_dim]
struct RopeTables {
  at::Tensor cos, sin;
};

// inv_freq [head_dim / 2] float32, scaled as the configuration says [RoPE21].
at::Tensor rope_frequencies(const RopeConfig& rope, std::int64_t head_dim);
// positions [B or 1, T] int64
RopeTables rope_tables(const at::Tensor& frequencies, const at::Tensor& positions,
                       at::ScalarType dtype);

struct AttentionImpl : torch::nn::Module {
  explicit AttentionImpl(const ModelConfig& config);
  // x [B, T, dim]; mask [B, 1, T, T + cached] bool, or undefined: causal (or, for one new token,
  // all).
  at::Tensor forward(const at::Tensor& x, const RopeTables& rope, const at::Tensor& mask,
                     KvCache* cache, std::int64_t layer);

  std::int64_t heads, kv_heads, head_dim;
  torch::nn::Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, o_proj{nullptr};
};
TORCH_MODULE(Attention);

struct FeedForwardImpl : torch::nn::Module {  // SwiGLU
  explicit FeedForwardImpl(const ModelConfig& config);
  at::Tensor forward(const at::Tensor& x);

  torch::nn::Linear gate_proj{nullptr}, up_proj{nullptr}, down_proj{nullptr};
};
TORCH_MODULE(FeedForward);

struct DecoderLayerImpl : torch::nn::Module {
  // `pool` is empty where this layer has no memory.
  DecoderLayerImpl(const ModelConfig& config, std::int64_t index, const MemoryPool& pool);
  // `rows`: of MemoryLayer::forward.
  at::Tensor forward(const at::Tensor& x, const RopeTables& rope, const at::Tensor& mask,
                     KvCache* cache, const Snapshot* rows);

  std::int64_t index;
  double norm_eps;
  torch::Tensor input_norm, post_attention_norm;
  Attention attention{nullptr};
  FeedForward feed_forward{nullptr};  // null where memory stands in its place
  MemoryLayer memory{nullptr};        // null without memory
};

}  // namespace memlayers
