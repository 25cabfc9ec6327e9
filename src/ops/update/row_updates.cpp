// SPDX-License-Identifier: Apache-2.0
// Grouping and row updates as operators on the CPU: their arguments are what GroupedGradient,
// RowState and RowAdamWParameters hold.
#include <ATen/ops/empty.h>

#include "memlayers/row_updates.h"
#include "ops/torch/check.h"
#include "ops/torch/operators.h"

namespace memlayers::ops::cpu {
namespace {

// What group() gave, from tensors that may come from anywhere: nothing outside them is read.
GroupedGradient grouped(const char* op, at::TensorList weights, at::TensorList rows,
                        at::IntArrayRef first_columns, const at::Tensor& slots,
                        const at::Tensor& begin, const at::Tensor& entries) {
  GroupedGradient gradient;
  std::int64_t count = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    gradient.contributions.push_back(
        {{}, weights[i].contiguous(), rows[i].contiguous(), first_columns[i]});
    count += weights[i].numel();
  }
  gradient.slots = slots.contiguous();
  gradient.begin = begin.contiguous();
  gradient.entries = entries.contiguous();
  check_slots(op, gradient.entries, count);
  const auto* first = gradient.begin.const_data_ptr<std::int64_t>();
  const auto* slot = gradient.slots.const_data_ptr<std::int64_t>();
  const std::int64_t touched = gradient.slots.numel();
  bool is_right = first[0] == 0 && first[touched] == entries.numel();
  for (std::int64_t u = 0; u < touched; ++u) {
    is_right = is_right && first[u] < first[u + 1] && (u == 0 || slot[u - 1] < slot[u]);
  }
  TORCH_CHECK_VALUE(is_right, op,
                    ": expected slots, begin and entries as group gives them, got others");
  return gradient;
}

RowState state_of(const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq, const at::Tensor& steps,
                  const std::optional<at::Tensor>& master) {
  return {exp_avg, exp_avg_sq, steps, master.value_or(at::Tensor())};
}

}  // namespace

std::tuple<at::Tensor, at::Tensor, at::Tensor> group(at::TensorList slots, std::int64_t num_slots) {
  std::vector<FactoredGradient> parts;
  for (const at::Tensor& part : slots) {
    // Of no columns: only their order is asked for.
    parts.push_back({part, at::empty(part.sizes(), part.options().dtype(at::kFloat)),
                     at::empty({part.size(0), 0}, part.options().dtype(at::kFloat))});
  }
  GroupedGradient gradient = memlayers::group(std::move(parts), num_slots, /*width=*/0);
  return {gradient.slots, gradient.begin, gradient.entries};
}

at::Tensor row_squares(at::TensorList weights, at::TensorList rows, at::IntArrayRef first_columns,
                       const at::Tensor& slots, const at::Tensor& begin, const at::Tensor& entries,
                       std::int64_t width) {
  return memlayers::row_squares(
      grouped("row_squares", weights, rows, first_columns, slots, begin, entries), width);
}

void update_adamw(at::Tensor& values, at::Tensor& exp_avg, at::Tensor& exp_avg_sq,
                  at::Tensor& steps, const std::optional<at::Tensor>& master,
                  at::TensorList weights, at::TensorList rows, at::IntArrayRef first_columns,
                  const at::Tensor& slots, const at::Tensor& begin, const at::Tensor& entries,
                  double lr, double beta1, double beta2, double eps, double weight_decay,
                  double gradient_scale, std::int64_t rounding_seed) {
  RowState state = state_of(exp_avg, exp_avg_sq, steps, master);
  memlayers::update_adamw(
      values, state, grouped("update_adamw", weights, rows, first_columns, slots, begin, entries),
      {.lr = lr,
       .beta1 = beta1,
       .beta2 = beta2,
       .eps = eps,
       .weight_decay = weight_decay,
       .gradient_scale = gradient_scale,
       .rounding_seed = static_cast<std::uint64_t>(rounding_seed)});
}

void update_rowwise_adamw(at::Tensor& values, const std::optional<at::Tensor>& exp_avg,
                          at::Tensor& exp_avg_sq, at::Tensor& steps,
                          const std::optional<at::Tensor>& master, at::TensorList weights,
                          at::TensorList rows, at::IntArrayRef first_columns,
                          const at::Tensor& slots, const at::Tensor& begin,
                          const at::Tensor& entries, double lr, double beta1, double beta2,
                          double eps, double weight_decay, double gradient_scale,
                          std::int64_t rounding_seed) {
  RowState state = state_of(exp_avg.value_or(at::Tensor()), exp_avg_sq, steps, master);
  memlayers::update_rowwise_adamw(
      values, state,
      grouped("update_rowwise_adamw", weights, rows, first_columns, slots, begin, entries),
      {.lr = lr,
       .beta1 = beta1,
       .beta2 = beta2,
       .eps = eps,
       .weight_decay = weight_decay,
       .gradient_scale = gradient_scale,
       .rounding_seed = static_cast<std::uint64_t>(rounding_seed)});
}

void update_rowwise_adagrad(at::Tensor& values, at::Tensor& exp_avg_sq,
                            const std::optional<at::Tensor>& master, at::TensorList weights,
                            at::TensorList rows, at::IntArrayRef first_columns,
                            const at::Tensor& slots, const at::Tensor& begin,
                            const at::Tensor& entries, double lr, double eps, double weight_decay,
                            double gradient_scale, std::int64_t rounding_seed) {
  RowState state = state_of({}, exp_avg_sq, {}, master);
  memlayers::update_rowwise_adagrad(
      values, state,
      grouped("update_rowwise_adagrad", weights, rows, first_columns, slots, begin, entries),
      {.lr = lr,
       .eps = eps,
       .weight_decay = weight_decay,
       .gradient_scale = gradient_scale,
       .rounding_seed = static_cast<std::uint64_t>(rounding_seed)});
}

void update_sgd(at::Tensor& values, const std::optional<at::Tensor>& master, at::TensorList weights,
                at::TensorList rows, at::IntArrayRef first_columns, const at::Tensor& slots,
                const at::Tensor& begin, const at::Tensor& entries, double lr, double weight_decay,
                double gradient_scale, std::int64_t rounding_seed) {
  RowState state = state_of({}, {}, {}, master);
  memlayers::update_sgd(values, state,
                        grouped("update_sgd", weights, rows, first_columns, slots, begin, entries),
                        {.lr = lr,
                         .weight_decay = weight_decay,
                         .gradient_scale = gradient_scale,
                         .rounding_seed = static_cast<std::uint64_t>(rounding_seed)});
}

}  // namespace memlayers::ops::cpu
