// SPDX-License-Identifier: Apache-2.0
#include "nn/decoder_layer.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "nn/linear.h"
#include "nn/rms_norm.h"
#include "nn/step.h"
#include "nn/unset_weights.h"

namespace memlayers {
namespace {

// The halves of a head are a pair of coordinates each: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1
// sin).
at::Tensor rotate(const at::Tensor& x, const RopeTables& rope) {
  const auto halves = x.chunk(2, -1);
  return x * rope.cos + torch::cat({-halves[1], halves[0]}, -1) * rope.sin;
}

// The pairs of coordinates between those that turn often in the original context, which keep their
// frequency (0), and those that turn seldom (1) [YaRN23].
at::Tensor yarn_ramp(const RopeConfig& rope, std::int64_t head_dim) {
  const auto width = static_cast<double>(head_dim);
  const auto pair_of = [&](double turns) {  // that turns so often
    return width *
           std::log(static_cast<double>(rope.original_context) / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(rope.theta));
  };
  double low = pair_of(rope.beta_fast), high = pair_of(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, width - 1);
  if (low == high) high += 0.001;
  return ((torch::arange(head_dim / 2, torch::kFloat) - low) / (high - low)).clamp(0, 1);
}

}  // namespace

at::Tensor rope_frequencies(const RopeConfig& rope, std::int64_t head_dim, std::int64_t length) {
  const auto width = static_cast<double>(head_dim);
  double theta = rope.theta;
  if (rope.type == "dynamic" && length > rope.original_context) {
    const double stretch =
        rope.factor * static_cast<double>(length) / static_cast<double>(rope.original_context);
    theta *= std::pow(stretch - (rope.factor - 1), width / (width - 2));
  }
  const at::Tensor exponent = torch::arange(0, head_dim, 2, torch::kFloat) / width;
  at::Tensor frequency = torch::pow(theta, exponent).reciprocal();
  if (rope.type == "linear") return frequency / rope.factor;
  if (rope.type == "llama3") {
    // Long waves are slowed by `factor`, short ones kept, those between mixed.
    const double low = rope.low_freq_factor, high = rope.high_freq_factor;
    const at::Tensor turns =
        static_cast<double>(rope.original_context) * frequency / (2 * std::numbers::pi);
    const at::Tensor keep = ((turns - low) / (high - low)).clamp(0, 1);
    return keep * frequency + (1 - keep) * frequency / rope.factor;
  }
  if (rope.type == "yarn") {
    const at::Tensor slow = yarn_ramp(rope, head_dim);
    return (1 - slow) * frequency + slow * frequency / rope.factor;
  }
  return frequency;
}

RopeTables rope_tables(const at::Tensor& frequencies, const at::Tensor& positions,
                       at::ScalarType dtype, double factor) {
  const at::Tensor angle = positions.to(torch::kFloat).unsqueeze(-1) * frequencies;  // [B, T, d/2]
  const at::Tensor both = torch::cat({angle, angle}, -1).unsqueeze(1);
  if (factor == 1) return {both.cos().to(dtype), both.sin().to(dtype)};
  return {(both.cos() * factor).to(dtype), (both.sin() * factor).to(dtype)};
}

AttentionOptions attention_options(const ModelConfig& config, std::int64_t layer) {
  return {.dim = config.dim,
          .heads = config.heads,
          .kv_heads = config.num_kv_heads(),
          .head_dim = config.attention_head_dim(),
          .has_bias = config.attention_bias,
          .has_output_bias = config.has_attention_output_bias(),
          .has_norm = config.attention_norm,
          .norm_eps = config.norm_eps,
          .is_rotated = !std::ranges::binary_search(config.unrotated_layers, layer),
          .window = config.window_of(layer)};
}

AttentionImpl::AttentionImpl(const AttentionOptions& given) : options(given) {
  const std::int64_t dim = options.dim, q = options.heads * options.head_dim,
                     kv = options.kv_heads * options.head_dim;
  q_proj = register_module("q_proj", nn::drawn_linear(dim, q, options.has_bias));
  k_proj = register_module("k_proj", nn::drawn_linear(dim, kv, options.has_bias));
  v_proj = register_module("v_proj", nn::drawn_linear(dim, kv, options.has_bias));
  o_proj = register_module("o_proj", nn::drawn_linear(q, dim, options.has_output_bias));
  if (!options.has_norm) return;
  q_norm = register_parameter("q_norm", torch::ones({options.head_dim}));
  k_norm = register_parameter("k_norm", torch::ones({options.head_dim}));
}

at::Tensor AttentionImpl::forward(const at::Tensor& x, const RopeTables& rope,
                                  const nn::DocumentRuns* documents) {
  const std::int64_t B = x.size(0), T = x.size(1);
  const std::int64_t heads = options.heads, kv_heads = options.kv_heads;
  const auto split = [&](const at::Tensor& y, std::int64_t count) {
    return y.view({B, T, count, options.head_dim});
  };
  const auto placed = [&](at::Tensor y, const at::Tensor& norm) {  // [B, heads, T, head_dim]
    if (options.has_norm) y = nn::rms_norm(y, norm, options.norm_eps);
    y = y.transpose(1, 2);
    return options.is_rotated ? rotate(y, rope) : y;
  };
  const at::Tensor q = placed(split(q_proj(x), heads), q_norm);
  at::Tensor k = placed(split(k_proj(x), kv_heads), k_norm);
  at::Tensor v = split(v_proj(x), kv_heads).transpose(1, 2);
  if (kv_heads != heads) {
    k = k.repeat_interleave(heads / kv_heads, 1);
    v = v.repeat_interleave(heads / kv_heads, 1);
  }
  const auto attend = [&] {
    if (documents != nullptr) return nn::attend_in_runs(q, k, v, *documents, options.window);
    std::optional<at::Tensor> mask;
    if (options.window && T > *options.window) {
      const at::Tensor key = torch::arange(T, x.options().dtype(torch::kLong));
      const at::Tensor query = key.unsqueeze(1);
      mask = (key <= query) & (key > query - *options.window);  // [T, T]
    }
    const bool is_causal = !mask && T > 1;
    return torch::scaled_dot_product_attention(q, k, v, mask, 0.0, is_causal);
  };
  const at::Tensor y = attend();  // [B, heads, T, head_dim]
  return o_proj(y.transpose(1, 2).reshape({B, T, heads * options.head_dim}));
}

at::Tensor AttentionImpl::step(const at::Tensor& x, const nn::Step& step, std::int64_t layer) {
  const auto normed = [&](const at::Tensor& y, const at::Tensor& norm) {
    if (!options.has_norm) return y;
    return nn::rms_norm(y.view({y.size(0), -1, options.head_dim}), norm, options.norm_eps)
        .view(y.sizes());
  };
  const at::Tensor q = normed(q_proj(x), q_norm);
  const at::Tensor k = normed(k_proj(x), k_norm);
  const ops::AttentionKind kind{options.is_rotated, options.window};
  return o_proj(ops::paged_attention(step.tokens, layer, q, k, v_proj(x), kind));
}

DecoderLayerImpl::DecoderLayerImpl(const ModelConfig& config, std::int64_t layer,
                                   const MemoryPool& pool)
    : index(layer), norm_eps(config.norm_eps) {
  input_norm = register_parameter("input_layernorm", torch::ones({config.dim}));
  post_attention_norm = register_parameter("post_attention_layernorm", torch::ones({config.dim}));
  attention = register_module("self_attn", Attention(attention_options(config, layer)));
  if (!pool.is_empty()) {
    memory = MemoryLayer(config.dim, *config.memory, pool);
    memory->number = layer;
    if (const auto& scales = config.memory->output_scales; !scales.empty()) {
      const std::vector<std::int64_t> layers = config.memory_layers();
      memory->output_scale = scales[std::ranges::find(layers, layer) - layers.begin()];
    }
  }
  if (memory.is_empty() || config.memory->placement == MemoryPlacement::kBeside) {
    if (config.experts > 1) {
      experts = register_module("mlp", Experts(config));
    } else {
      feed_forward = register_module("mlp", FeedForward(config));
    }
  }
  if (!memory.is_empty()) register_module("memory", memory);
}

at::Tensor DecoderLayerImpl::forward(const at::Tensor& x, const RopeTables& rope,
                                     const MemoryInput& input, const nn::DocumentRuns* documents) {
  return go_on(attend(x, rope, documents), input);
}

at::Tensor DecoderLayerImpl::attend(const at::Tensor& x, const RopeTables& rope,
                                    const nn::DocumentRuns* documents) {
  return x + attention->forward(nn::rms_norm(x, input_norm, norm_eps), rope, documents);
}

at::Tensor DecoderLayerImpl::normed(const at::Tensor& attended) const {
  return nn::rms_norm(attended, post_attention_norm, norm_eps);
}

at::Tensor DecoderLayerImpl::feed(const at::Tensor& x) {
  return experts.is_empty() ? feed_forward->forward(x) : experts->forward(x);
}

at::Tensor DecoderLayerImpl::go_on(const at::Tensor& attended, const MemoryInput& input) {
  const at::Tensor x = normed(attended);
  at::Tensor out = attended;
  if (!memory.is_empty()) {
    out = out + memory->forward(x, input.rows, /*continues=*/false, input.suffixes);
  }
  if (has_feed_forward()) out = out + feed(x);
  return out;
}

at::Tensor DecoderLayerImpl::step(const at::Tensor& x, const nn::Step& step) {
  const at::Tensor attended =
      x + attention->step(nn::rms_norm(x, input_norm, norm_eps), step, index);
  const at::Tensor normed = this->normed(attended);
  at::Tensor out = attended;
  if (!memory.is_empty()) {
    const bool continues = std::ranges::all_of(
        step.tokens.sequences, [](const ops::CachedTokens& tokens) { return tokens.past > 0; });
    std::vector<at::Tensor> read;  // by version of the pool
    for (const nn::Step::Reads& reads : step.reads) {
      const at::Tensor asking = normed.slice(0, reads.begin, reads.end);
      const at::Tensor suffixes =
          step.suffixes.defined() ? step.suffixes.slice(0, reads.begin, reads.end) : at::Tensor();
      read.push_back(reads.leaves_out_memory
                         ? torch::zeros_like(asking)
                         : memory->forward(asking, reads.rows, continues, suffixes));
    }
    out = out + (read.size() == 1 ? read[0] : torch::cat(read));
  }
  if (has_feed_forward()) out = out + feed(normed);
  return out;
}

}  // namespace memlayers
