// SPDX-License-Identifier: Apache-2.0
// Sequences as learning draws them.
#pragma once

#include <cstdint>
#include <vector>

#include "text/shuffle.h"
#include "train/fact_row.h"

namespace memlayers::edit {

// Endless sequences; every one comes once before any comes again. They stay where they are.
class Stream {
 public:
  Stream(std::vector<train::FactRow> rows, std::uint64_t seed);
  std::size_t size() const { return rows_.size(); }
  const std::vector<train::FactRow>& rows() const { return rows_; }
  const train::FactRow& next();

 private:
  std::vector<train::FactRow> rows_;
  std::vector<std::size_t> order_;
  std::size_t at_;
  text::SplitMix64 random_;
};

// Sequences of several sources, drawn from each in proportion to size^0.75: so that the few facts
// of an earlier patch are not lost among all the training data.
class Mixture {
 public:
  explicit Mixture(std::uint64_t seed) : random_(seed) {}
  void add(std::vector<train::FactRow> rows);
  bool empty() const { return total_ == 0; }
  const train::FactRow& next();
  std::vector<const train::FactRow*> facts() const;

 private:
  std::vector<Stream> streams_;
  double total_ = 0;
  text::SplitMix64 random_;
};

}  // namespace memlayers::edit
