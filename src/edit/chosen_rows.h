// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "edit/student.h"

namespace memlayers::edit {

// The chosen rows of a pool in a table of their own, in float32, with the state of an optimizer:
// what is not chosen costs nothing and cannot change.
class ChosenRows : public Student {
 public:
  // `slots` ascending.
  ChosenRows(MemoryPool pool, const std::vector<std::int64_t>& slots, PoolOptimizer optimizer,
             double lr);
  std::vector<at::Tensor> trained() const override { return {pool_->values}; }
  void show(bool before) override;
  void step(double rate) override;
  bool keeps_lower_layers() const override { return true; }
  std::vector<at::Tensor> learned() const override { return {rows_}; }
  std::int64_t parameters() const override { return rows_.numel(); }
  std::int64_t stored_bytes() const override;  // the patch's rows and their numbers
  std::int64_t kept_bytes() const override;    // the rows that they replace

  // The rows that are no longer what they were.
  Patch patch() const;
  std::int64_t slots() const { return rows_.size(0); }

 private:
  GroupedGradient of_chosen(std::vector<FactoredGradient> parts) const;

  MemoryPool pool_;
  bool is_adam_;
  double lr_;
  at::Tensor slots_, before_, rows_, place_;
  RowState state_;
  RowAdamWParameters parameters_;
};

// The rows that choose_slots() chooses, about to be trained as the options say.
std::unique_ptr<ChosenRows> choose_rows(Generator& generator, const std::vector<NewFact>& facts,
                                        const LearnOptions& options, const SlotHistory& history);

}  // namespace memlayers::edit
