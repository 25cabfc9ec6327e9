// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace memlayers::ops {

constexpr std::int64_t kPageTokens = 64;

// Tokens [begin, begin + count) of many continue `past` tokens of one sequence, whose pages these
// are: of the first, the next .. kPageTokens positions, each [layers, 2 (keys, values), kv_heads,
// kPageTokens, head_dim].
struct CachedTokens {
  std::int64_t begin, count, past;
  std::vector<std::byte*> pages;
};

struct PagedTokens {
  std::int64_t count = 0;
  std::vector<CachedTokens> sequences;  // of all tokens, in order
  at::ScalarType type = at::kFloat;     // of pages, queries, keys and values; or bfloat16
  std::int64_t kv_heads = 0, head_dim = 0;
  // Rotary position embeddings [count, head_dim]: float32 numbers that `type` holds.
  at::Tensor cos, sin;

  // Of a layer's keys or values of one head, [kPageTokens, head_dim].
  std::byte* keys(const CachedTokens& of, std::int64_t page, std::int64_t layer,
                  std::int64_t head) const {
    return of.pages[static_cast<std::size_t>(page)] + place(2 * layer, head);
  }
  std::byte* values(const CachedTokens& of, std::int64_t page, std::int64_t layer,
                    std::int64_t head) const {
    return of.pages[static_cast<std::size_t>(page)] + place(2 * layer + 1, head);
  }

 private:
  std::int64_t place(std::int64_t table, std::int64_t head) const {
    return (table * kv_heads + head) * kPageTokens * head_dim *
           static_cast<std::int64_t>(c10::elementSize(type));
  }
};

struct AttentionKind {
  bool is_rotated = true;                   // by cos and sin
  std::optional<std::int64_t> window = {};  // how many tokens a query sees; absent: all before it
};

// Causal attention in layer number `layer`, without gradient, on the CPU: q [count, heads *
// head_dim], k and v [count, kv_heads * head_dim] as projected, contiguous. Rotates q and k, puts k
// and v into the pages, and returns [count, heads * head_dim]. What comes out of a token is summed
// over its own sequence, in its order: the same bits whatever else is there.
at::Tensor paged_attention(const PagedTokens& tokens, std::int64_t layer, const at::Tensor& q,
                           const at::Tensor& k, const at::Tensor& v,
                           const AttentionKind& kind = {});

}  // namespace memlayers::ops
