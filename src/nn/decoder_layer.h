// SPDX-License-Identifier: Apache-2.0
// The parts of one decoder layer, under Hugging Face's names.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstdint>
#include <optional>

#include "memlayers/linear.h"
#include "memlayers/llama.h"
#include "nn/document_runs.h"
#include "nn/feed_forward.h"

namespace memlayers {

// Rotary position embedding of the positions at hand, computed once for all layers. [B or 1, 1, T,
// head_dim]
struct RopeTables {
  at::Tensor cos, sin;
};

// inv_freq [head_dim / 2] float32, scaled as the configuration says [RoPE21], for a sequence of
// `length` tokens: more than rope.original_context change what "dynamic" gives.
at::Tensor rope_frequencies(const RopeConfig& rope, std::int64_t head_dim, std::int64_t length = 0);
// positions [B or 1, T] int64; `factor` multiplies both.
RopeTables rope_tables(const at::Tensor& frequencies, const at::Tensor& positions,
                       at::ScalarType dtype, double factor = 1);

// How a layer attends: in what the decoders of the family differ.
struct AttentionOptions {
  std::int64_t dim, heads, kv_heads, head_dim;
  bool has_bias, has_output_bias;
  bool has_norm;  // of each head's queries and keys
  double norm_eps;
  bool is_rotated;                     // by RoPE
  std::optional<std::int64_t> window;  // how many tokens a query sees; absent: all before it
};
AttentionOptions attention_options(const ModelConfig& config, std::int64_t layer);

struct AttentionImpl : torch::nn::Module {
  explicit AttentionImpl(const AttentionOptions& options);
  // x [B, T, dim]; causal, in each document by itself where `documents` is not null.
  at::Tensor forward(const at::Tensor& x, const RopeTables& rope,
                     const nn::DocumentRuns* documents = nullptr);
  // x [tokens, dim] of a step, in layer number `layer`.
  at::Tensor step(const at::Tensor& x, const nn::Step& step, std::int64_t layer);

  AttentionOptions options;
  torch::Tensor q_norm, k_norm;  // [head_dim]; undefined without
  Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, o_proj{nullptr};
};
TORCH_MODULE(Attention);

// What memory layers read beside the states: MemoryLayer::forward's.
struct MemoryInput {
  const Snapshot* rows = nullptr;
  at::Tensor suffixes = {};
};

struct DecoderLayerImpl : torch::nn::Module {
  // `pool` is empty where this layer has no memory.
  DecoderLayerImpl(const ModelConfig& config, std::int64_t index, const MemoryPool& pool);
  at::Tensor forward(const at::Tensor& x, const RopeTables& rope, const MemoryInput& input,
                     const nn::DocumentRuns* documents = nullptr);
  // The two halves of forward: x and its attention; and what the rest makes of them.
  at::Tensor attend(const at::Tensor& x, const RopeTables& rope,
                    const nn::DocumentRuns* documents = nullptr);
  at::Tensor go_on(const at::Tensor& attended, const MemoryInput& input);
  at::Tensor normed(const at::Tensor& attended) const;         // what feed-forward and memory take
  at::Tensor step(const at::Tensor& x, const nn::Step& step);  // x [tokens, dim]
  bool has_feed_forward() const { return !feed_forward.is_empty() || !experts.is_empty(); }
  at::Tensor feed(const at::Tensor& x);  // through the feed-forward, which there must be

  std::int64_t index;
  double norm_eps;
  torch::Tensor input_norm, post_attention_norm;
  Attention attention{nullptr};
  // One of the two, or none where memory stands in their place.
  FeedForward feed_forward{nullptr};
  Experts experts{nullptr};
  MemoryLayer memory{nullptr};  // null without memory
};

}  // namespace memlayers
