// SPDX-License-Identifier: Apache-2.0
#include "train/fact_batch.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <utility>

#include "nn/ngrams.h"

namespace memlayers::train {
namespace {

// How many tokens all rows begin with, before any that predicts what has a loss.
std::int64_t common_prefix(const std::vector<const FactRow*>& rows) {
  const std::vector<std::int32_t>& first = rows.front()->tokens;
  auto prefix = static_cast<std::int64_t>(first.size());
  for (const FactRow* row : rows) {
    const auto differs = std::ranges::mismatch(first, row->tokens).in1;
    prefix = std::min({prefix, static_cast<std::int64_t>(differs - first.begin()),
                       row->answer_from - 1, static_cast<std::int64_t>(row->tokens.size()) - 2});
  }
  return prefix;
}

}  // namespace

Batch batch_of(std::vector<const FactRow*> rows, bool shares_prefix) {
  const std::int64_t prefix = shares_prefix && rows.size() > 1 ? common_prefix(rows) : 0;
  std::vector<std::int64_t> input(rows.front()->tokens.begin(),
                                  rows.front()->tokens.begin() + prefix);
  PackedSequences packed{.prefix = prefix};
  for (const FactRow* row : rows) {
    input.insert(input.end(), row->tokens.begin() + prefix, row->tokens.end() - 1);
    packed.lengths.push_back(static_cast<std::int64_t>(row->tokens.size()) - 1 - prefix);
  }
  return {std::move(rows), std::move(packed), torch::tensor(input, torch::kLong).unsqueeze(0)};
}

std::vector<Batch> batches_of(const std::vector<FactRow>& rows, std::size_t tokens,
                              bool shares_prefix) {
  std::vector<Batch> batches;
  for (std::size_t i = 0; i < rows.size();) {
    std::vector<const FactRow*> batch;
    for (std::size_t count = 0; i < rows.size() && count < tokens; ++i) {
      batch.push_back(&rows[i]);
      count += rows[i].tokens.size();
    }
    batches.push_back(batch_of(std::move(batch), shares_prefix));
  }
  return batches;
}

bool can_share_prefix(const ModelConfig& config) { return nn::suffix_length(config) == 0; }

Targets targets_of(const Batch& batch) {
  std::vector<std::int64_t> places, wanted, of;
  std::int64_t begin = batch.packed.prefix;
  for (std::size_t i = 0; i < batch.rows.size(); ++i) {
    const FactRow& row = *batch.rows[i];
    const auto length = static_cast<std::int64_t>(row.tokens.size());
    for (std::int64_t t = row.answer_from; t < length; ++t) {
      places.push_back(begin + t - 1 - batch.packed.prefix);
      wanted.push_back(row.tokens[t]);
      of.push_back(static_cast<std::int64_t>(i));
    }
    begin += batch.packed.lengths[i];
  }
  return {torch::tensor(places, torch::kLong), torch::tensor(wanted, torch::kLong),
          torch::tensor(of, torch::kLong)};
}

std::vector<PackedTexts> packed_texts(const std::vector<FactRow>& rows, std::int64_t context,
                                      std::int64_t most) {
  constexpr std::size_t kTokens = 2048;
  std::vector<PackedTexts> all;
  std::int64_t count = 0;
  for (std::size_t i = 0; i < rows.size() && count < most;) {
    std::vector<std::int64_t> tokens;
    PackedSequences packed;
    for (; i < rows.size() && tokens.size() < kTokens && count < most; ++i) {
      const std::int64_t length =
          std::min(context, static_cast<std::int64_t>(rows[i].tokens.size()));
      const auto begin = rows[i].tokens.begin();
      tokens.insert(tokens.end(), begin, begin + length);
      packed.lengths.push_back(length);
      count += length;
    }
    all.push_back({torch::tensor(tokens, torch::kLong).unsqueeze(0), std::move(packed)});
  }
  return all;
}

}  // namespace memlayers::train
