// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "kernels/kernels.h"
#include "memlayers/row_updates.h"
#include "ops/gather/row_dispatch.h"
#include "ops/update/row_state.h"
#include "ops/update/row_sums.h"

namespace memlayers {
namespace {

using ops::at_column;
using ops::RowGradient;

// One step of every touched row without an average of its gradients:
// row = (1 - lr * weight_decay) * row - rate(u) * gradient_scale * gradient.
template <class Rate>
void step_by_rate(at::Tensor& values, const RowState& state, const GroupedGradient& gradient,
                  const RowAdamWParameters& p, const Rate& rate) {
  const std::int64_t W = values.size(1);
  const std::int64_t* slots = gradient.slots.const_data_ptr<std::int64_t>();
  const std::int64_t last = gradient.slots.numel() - 1;
  ops::dispatch_mutable_rows(values, [&]<class Row>(Row* rows) {
    const auto& kernel = kernels::active().rows<Row>();
    const ops::RowTables<Row> tables(rows, state, W);
    const std::int64_t ahead = tables.rows_ahead();
    ops::for_each_row(gradient, W, [&](std::int64_t u, const RowGradient& row_gradient) {
      const std::int64_t slot = slots[u], later = slots[std::min(u + ahead, last)];
      const kernels::SgdStep step{.decay = static_cast<float>(1 - p.lr * p.weight_decay),
                                  .lr = static_cast<float>(rate(u)),
                                  .gradient_scale = static_cast<float>(p.gradient_scale),
                                  .rounding_key = ops::rounding_key(p.rounding_seed, p.part, slot),
                                  .gradient_weight = row_gradient.weight};
      ops::for_pieces(W, [&](std::int64_t c, std::int64_t n) {
        tables.prefetch_piece(later, c, n);
        kernel.sgd(rows + slot * W + c, tables.at(tables.master, slot, c), row_gradient.numbers + c,
                   n, at_column(step, c));
      });
    });
  });
}

// Of each touched row's scaled gradient, over all columns of the pool. Most norms are known from
// the tokens': row_squares() costs less than one more pass over the numbers.
class MeanSquares {
 public:
  MeanSquares(const RowAdamWParameters& p, const GroupedGradient& gradient, std::int64_t width)
      : squares_(p.squares.defined() ? checked(p.squares, gradient) : row_squares(gradient, width)),
        square_(squares_.const_data_ptr<double>()),
        factor_(p.gradient_scale * p.gradient_scale /
                static_cast<double>(p.squares.defined() ? p.part.row_width : width)) {}
  double operator[](std::int64_t u) const { return factor_ * square_[u]; }

 private:
  static at::Tensor checked(const at::Tensor& squares, const GroupedGradient& gradient) {
    TORCH_CHECK_VALUE(squares.sizes() == gradient.slots.sizes() &&
                          squares.scalar_type() == at::kDouble && squares.is_contiguous(),
                      "row-wise update: expected squares ", gradient.slots.sizes(),
                      " of type Double, contiguous, got ", squares.sizes(), " of type ",
                      squares.scalar_type());
    return squares;
  }

