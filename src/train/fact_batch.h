// SPDX-License-Identifier: Apache-2.0
// Facts and texts as a model reads them many at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "memlayers/llama.h"
#include "train/fact_row.h"

namespace memlayers::train {

// Sequences without their last tokens, packed: input [1, T], and what is wanted behind them. What
// all of them begin with, a chat template's beginning say, is there once where they share it: no
// prediction with a loss is among it. The rows must outlive it.
struct Batch {
  std::vector<const FactRow*> rows;
  PackedSequences packed;
  at::Tensor input;
  std::int64_t size() const { return static_cast<std::int64_t>(rows.size()); }
};
Batch batch_of(std::vector<const FactRow*> rows, bool shares_prefix);

// All of them in batches of about so many tokens, in their order.
std::vector<Batch> batches_of(const std::vector<FactRow>& rows, std::size_t tokens,
                              bool shares_prefix);

// Whether rows may share what they begin with: not where a memory goes by the tokens before a
// token.
bool can_share_prefix(const ModelConfig& config);

// Where a batch has targets: places in its input [n], what is wanted there, and of which row.
struct Targets {
  at::Tensor places, wanted, row;
};
Targets targets_of(const Batch& batch);

// Texts, each no longer than `context`, packed in batches of about 2,048 tokens, until `most`
// tokens are there: of short texts one pass costs what many would.
struct PackedTexts {
  at::Tensor tokens;  // [1, T]
  PackedSequences packed;
};
std::vector<PackedTexts> packed_texts(const std::vector<FactRow>& rows, std::int64_t context,
                                      std::int64_t most);

}  // namespace memlayers::train
