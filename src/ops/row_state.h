// SPDX-License-Identifier: Apache-2.0
// What the row optimizers share: the checks of their tables and where a row's state lies.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/kernels.h"
#include "memlayers/ops.h"
#include "ops/check.h"
#include "ops/row_sums.h"

namespace memlayers::ops {

// A key of a row's random bits: all of the seed and of the slot enter.
inline std::uint32_t rounding_key(std::uint64_t seed, std::int64_t slot) {
  const auto s = static_cast<std::uint64_t>(slot);
  std::uint32_t key = kernels::hash32(static_cast<std::uint32_t>(seed));
  key = kernels::hash32(key ^ static_cast<std::uint32_t>(seed >> 32));
  key = kernels::hash32(key ^ static_cast<std::uint32_t>(s));
  return kernels::hash32(key ^ static_cast<std::uint32_t>(s >> 32));
}

// A table of the state, [S, W] like values, or [S].
inline void check_state(const char* op, const char* name, const at::Tensor& tensor,
                        at::IntArrayRef sizes, at::ScalarType type) {
  TORCH_CHECK_VALUE(tensor.defined(), op, ": expected ", name, " ", sizes, ", got none");
  check_type(op, name, tensor, {type});
  TORCH_CHECK_VALUE(tensor.sizes() == sizes && tensor.is_contiguous(), op, ": expected contiguous ",
                    name, " ", sizes, ", got ", tensor.sizes(), " with strides ", tensor.strides());
}

// values, the master copy where there is one, and the gradient's slots.
inline void check_values(const char* op, const at::Tensor& values, const RowState& state,
                         const at::Tensor& slots) {
  check_dim(op, "values", values, 2);
  check_type(op, "values", values, {at::kFloat, at::kBFloat16});
  TORCH_CHECK_VALUE(values.is_contiguous() && values.is_cpu(), op,
                    ": expected values contiguous on the CPU, got strides ", values.strides(),
                    " on ", values.device());
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
          .rounding_key = rounding_key(p.rounding_seed, slot)};
}

// What an update of a row reads and writes beside its gradient, asked for before it is needed.
template <class Row>
void prefetch_row(const Row* rows, const RowState& state, std::int64_t slot, std::int64_t width) {
  prefetch(rows + slot * width, width * static_cast<std::int64_t>(sizeof(Row)));
  for (const at::Tensor* table : {&state.exp_avg, &state.exp_avg_sq, &state.steps, &state.master}) {
    if (!table->defined()) continue;
    const auto bytes = table->stride(0) * static_cast<std::int64_t>(table->element_size());
    prefetch(static_cast<const char*>(table->const_data_ptr()) + slot * bytes, bytes);
  }
}

}  // namespace memlayers::ops
