// SPDX-License-Identifier: Apache-2.0
#include "edit/streams.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace memlayers::edit {
namespace {

double weight(const Stream& stream) { return std::pow(static_cast<double>(stream.size()), 0.75); }

}  // namespace

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

std::vector<const train::FactRow*> Mixture::facts() const {
  std::vector<const train::FactRow*> found;
  for (const Stream& stream : streams_) {
    for (const train::FactRow& row : stream.rows()) {
      if (row.is_fact) found.push_back(&row);
    }
  }
  return found;
}

}  // namespace memlayers::edit
