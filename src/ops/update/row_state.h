// SPDX-License-Identifier: Apache-2.0
// What the row optimizers share: the checks of their tables and where a row's state lies.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "kernels/kernels.h"
#include "memlayers/row_updates.h"
#include "ops/torch/check.h"
#include "ops/update/row_sums.h"

namespace memlayers::ops {

// A key of a row's random bits: all of the seed and of the slot enter.
inline std::uint32_t rounding_key(std::uint64_t seed, std::int64_t slot) {
  const auto s = static_cast<std::uint64_t>(slot);
  std::uint32_t key = kernels::hash32(static_cast<std::uint32_t>(seed));
  key = kernels::hash32(key ^ static_cast<std::uint32_t>(seed >> 32));
  key = kernels::hash32(key ^ static_cast<std::uint32_t>(s));
  return kernels::hash32(key ^ static_cast<std::uint32_t>(s >> 32));
}

// The same for a row of a part of the pool: its slot is not its number, and its columns may begin
// later, at an even one.
inline std::uint32_t rounding_key(std::uint64_t seed, const PoolPart& part, std::int64_t row) {
  const std::int64_t first = part.columns.empty() ? 0 : part.columns[0].first;
  return rounding_key(seed, part.slot(row)) + static_cast<std::uint32_t>(first / 2);
}

// A table of the state, [S, W] like values, or [S].
inline void check_state(const char* op, const char* name, const at::Tensor& tensor,
                        at::IntArrayRef sizes, at::ScalarType type) {
  TORCH_CHECK_VALUE(tensor.defined(), op, ": expected ", name, " ", sizes, ", got none");
  check_cpu(op, {{name, tensor}});
  check_type(op, name, tensor, {type});
  TORCH_CHECK_VALUE(tensor.sizes() == sizes && tensor.is_contiguous(), op, ": expected contiguous ",
                    name, " ", sizes, ", got ", tensor.sizes(), " with strides ", tensor.strides());
}

// values, the master copy where there is one, and the gradient's slots.
inline void check_values(const char* op, const at::Tensor& values, const RowState& state,
                         const at::Tensor& slots) {
  check_dim(op, "values", values, 2);
  check_type(op, "values", values, {at::kFloat, at::kBFloat16});
  check_cpu(op, {{"values", values}});
  TORCH_CHECK_VALUE(values.is_contiguous(), op, ": expected values contiguous, got strides ",
                    values.strides());
  if (state.master.defined()) {
    check_state(op, "master", state.master, values.sizes(), at::kFloat);
    TORCH_CHECK_VALUE(values.scalar_type() == at::kBFloat16, op,
                      ": expected a master copy for bfloat16 rows only, got values of type ",
                      values.scalar_type());
  }
  if (slots.numel() > 0) check_slots(op, slots, values.size(0));
}

// The state of AdamW: both moments of every column, and a number a row.
inline void check_adamw_state(const char* op, const at::Tensor& values, const RowState& state) {
  check_state(op, "exp_avg", state.exp_avg, values.sizes(), at::kFloat);
  check_state(op, "exp_avg_sq", state.exp_avg_sq, values.sizes(), at::kFloat);
  check_state(op, "steps", state.steps, values.sizes().slice(0, 1), at::kInt);
}

// Of a table with as many columns as values; null where there is no table.
inline float* row_of(const at::Tensor& table, std::int64_t slot) {
  return table.defined() ? table.mutable_data_ptr<float>() + slot * table.size(1) : nullptr;
}

// The factors of a row's step t, counted from 1.
inline kernels::AdamWStep adamw_step(const RowAdamWParameters& p, std::int64_t t,
                                     std::int64_t slot) {
  const auto power = static_cast<double>(t);
  return {.beta1 = static_cast<float>(p.beta1),
          .beta2 = static_cast<float>(p.beta2),
          .eps = static_cast<float>(p.eps),
          .decay = static_cast<float>(1 - p.lr * p.weight_decay),
          .step_size = static_cast<float>(p.lr / (1 - std::pow(p.beta1, power))),
          .v_correction = static_cast<float>(1 / (1 - std::pow(p.beta2, power))),
          .gradient_scale = static_cast<float>(p.gradient_scale),
          .rounding_key = rounding_key(p.rounding_seed, p.part, slot)};
}

// f(c, n) for the columns of a row in pieces [c, c + n): between them the same piece of a row that
// comes later is asked for, so that the memory is never left without work, nor the processor with
// nothing else (docs/performance.md, "Update").
constexpr std::int64_t kPiece = 128;  // 64 to 256 are as fast, whole rows 1.4 times as slow
template <class F>
void for_pieces(std::int64_t width, const F& f) {
  for (std::int64_t c = 0; c < width; c += kPiece) f(c, width - c < kPiece ? width - c : kPiece);
}

// Where an update finds a row and its state: plain pointers, for a tensor's own take longer than a
// piece of a row. Null where there is no table.
template <class Row>
struct RowTables {
  Row* rows;
  float *master, *exp_avg, *exp_avg_sq;
  std::int32_t* steps;
  std::int64_t width;
  bool is_rowwise;  // exp_avg_sq has one number a row

