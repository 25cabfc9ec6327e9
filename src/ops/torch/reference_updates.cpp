// SPDX-License-Identifier: Apache-2.0
// Grouping and row updates in plain ATen, for devices that have no kernel of ours.
#include <ATen/ATen.h>

#include <utility>
#include <vector>

#include "ops/torch/operators.h"

namespace memlayers::ops::composite {
namespace {

// The gradient of each touched row, [U, width] float32.
at::Tensor sums_of(at::TensorList weights, at::TensorList rows, at::IntArrayRef first_columns,
                   const at::Tensor& begin, const at::Tensor& entries, std::int64_t width) {
  const std::int64_t touched = begin.numel() - 1;
  const at::Tensor counts = begin.diff();
  const at::Tensor in_order =
      at::repeat_interleave(at::arange(touched, begin.options()), counts, 0, entries.numel());
  const at::Tensor of_entry = at::empty_like(entries).index_copy_(0, entries, in_order);
  at::Tensor sums = at::zeros({touched, width}, begin.options().dtype(at::kFloat));
  std::int64_t first = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const std::int64_t count = weights[i].numel(), columns = rows[i].size(1);
    sums.narrow(1, first_columns[i], columns)
        .index_add_(0, of_entry.narrow(0, first, count),
                    (weights[i].unsqueeze(2) * rows[i].unsqueeze(1)).reshape({count, columns}));
    first += count;
  }
  return sums;
}

// Arithmetic of 32 bits without a sign, in tensors of 64.
at::Tensor low_bits(const at::Tensor& x) { return x.bitwise_and(0xffffffffLL); }

at::Tensor hash32(at::Tensor x) {  // as kernels::hash32
  const auto shifted = [](const at::Tensor& y, std::int64_t bits) {
    return y.bitwise_xor(y.bitwise_right_shift(bits));
  };
  x = low_bits(shifted(x, 16) * 0x85ebca6bLL);
  x = low_bits(shifted(x, 13) * 0xc2b2ae35LL);
  return shifted(x, 16);
}

// [U, width] float32 to bfloat16 with the random bits of kernels.h, "rounded stochastically".
at::Tensor round_stochastically(const at::Tensor& x, const at::Tensor& slots, std::int64_t seed) {
  const auto bits_of_seed = static_cast<std::uint64_t>(seed);
  at::Tensor key = at::full_like(slots, static_cast<std::int64_t>(bits_of_seed & 0xffffffffU));
  key = hash32(key);
  key = hash32(key.bitwise_xor(static_cast<std::int64_t>(bits_of_seed >> 32)));
  key = hash32(key.bitwise_xor(low_bits(slots)));
  key = hash32(key.bitwise_xor(slots.bitwise_right_shift(32)));
  const at::Tensor column = at::arange(x.size(1), slots.options());
  const at::Tensor hash =
      hash32(low_bits(key.unsqueeze(1) + at::floor_divide(column, 2).unsqueeze(0)));
  const at::Tensor is_odd = column.remainder(2).to(at::kBool).unsqueeze(0);
  const at::Tensor random =
      at::where(is_odd, hash.bitwise_right_shift(16), hash.bitwise_and(0xffff));
  const at::Tensor bits = low_bits(x.contiguous().view(at::kInt).to(at::kLong)) + random;
  const at::Tensor kept = bits.bitwise_right_shift(16).bitwise_left_shift(16);
  const at::Tensor rounded = kept.to(at::kInt).view(at::kFloat);
  return at::where(x.isfinite(), rounded, x).to(at::kBFloat16);
}

// The touched rows in float32, before a step and after it.
class TouchedRows {
 public:
  TouchedRows(at::Tensor& values, const std::optional<at::Tensor>& master, const at::Tensor& slots)
      : values_(values), master_(master), slots_(slots) {}

  at::Tensor read() const {
    return (master_ ? *master_ : values_).index_select(0, slots_).to(at::kFloat);
  }
  void write(const at::Tensor& rows, std::int64_t rounding_seed) {
    if (master_) at::Tensor(*master_).index_copy_(0, slots_, rows);
    const bool is_rounded = values_.scalar_type() == at::kBFloat16 && !master_;
    values_.index_copy_(0, slots_,
                        is_rounded ? round_stochastically(rows, slots_, rounding_seed)
                                   : rows.to(values_.scalar_type()));
  }
  // The numbers of the touched rows in a table of the state.
  at::Tensor of(const at::Tensor& table) const { return table.index_select(0, slots_); }
  void set(at::Tensor& table, const at::Tensor& numbers) const {
    table.index_copy_(0, slots_, numbers.to(table.scalar_type()));
  }

 private:
  at::Tensor& values_;
  const std::optional<at::Tensor>& master_;
  const at::Tensor& slots_;
};

// 1 - beta^t for the steps t [U].
at::Tensor correction(double beta, const at::Tensor& t) {
  return 1 - at::pow(beta, t.to(at::kDouble));
}

}  // namespace

std::tuple<at::Tensor, at::Tensor, at::Tensor> group(at::TensorList slots, std::int64_t num_slots) {
  std::vector<at::Tensor> flat;
  for (const at::Tensor& part : slots) flat.push_back(part.flatten());
  const at::Tensor all = at::cat(flat);
  TORCH_CHECK_INDEX(all.numel() == 0 || (all.min().item<std::int64_t>() >= 0 &&
                                         all.max().item<std::int64_t>() < num_slots),
                    "group: expected slots in [0, ", num_slots, "), got others");
  const auto [sorted, entries] = at::sort(all, /*stable=*/true, 0, /*descending=*/false);
  const auto [touched, inverse, counts] =
      at::unique_consecutive(sorted, /*return_inverse=*/false, /*return_counts=*/true);
  return {touched, at::cat({at::zeros({1}, counts.options()), counts.cumsum(0)}), entries};
}

