// SPDX-License-Identifier: Apache-2.0
// The rows of a pool under an AdamW that gives what torch.optim.AdamW over the whole pool gives,
// but touches only the rows that have a gradient: the others lag, and catch up in one go
// (missed_steps.h). state.steps says to which step each row is current.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "memlayers/row_updates.h"
#include "ops/update/missed_steps.h"

namespace memlayers::ops {

// Works on tables that the caller owns, the same in every call, and checks them in every call.
// Calls must not overlap.
class LaggingRows {
 public:
  // Throws ValueError where MissedSteps does. `seed`: of stochastic rounding when rows catch up;
  // beta1, beta2 and eps of later RowAdamWParameters must be these, and the part.
  LaggingRows(double beta1, double beta2, double eps, std::uint64_t seed, PoolPart part = {});

  MissedSteps& missed() { return missed_; }
  const MissedSteps& missed() const { return missed_; }

  // Step missed().last() + 1 of all rows: those of the gradient make it, after catching up; the
  // others lag one more. An empty gradient is one of zeros, and a step. Throws ValueError, before
  // it changes anything, unless lr * weight_decay < 1.
  void update(at::Tensor& values, RowState& state, const GroupedGradient& gradient,
              const RowAdamWParameters& parameters);
  // Brings the rows `slots` (int64 on the CPU, contiguous, any number of times each) up to date.
  void catch_up(at::Tensor& values, RowState& state, const at::Tensor& slots) const;
  void catch_up_all(at::Tensor& values, RowState& state) const;
  // Copies rows from `first` on as catch_up() would leave them; changes nothing.
  void read(const at::Tensor& values, const RowState& state, std::int64_t first,
            std::span<std::byte> out) const;

 private:
  template <class Row>
  class Table;

  MissedSteps missed_;
  std::uint64_t seed_;
  PoolPart part_;
};

}  // namespace memlayers::ops