  at::Tensor squares_;
  const double* square_;
  double factor_;
};

}  // namespace

void update_adamw(at::Tensor& values, RowState& state, const GroupedGradient& gradient,
                  const RowAdamWParameters& p) {
  ops::check_values("update_adamw", values, state, gradient.slots);
  ops::check_adamw_state("update_adamw", values, state);
  const std::int64_t W = values.size(1);
  const std::int64_t* slots = gradient.slots.const_data_ptr<std::int64_t>();
  const std::int64_t last = gradient.slots.numel() - 1;
  std::int32_t* steps = state.steps.mutable_data_ptr<std::int32_t>();
  const ops::AdamWSteps step_of(p);
  ops::dispatch_mutable_rows(values, [&]<class Row>(Row* rows) {
    const auto& kernel = kernels::active().rows<Row>();
    const ops::RowTables<Row> tables(rows, state, W);
    const std::int64_t ahead = tables.rows_ahead();
    ops::for_each_row(gradient, W, [&](std::int64_t u, const RowGradient& row_gradient) {
      const std::int64_t slot = slots[u], later = slots[std::min(u + ahead, last)];
      kernels::AdamWStep step = step_of(++steps[slot], slot);
      step.gradient_weight = row_gradient.weight;
      ops::for_pieces(W, [&](std::int64_t c, std::int64_t n) {
        tables.prefetch_piece(later, c, n);
        kernel.adamw(rows + slot * W + c, tables.at(tables.master, slot, c),
                     tables.at(tables.exp_avg, slot, c), tables.at(tables.exp_avg_sq, slot, c),
                     row_gradient.numbers + c, n, at_column(step, c));
      });
    });
  });
}

void update_rowwise_adamw(at::Tensor& values, RowState& state, const GroupedGradient& gradient,
                          const RowAdamWParameters& p) {
  constexpr const char* kName = "update_rowwise_adamw";
  ops::check_values(kName, values, state, gradient.slots);
  if (p.beta1 != 0) ops::check_state(kName, "exp_avg", state.exp_avg, values.sizes(), at::kFloat);
  const at::IntArrayRef rows_only = values.sizes().slice(0, 1);
  ops::check_state(kName, "exp_avg_sq", state.exp_avg_sq, rows_only, at::kFloat);
  ops::check_state(kName, "steps", state.steps, rows_only, at::kInt);
  const std::int64_t W = values.size(1);
  const std::int64_t* slots = gradient.slots.const_data_ptr<std::int64_t>();
  const std::int64_t last = gradient.slots.numel() - 1;
  std::int32_t* steps = state.steps.mutable_data_ptr<std::int32_t>();
  float* squares = state.exp_avg_sq.mutable_data_ptr<float>();
  const MeanSquares mean_squares(p, gradient, W);
  // Counts the step and returns lr / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps).
  const auto rate = [&](std::int64_t u) {
    const std::int64_t slot = slots[u];
    const double t = ++steps[slot];
    squares[slot] = static_cast<float>(p.beta2 * squares[slot] + (1 - p.beta2) * mean_squares[u]);
    return p.lr / (1 - std::pow(p.beta1, t)) /
           (std::sqrt(squares[slot] / (1 - std::pow(p.beta2, t))) + p.eps);
  };
  if (p.beta1 == 0) {
    step_by_rate(values, state, gradient, p, rate);
    return;
  }
  ops::dispatch_mutable_rows(values, [&]<class Row>(Row* rows) {
    const auto& kernel = kernels::active().rows<Row>();
    const ops::RowTables<Row> tables(rows, state, W);
    const std::int64_t ahead = tables.rows_ahead();
    ops::for_each_row(gradient, W, [&](std::int64_t u, const RowGradient& row_gradient) {
      const std::int64_t slot = slots[u], later = slots[std::min(u + ahead, last)];
      const kernels::MomentumStep step{
          .beta1 = static_cast<float>(p.beta1),
          .decay = static_cast<float>(1 - p.lr * p.weight_decay),
          .step_size = static_cast<float>(rate(u)),
          .gradient_scale = static_cast<float>(p.gradient_scale),
          .rounding_key = ops::rounding_key(p.rounding_seed, p.part, slot),
          .gradient_weight = row_gradient.weight};
      ops::for_pieces(W, [&](std::int64_t c, std::int64_t n) {
        tables.prefetch_piece(later, c, n);
        kernel.momentum(rows + slot * W + c, tables.at(tables.master, slot, c),
                        tables.at(tables.exp_avg, slot, c), row_gradient.numbers + c, n,
                        at_column(step, c));
      });
    });
  });
}

void update_rowwise_adagrad(at::Tensor& values, RowState& state, const GroupedGradient& gradient,
                            const RowAdamWParameters& p) {
  constexpr const char* kName = "update_rowwise_adagrad";
  ops::check_values(kName, values, state, gradient.slots);
  ops::check_state(kName, "exp_avg_sq", state.exp_avg_sq, values.sizes().slice(0, 1), at::kFloat);
  float* squares = state.exp_avg_sq.mutable_data_ptr<float>();
  const std::int64_t* slots = gradient.slots.const_data_ptr<std::int64_t>();
  const MeanSquares mean_squares(p, gradient, values.size(1));
  step_by_rate(values, state, gradient, p, [&](std::int64_t u) {
    const std::int64_t slot = slots[u];
    squares[slot] += static_cast<float>(mean_squares[u]);
    return p.lr / (std::sqrt(static_cast<double>(squares[slot])) + p.eps);
  });
}

void update_sgd(at::Tensor& values, RowState& state, const GroupedGradient& gradient,
                const RowAdamWParameters& p) {
  ops::check_values("update_sgd", values, state, gradient.slots);
  step_by_rate(values, state, gradient, p, [&](std::int64_t) { return p.lr; });
}

}  // namespace memlayers
