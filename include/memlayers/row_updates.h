// SPDX-License-Identifier: Apache-2.0
// The gradient of pool rows and the steps of optimizers on the rows that have one. Legend of
// shapes, errors and what is said of threads and devices: ops.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "memlayers/parallel.h"

namespace memlayers {

// A gradient of pool rows that is never materialised: row s has, in columns [first_column,
// first_column + rows.size(1)), the sum over all (t, j) with slots[t, j] == s of weights[t, j] *
// rows[t]. slots [T, J] int64, weights [T, J] float32, rows [T, w] float32.
struct FactoredGradient {
  at::Tensor slots, weights, rows;
  std::int64_t first_column = 0;
};

// The same as a dense [num_slots, width] float32 tensor; for tests and small pools.
at::Tensor to_dense(const std::vector<FactoredGradient>& gradient, std::int64_t num_slots,
                    std::int64_t width);

// The contributions of many FactoredGradients put in order by slot: the touched slots, ascending,
// and for each the entries that make its gradient, in the order in which they came.
struct GroupedGradient {
  std::vector<FactoredGradient> contributions;
  at::Tensor slots;    // [U] int64, ascending, each once
  at::Tensor begin;    // [U + 1] int64: entries of slots[u] are [begin[u], begin[u + 1])
  at::Tensor entries;  // [E] int64: flat index over the contributions' weights, in order
};
GroupedGradient group(std::vector<FactoredGradient> contributions, std::int64_t num_slots,
                      std::int64_t width);
// Euclidean norm of the whole gradient, summed in float64 in slot order; never materialised.
double norm(const GroupedGradient& gradient, std::int64_t width);
double squared_norm(const GroupedGradient& gradient, std::int64_t width);
// [U] float64: the squared norm of each touched row's gradient.
at::Tensor row_squares(const GroupedGradient& gradient, std::int64_t width);

// What a row optimizer keeps, only for the rows: tables of as many rows as the pool. What an
// optimizer does not use is undefined.
struct RowState {
  at::Tensor exp_avg;     // [S, W] float32: running mean of the gradient
  at::Tensor exp_avg_sq;  // [S, W] float32: of its square; [S]: one number a row (row-wise)
  at::Tensor steps;       // [S] int32: how often the row was updated; dense AdamW: the step that
                          // the row is current to, 0 for a row that never had a gradient
  at::Tensor master;      // [S, W] float32: what a bfloat16 row is rounded from
};

struct RowAdamWParameters {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0;
  double gradient_scale = 1;  // multiplies the gradient first: clipping, averaging
  std::uint64_t rounding_seed =
      0;  // bfloat16 without master: stochastic rounding by (seed, slot, column)
  // Of a pool that a memory group holds: which part of it values are, so that what depends on slot
  // and column is what it would be in the whole; and of the row-wise optimizers, row_squares() of
  // the whole rows. Absent: values are the whole pool.
  PoolPart part = {};
  at::Tensor squares = {};
};

// One AdamW step [AdamW19] on the touched rows only, in place; bias correction by the row's own
// count of updates. Rows that are not touched keep their bits, values and state.
void update_adamw(at::Tensor& values, RowState& state, const GroupedGradient& gradient,
                  const RowAdamWParameters& parameters);
// The same with one second moment a row: v = beta2 v + (1 - beta2) mean over the row of g^2, state
// exp_avg, exp_avg_sq [S] and steps. With beta1 = 0 there is no exp_avg, and the state is eight
// bytes a row: v, and the count that its bias correction needs.
void update_rowwise_adamw(at::Tensor& values, RowState& state, const GroupedGradient& gradient,
                          const RowAdamWParameters& parameters);
// Row-wise Adagrad [Adagrad11], as FBGEMM's EXACT_ROWWISE_ADAGRAD, with decoupled weight decay: v
// += mean over the row of g^2; row = (1 - lr * weight_decay) * row - lr / (sqrt(v) + eps) * g.
// State: exp_avg_sq [S]; betas are not used.
void update_rowwise_adagrad(at::Tensor& values, RowState& state, const GroupedGradient& gradient,
                            const RowAdamWParameters& parameters);
// The touched rows become (1 - lr * weight_decay) * values - lr * gradient_scale * gradient.
void update_sgd(at::Tensor& values, RowState& state, const GroupedGradient& gradient,
                const RowAdamWParameters& parameters);

}  // namespace memlayers