at::Tensor row_squares(at::TensorList weights, at::TensorList rows, at::IntArrayRef first_columns,
                       const at::Tensor&, const at::Tensor& begin, const at::Tensor& entries,
                       std::int64_t width) {
  return sums_of(weights, rows, first_columns, begin, entries, width)
      .to(at::kDouble)
      .square()
      .sum(1);
}

void update_adamw(at::Tensor& values, at::Tensor& exp_avg, at::Tensor& exp_avg_sq,
                  at::Tensor& steps, const std::optional<at::Tensor>& master,
                  at::TensorList weights, at::TensorList rows, at::IntArrayRef first_columns,
                  const at::Tensor& slots, const at::Tensor& begin, const at::Tensor& entries,
                  double lr, double beta1, double beta2, double eps, double weight_decay,
                  double gradient_scale, std::int64_t rounding_seed) {
  TouchedRows touched(values, master, slots);
  const at::Tensor g =
      sums_of(weights, rows, first_columns, begin, entries, values.size(1)) * gradient_scale;
  const at::Tensor t = touched.of(steps) + 1;
  const at::Tensor m = touched.of(exp_avg) * beta1 + g * (1 - beta1);
  const at::Tensor v = touched.of(exp_avg_sq) * beta2 + g * g * (1 - beta2);
  const at::Tensor size = (lr / correction(beta1, t)).to(at::kFloat).unsqueeze(1);
  const at::Tensor of_v = (1 / correction(beta2, t)).to(at::kFloat).unsqueeze(1);
  touched.set(steps, t);
  touched.set(exp_avg, m);
  touched.set(exp_avg_sq, v);
  touched.write(touched.read() * (1 - lr * weight_decay) - size * m / ((v * of_v).sqrt() + eps),
                rounding_seed);
}

void update_rowwise_adamw(at::Tensor& values, const std::optional<at::Tensor>& exp_avg,
                          at::Tensor& exp_avg_sq, at::Tensor& steps,
                          const std::optional<at::Tensor>& master, at::TensorList weights,
                          at::TensorList rows, at::IntArrayRef first_columns,
                          const at::Tensor& slots, const at::Tensor& begin,
                          const at::Tensor& entries, double lr, double beta1, double beta2,
                          double eps, double weight_decay, double gradient_scale,
                          std::int64_t rounding_seed) {
  TouchedRows touched(values, master, slots);
  const at::Tensor g =
      sums_of(weights, rows, first_columns, begin, entries, values.size(1)) * gradient_scale;
  const at::Tensor t = touched.of(steps) + 1;
  const at::Tensor squares = g.to(at::kDouble).square().mean(1);
  const at::Tensor v =
      (touched.of(exp_avg_sq).to(at::kDouble) * beta2 + squares * (1 - beta2)).to(at::kFloat);
  const at::Tensor root = (v.to(at::kDouble) / correction(beta2, t)).sqrt() + eps;
  const at::Tensor rate = (lr / correction(beta1, t) / root).to(at::kFloat).unsqueeze(1);
  at::Tensor direction = g;
  if (exp_avg && beta1 != 0) {
    at::Tensor table = *exp_avg;
    direction = touched.of(table) * beta1 + g * (1 - beta1);
    touched.set(table, direction);
  }
  touched.set(steps, t);
  touched.set(exp_avg_sq, v);
  touched.write(touched.read() * (1 - lr * weight_decay) - rate * direction, rounding_seed);
}

void update_rowwise_adagrad(at::Tensor& values, at::Tensor& exp_avg_sq,
                            const std::optional<at::Tensor>& master, at::TensorList weights,
                            at::TensorList rows, at::IntArrayRef first_columns,
                            const at::Tensor& slots, const at::Tensor& begin,
                            const at::Tensor& entries, double lr, double eps, double weight_decay,
                            double gradient_scale, std::int64_t rounding_seed) {
  TouchedRows touched(values, master, slots);
  const at::Tensor g =
      sums_of(weights, rows, first_columns, begin, entries, values.size(1)) * gradient_scale;
  const at::Tensor v = touched.of(exp_avg_sq) + g.to(at::kDouble).square().mean(1).to(at::kFloat);
  const at::Tensor rate = (lr / (v.to(at::kDouble).sqrt() + eps)).to(at::kFloat).unsqueeze(1);
  touched.set(exp_avg_sq, v);
  touched.write(touched.read() * (1 - lr * weight_decay) - rate * g, rounding_seed);
}

void update_sgd(at::Tensor& values, const std::optional<at::Tensor>& master, at::TensorList weights,
                at::TensorList rows, at::IntArrayRef first_columns, const at::Tensor& slots,
                const at::Tensor& begin, const at::Tensor& entries, double lr, double weight_decay,
                double gradient_scale, std::int64_t rounding_seed) {
  TouchedRows touched(values, master, slots);
  const at::Tensor g =
      sums_of(weights, rows, first_columns, begin, entries, values.size(1)) * gradient_scale;
  touched.write(touched.read() * (1 - lr * weight_decay) - g * lr, rounding_seed);
}

}  // namespace memlayers::ops::composite
