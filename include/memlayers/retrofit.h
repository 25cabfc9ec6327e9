// SPDX-License-Identifier: Apache-2.0
// A memory beside the feed-forward blocks of a decoder that was trained without one
// (docs/retrofit.md).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "memlayers/config.h"
#include "memlayers/edit.h"
#include "memlayers/generator.h"

namespace memlayers {

struct RetrofitOptions {
  // Decoder layers, from 0, ascending. Absent: those at a half, two thirds and five sixths.
  std::optional<std::vector<std::int64_t>> layers = {};
  std::int64_t n_keys = 256, heads = 4, knn = 8, k_dim = 64;  // MemoryConfig
  bool gate = false;
  std::optional<std::int64_t> gate_dim = {};  // MemoryConfig
  RowType row_dtype = RowType::kFloat32;      // or bfloat16
  // Text or JSONL files: what is asked of the model and what it reads beside facts. Absent: a page
  // of prose.
  std::vector<std::string> background = {};
  std::uint64_t seed = 0;  // of queries, sub-keys and gate
};

// The memory that these options give a decoder of this configuration, without its output scales.
// Throws Error naming the first wrong option, or where the decoder has a memory already.
MemoryConfig retrofitted_memory(const ModelConfig& config, const RetrofitOptions& options);

// The same decoder with a memory beside feed-forward blocks: rows zero, so that its logits are
// those of before, bit for bit; queries, sub-keys and gate drawn; each layer's output scale the
// median norm of what its feed-forward block gives along the background, over the root of dim. The
// weights are shared with `generator`, not copied. Throws Error as retrofitted_memory(), and for a
// background without a token.
Generator retrofit(Generator& generator, const RetrofitOptions& options);

// Teaches a retrofitted memory facts with all it has: queries, sub-keys and gates are trained too,
// which later patches of rows find as they are. The decoder's weights keep their bits. The loss is
// that of learn(), with the answers of the decoder without its memory as what is to stay; `slots`,
// `selection` and `optimizer` of the options have no effect. Throws Error as learn().
LearnProgress prime(Generator& generator, const std::vector<NewFact>& facts,
                    const LearnOptions& options,
                    const std::function<void(const LearnProgress&)>& progress = {});

// Rows zero again, behind prime(): the decoder's logits are those that it had without a memory, bit
// for bit; queries, sub-keys and gate stay.
void clear_rows(Generator& generator);

}  // namespace memlayers