  RowTables(Row* the_rows, const RowState& state, std::int64_t the_width)
      : rows(the_rows),
        master(data_of(state.master)),
        exp_avg(data_of(state.exp_avg)),
        exp_avg_sq(data_of(state.exp_avg_sq)),
        steps(state.steps.defined() ? state.steps.mutable_data_ptr<std::int32_t>() : nullptr),
        width(the_width),
        is_rowwise(state.exp_avg_sq.defined() && state.exp_avg_sq.dim() == 1) {
    for (const float* table : {master, exp_avg, is_rowwise ? nullptr : exp_avg_sq}) {
      if (table != nullptr) wide_[num_wide_++] = table;
    }
  }

  // How many rows later a row is asked for: two, or more where rows are read faster than memory
  // answers.
  std::int64_t rows_ahead() const {
    constexpr std::int64_t kBytesAhead = 1 << 14, kMost = 32;
    const auto a_number = static_cast<std::int64_t>(sizeof(Row)) +
                          num_wide_ * static_cast<std::int64_t>(sizeof(float));
    const std::int64_t bytes = width * a_number;
    return std::clamp<std::int64_t>(kBytesAhead / std::max<std::int64_t>(1, bytes), 2, kMost);
  }

  float* at(float* table, std::int64_t slot, std::int64_t c) const {
    return table == nullptr ? nullptr : table + slot * width + c;
  }
  // Asks for columns [c, c + n) of a row and its state. Inlined by force, for to g++ a function
  // that does nothing but prefetch has no effect: it leaves out the call.
  [[gnu::always_inline]] void prefetch_piece(std::int64_t slot, std::int64_t c,
                                             std::int64_t n) const {
    const std::int64_t at = slot * width + c;
    prefetch_numbers(rows + at, n);
    for (int i = 0; i < num_wide_; ++i) prefetch_numbers(wide_[i] + at, n);
    if (c > 0) return;
    if (steps != nullptr) prefetch(steps + slot, 1);
    if (is_rowwise) prefetch(exp_avg_sq + slot, 1);
  }

 private:
  template <class T>
  [[gnu::always_inline]] static void prefetch_numbers(const T* numbers, std::int64_t n) {
    constexpr auto kSize = static_cast<std::int64_t>(sizeof(T));
    if (n == kPiece) {
      prefetch(numbers, kPiece * kSize);
    } else {
      prefetch(numbers, n * kSize);
    }
  }
  static float* data_of(const at::Tensor& table) {
    return table.defined() ? table.mutable_data_ptr<float>() : nullptr;
  }

  std::array<const float*, 3> wide_ = {};  // beside the rows, those of as many columns
  int num_wide_ = 0;
};

// The step of a piece that begins at column c, an even one: the random bits are those of the
// columns.
template <class Step>
Step at_column(Step step, std::int64_t c) {
  step.rounding_key += static_cast<std::uint32_t>(c / 2);
  return step;
}

// adamw_step() for many rows: the powers of most steps are computed once.
class AdamWSteps {
 public:
  explicit AdamWSteps(const RowAdamWParameters& p) : p_(p) {
    for (std::int64_t t = 0; t < kKept; ++t) steps_[t] = adamw_step(p, t + 1, 0);
  }
  kernels::AdamWStep operator()(std::int64_t t, std::int64_t slot) const {
    if (t < 1 || t > kKept) return adamw_step(p_, t, slot);
    kernels::AdamWStep step = steps_[t - 1];
    step.rounding_key = rounding_key(p_.rounding_seed, p_.part, slot);
    return step;
  }

 private:
  static constexpr std::int64_t kKept = 256;
  const RowAdamWParameters& p_;
  std::array<kernels::AdamWStep, kKept> steps_;
};

}  // namespace memlayers::ops
