// SPDX-License-Identifier: Apache-2.0
// One step of several sequences, as the layers of a decoder see it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "memlayers/llama.h"
#include "ops/paged_attention.h"

namespace memlayers::nn {

struct Step {
  // Tokens [begin, end) read one version of the pool.
  struct Reads {
    std::int64_t begin, end;
    const Snapshot* rows;    // null: the pool has none
    bool leaves_out_memory;  // then nothing is read
  };

  ops::PagedTokens tokens;
  std::vector<Reads> reads;  // of all tokens, in order
  at::Tensor suffixes;       // of all tokens, MemoryLayer::forward's; undefined without need

  // Takes the memory that the tokens need; changes no length. Checks what LlamaImpl::step() says.
  Step(std::span<const SequenceTokens> sequences, const ModelConfig& config, MemoryPool pool,
       const at::Tensor& frequencies);
  // The tokens are in the caches.
  void commit(std::span<const SequenceTokens> sequences) const;

 private:
  void look_back(std::span<const SequenceTokens> sequences, std::int64_t length);  // suffixes
};

}  // namespace memlayers::nn
