// SPDX-License-Identifier: Apache-2.0
// Several documents in one row of tokens: none attends to another.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace memlayers::nn {

// The tokens of a batch, row after row, cut into runs that attend to nothing outside: one document,
// or several short ones. It costs what the documents cost, not their rows.
struct DocumentRuns {
  std::vector<std::int64_t> lengths;  // together all tokens
  // Of each run [length, length], 0 where a token attends and -infinity elsewhere; undefined for a
  // single document: causal.
  std::vector<at::Tensor> masks;
  // Where the first run is one that all others attend to as well: its length. Their masks are then
  // [length, prefix + length], and positions those of their keys [prefix + length].
  std::int64_t prefix = 0;
  std::vector<at::Tensor> positions;
};

// begin [B, T] int64 on the CPU: the column where the document of each token begins. Throws
// ValueError where it is not. `type`: of the queries.
DocumentRuns document_runs(const at::Tensor& begin, at::ScalarType type);

// Of sequences that begin alike: `prefix` tokens of all, then of each `lengths` others, at least 1.
DocumentRuns document_runs(std::int64_t prefix, std::span<const std::int64_t> lengths,
                           at::ScalarType type);

// Causal attention of q, k, v [B, H, T, D] inside each run's documents: [B, H, T, D]. `window`: how
// many tokens a query sees, itself one of them; absent: all before it.
at::Tensor attend_in_runs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const DocumentRuns& runs, std::optional<std::int64_t> window = {});

}  // namespace memlayers::nn
