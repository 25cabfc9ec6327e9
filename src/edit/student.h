// SPDX-License-Identifier: Apache-2.0
// What learning may change of a model, and how.
#pragma once

#include <memory>
#include <vector>

#include "memlayers/edit.h"

namespace memlayers::edit {

// Parameters that are trained while all others are as they are. The model's weights are the
// trained ones from its making on; gradients are wanted for trained() alone.
class Student {
 public:
  Student() = default;
  virtual ~Student() = default;
  Student(const Student&) = delete;
  Student& operator=(const Student&) = delete;

  virtual std::vector<at::Tensor> trained() const = 0;
  // The model's weights as they were before learning, or as they are now.
  virtual void show(bool before) = 0;
  // Applies and clears the gradients, at `rate` times the learning rate.
  virtual void step(double rate) = 0;
  // How many numbers are trained.
  virtual std::int64_t parameters() const = 0;
};

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
  std::int64_t parameters() const override { return rows_.numel(); }

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
