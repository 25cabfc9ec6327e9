// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/kernels.h"
#include "memlayers/ops.h"
#include "ops/check.h"
#include "ops/row_dispatch.h"
#include "ops/row_sums.h"

namespace memlayers {
namespace {

// A key of a row's random bits: all of the seed and of the slot enter.
std::uint32_t rounding_key(std::uint64_t seed, std::int64_t slot) {
  const auto s = static_cast<std::uint64_t>(slot);
  std::uint32_t key = kernels::hash32(static_cast<std::uint32_t>(seed));
  key = kernels::hash32(key ^ static_cast<std::uint32_t>(seed >> 32));
  key = kernels::hash32(key ^ static_cast<std::uint32_t>(s));
  return kernels::hash32(key ^ static_cast<std::uint32_t>(s >> 32));
}

void check_state_tensor(const char* op, const char* name, const at::Tensor& tensor,
                        const at::Tensor& values) {
  ops::check_type(op, name, tensor, {at::kFloat});
  ops::check_same_shape(op, name, tensor, "values", values);
  TORCH_CHECK_VALUE(tensor.is_contiguous(), op, ": expected ", name, " contiguous, got strides ",
                    tensor.strides());
}

void check_values(const char* op, const at::Tensor& values, const RowState& state,
                  const GroupedGradient& gradient) {
  ops::check_dim(op, "values", values, 2);
  ops::check_type(op, "values", values, {at::kFloat, at::kBFloat16});
  TORCH_CHECK_VALUE(values.is_contiguous() && values.is_cpu(), op,
                    ": expected values contiguous on the CPU, got strides ", values.strides(),
                    " on ", values.device());
  if (state.master.defined()) {
    check_state_tensor(op, "master", state.master, values);
    TORCH_CHECK_VALUE(values.scalar_type() == at::kBFloat16, op,
                      ": expected a master copy for bfloat16 rows only, got values of type ",
                      values.scalar_type());
  }
  if (gradient.slots.numel() > 0) ops::check_slots(op, gradient.slots, values.size(0));
}

// What an update of a row reads and writes beside its gradient.
template <class Row>
void prefetch_row(const Row* rows, const RowState& state, std::int64_t slot, std::int64_t width) {
  ops::prefetch(rows + slot * width, width * static_cast<std::int64_t>(sizeof(Row)));
  for (const at::Tensor* table : {&state.exp_avg, &state.exp_avg_sq, &state.steps, &state.master}) {
    if (!table->defined()) continue;
    const auto bytes = static_cast<std::int64_t>(table->stride(0) * table->element_size());
    ops::prefetch(static_cast<const char*>(table->const_data_ptr()) + slot * bytes, bytes);
  }
}

float* row_of(const at::Tensor& table, std::int64_t slot) {
  return table.defined() ? table.mutable_data_ptr<float>() + slot * table.size(1) : nullptr;
}

}  // namespace

void update_adamw(at::Tensor& values, RowState& state, const GroupedGradient& gradient,
                  const RowAdamWParameters& p) {
  check_values("update_adamw", values, state, gradient);
  check_state_tensor("update_adamw", "exp_avg", state.exp_avg, values);
  check_state_tensor("update_adamw", "exp_avg_sq", state.exp_avg_sq, values);
  ops::check_type("update_adamw", "steps", state.steps, {at::kInt});
  TORCH_CHECK_VALUE(state.steps.dim() == 1 && state.steps.size(0) == values.size(0) &&
                        state.steps.is_contiguous(),
                    "update_adamw: expected contiguous steps [", values.size(0), "], got ",
                    state.steps.sizes(), " with strides ", state.steps.strides());
  const std::int64_t W = values.size(1);
  const std::int64_t* slots = gradient.slots.const_data_ptr<std::int64_t>();
  std::int32_t* steps = state.steps.mutable_data_ptr<std::int32_t>();
  ops::dispatch_mutable_rows(values, [&]<class Row>(Row* rows) {
    const auto& kernel = kernels::active().rows<Row>();
    ops::for_each_row(
        gradient, W,
        [&](std::int64_t u, const float* row_gradient) {
          const std::int64_t slot = slots[u];
          const int t = ++steps[slot];
          const kernels::AdamWStep step{
              .beta1 = static_cast<float>(p.beta1),
              .beta2 = static_cast<float>(p.beta2),
              .eps = static_cast<float>(p.eps),
              .decay = static_cast<float>(1 - p.lr * p.weight_decay),
              .step_size = static_cast<float>(p.lr / (1 - std::pow(p.beta1, t))),
              .v_correction = static_cast<float>(1 / (1 - std::pow(p.beta2, t))),
              .gradient_scale = static_cast<float>(p.gradient_scale),
              .rounding_key = rounding_key(p.rounding_seed, slot)};
          kernel.adamw(rows + slot * W, row_of(state.master, slot), row_of(state.exp_avg, slot),
                       row_of(state.exp_avg_sq, slot), row_gradient, W, step);
        },
        [&](std::int64_t u) { prefetch_row(rows, state, slots[u], W); });
  });
}

void update_sgd(at::Tensor& values, RowState& state, const GroupedGradient& gradient,
                const RowAdamWParameters& p) {
  check_values("update_sgd", values, state, gradient);
  const std::int64_t W = values.size(1);
  const std::int64_t* slots = gradient.slots.const_data_ptr<std::int64_t>();
  ops::dispatch_mutable_rows(values, [&]<class Row>(Row* rows) {
    const auto& kernel = kernels::active().rows<Row>();
    ops::for_each_row(
        gradient, W,
        [&](std::int64_t u, const float* row_gradient) {
          const std::int64_t slot = slots[u];
          const kernels::SgdStep step{.decay = static_cast<float>(1 - p.lr * p.weight_decay),
                                      .lr = static_cast<float>(p.lr),
                                      .gradient_scale = static_cast<float>(p.gradient_scale),
                                      .rounding_key = rounding_key(p.rounding_seed, slot)};
          kernel.sgd(rows + slot * W, row_of(state.master, slot), row_gradient, W, step);
        },
        [&](std::int64_t u) { prefetch_row(rows, state, slots[u], W); });
  });
}

}  // namespace memlayers
