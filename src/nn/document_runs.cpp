// SPDX-License-Identifier: Apache-2.0
#include "nn/document_runs.h"

#include <torch/types.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <span>

#include "nn/table.h"

namespace memlayers::nn {
namespace {

// Shorter documents share a run up to so many tokens: a call of attention costs more than the pairs
// of tokens that a mask takes out of a run.
constexpr std::int64_t kTokensARun = 256;

constexpr float kNever = -std::numeric_limits<float>::infinity();

void check_begin(std::span<const std::int64_t> row) {
  for (std::size_t t = 0; t < row.size(); ++t) {
    const bool begins = row[t] == static_cast<std::int64_t>(t);
    TORCH_CHECK_VALUE(begins || (t > 0 && row[t] == row[t - 1]),
                      "Llama: expected the column where a token's document begins, its own or that "
                      "of the token before, got ",
                      row[t], " in column ", t);
  }
}

// Of tokens whose documents begin at `begin`, of which the first is the run's.
at::Tensor mask_of(std::span<const std::int64_t> begin, at::ScalarType type) {
  const auto length = static_cast<std::int64_t>(begin.size());
  at::Tensor mask = torch::full({length, length}, kNever);
  auto* row = mask.mutable_data_ptr<float>();
  for (std::int64_t t = 0; t < length; ++t, row += length) {
    std::fill(row + begin[t] - begin[0], row + t + 1, 0.0F);
  }
  return mask.to(type);
}

// What the mask of so many tokens, or causality where it is undefined, leaves of a window. `key`:
// the keys' positions, of which the last are the tokens' own.
at::Tensor in_window(const at::Tensor& mask, std::int64_t length, const at::Tensor& key,
                     std::int64_t window, const at::TensorOptions& options) {
  const at::Tensor query = key.slice(0, key.size(0) - length).unsqueeze(1);
  const at::Tensor seen = mask.defined() ? mask : torch::zeros({length, key.size(0)}, options);
  return seen.masked_fill((key > query) | (key <= query - window), kNever);
}

}  // namespace

DocumentRuns document_runs(const at::Tensor& begin_in, at::ScalarType type) {
  const at::Tensor begin = begin_in.contiguous();
  const std::int64_t T = begin.size(1);
  DocumentRuns runs;
  for (std::int64_t b = 0; b < begin.size(0); ++b) {
    const auto row = as_span(begin).subspan(b * T, T);
    check_begin(row);
    std::int64_t first = 0;  // of the run
    const auto close = [&](std::int64_t end) {
      if (end == first) return;
      const bool is_one = row[first] == row[end - 1];
      runs.lengths.push_back(end - first);
      runs.masks.push_back(is_one ? at::Tensor() : mask_of(row.subspan(first, end - first), type));
      first = end;
    };
    for (std::int64_t t = 0; t < T;) {
      std::int64_t end = t + 1;  // of the document
      while (end < T && row[end] == row[t]) ++end;
      if (end - first > kTokensARun) close(t);
      t = end;
    }
    close(T);
  }
  return runs;
}

DocumentRuns document_runs(std::int64_t prefix, std::span<const std::int64_t> lengths,
                           at::ScalarType type) {
  std::vector<std::int64_t> begin;
  for (const std::int64_t length : lengths) {
    TORCH_CHECK_VALUE(length >= 1, "Llama: expected sequences of tokens behind those that they ",
                      "begin with, got one of ", length);
    begin.insert(begin.end(), length, static_cast<std::int64_t>(begin.size()));
  }
  DocumentRuns runs = document_runs(torch::tensor(begin, torch::kLong).unsqueeze(0), type);
  if (prefix == 0) return runs;
  std::span<const std::int64_t> rest = begin;
  std::int64_t first = 0;  // column of the run
  const at::Tensor before = torch::arange(prefix, torch::kLong);
  for (std::size_t i = 0; i < runs.lengths.size(); ++i) {
    const std::int64_t length = runs.lengths[i];
    const std::span<const std::int64_t> own = rest.first(length);
    rest = rest.subspan(length);
    const at::Tensor mask = runs.masks[i].defined() ? runs.masks[i] : mask_of(own, type);
    runs.masks[i] = torch::cat({torch::zeros({length, prefix}, mask.options()), mask}, 1);
    const at::Tensor column = torch::arange(first, first + length, torch::kLong);
    const at::Tensor begins = torch::tensor(std::vector(own.begin(), own.end()), torch::kLong);
    runs.positions.push_back(torch::cat({before, column - begins + prefix}));
    first += length;
  }
  runs.prefix = prefix;
  runs.lengths.insert(runs.lengths.begin(), prefix);
  runs.masks.insert(runs.masks.begin(), at::Tensor());
  runs.positions.insert(runs.positions.begin(), before);
  return runs;
}

at::Tensor attend_in_runs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const DocumentRuns& runs, std::optional<std::int64_t> window) {
  const std::int64_t B = q.size(0), H = q.size(1), T = q.size(2), D = q.size(3);
  // Pieces of whole tokens: their gradients are put side by side again, where those of slices would
  // each be one of all tokens.
  const auto pieces = [&](const at::Tensor& x) {
    return x.transpose(1, 2).reshape({B * T, H, D}).split_with_sizes(runs.lengths);
  };
  const std::vector<at::Tensor> queries = pieces(q), keys = pieces(k), values = pieces(v);
  const auto heads_first = [](const at::Tensor& piece) {
    return piece.transpose(0, 1).unsqueeze(0);  // [1, H, length, D]
  };
  std::vector<at::Tensor> attended;
  attended.reserve(queries.size());
  for (std::size_t i = 0; i < queries.size(); ++i) {
    const bool is_behind = i > 0 && runs.prefix > 0;
    const auto seen = [&](const std::vector<at::Tensor>& of) {
      return heads_first(is_behind ? torch::cat({of[0], of[i]}) : of[i]);
    };
    const at::Tensor key = seen(keys);
    at::Tensor mask = runs.masks[i];
    if (window && key.size(2) > *window) {
      const at::Tensor positions =
          runs.prefix > 0 ? runs.positions[i].to(q.device())
                          : torch::arange(key.size(2), q.options().dtype(torch::kLong));
      mask = in_window(mask, runs.lengths[i], positions, *window, q.options());
    }
    const at::Tensor y = torch::scaled_dot_product_attention(
        heads_first(queries[i]), key, seen(values),
        mask.defined() ? std::optional(mask) : std::nullopt, 0.0, /*is_causal=*/!mask.defined());
    attended.push_back(y.squeeze(0).transpose(0, 1));
  }
  return torch::cat(attended).view({B, T, H, D}).transpose(1, 2);
}

}  // namespace memlayers::nn
