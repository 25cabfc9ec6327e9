// SPDX-License-Identifier: Apache-2.0
#include "edit/batch.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace memlayers::edit {
namespace {

double weight(const Stream& stream) { return std::pow(static_cast<double>(stream.size()), 0.75); }

}  // namespace

Batch batch_of(std::vector<const train::FactRow*> rows) {
  std::int64_t length = 0;
  for (const train::FactRow* row : rows) {
    length = std::max(length, static_cast<std::int64_t>(row->tokens.size()) - 1);
  }
  const auto size = static_cast<std::int64_t>(rows.size());
  at::Tensor input = torch::zeros({size, length}, torch::kLong);
  at::Tensor target = torch::full({size, length}, kIgnoredTarget, torch::kLong);
  auto* in = input.mutable_data_ptr<std::int64_t>();
  auto* out = target.mutable_data_ptr<std::int64_t>();
  for (const train::FactRow* row : rows) {
    std::copy(row->tokens.begin(), row->tokens.end() - 1, in);
    std::copy(row->tokens.begin() + row->answer_from, row->tokens.end(),
              out + row->answer_from - 1);
    in += length;
    out += length;
  }
  return {std::move(rows), input, target};
}

Targets targets_of(const Batch& batch) {
  const at::Tensor flat = batch.target.flatten();
  const at::Tensor places = (flat != kIgnoredTarget).nonzero().squeeze(1);
  return {places, flat.index_select(0, places),
          places.div(std::max<std::int64_t>(1, batch.target.size(1)), "floor")};
}

Stream::Stream(std::vector<train::FactRow> rows, std::uint64_t seed)
    : rows_(std::move(rows)), order_(rows_.size()), at_(rows_.size()), random_(seed) {
  std::iota(order_.begin(), order_.end(), 0);
}

const train::FactRow& Stream::next() {
  if (at_ == order_.size()) {
    text::shuffle(order_, random_);
    at_ = 0;
  }
  return rows_[order_[at_++]];
}

void Mixture::add(std::vector<train::FactRow> rows) {
  streams_.emplace_back(std::move(rows), random_.next());
  total_ += weight(streams_.back());
}

const train::FactRow& Mixture::next() {
  double left = total_ * static_cast<double>(random_.next() >> 11) * 0x1p-53;
  Stream* chosen = nullptr;
  for (Stream& stream : streams_) {
    if (stream.size() == 0) continue;
    chosen = &stream;
    left -= weight(stream);
    if (left < 0) break;
  }
  return chosen->next();
}

}  // namespace memlayers::edit
