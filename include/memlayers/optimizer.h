// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "memlayers/config.h"
#include "memlayers/pool.h"

namespace memlayers {

// The pool's optimizer: one of PoolOptimizer, on the rows that were read since the last step.
// Consumes the pool's recorded gradient; state exists for the rows only.
//
// All kinds but kDenseAdamW are lazy: a row that was not read keeps its bits. kDenseAdamW gives
// what torch.optim.AdamW over the whole pool gives, up to the bound in docs/math.md, at the cost of
// the touched rows: the others lag, and catch up with all that they have missed when they are next
// touched, read by gather() or peer_gather(), or saved (a saved copy catches up, the pool itself
// does not, so that saving changes no bit of what follows). Whoever reads pool->values itself calls
// pool->catch_up() first. A pool has one such optimizer at a time; destroying it brings all rows up
// to date. In a memory group every process makes one, for its part of the pool, and calls step()
// and gradient_norm() when the others do.
//
//   RowOptimizer optimizer(model->pool(), {});
//   loss.backward();
//   double norm = optimizer.step(1e-3).gradient_norm;
class RowOptimizer {
 public:
  struct Options {
    double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0;
    PoolOptimizer kind = PoolOptimizer::kAdamW;
    bool master_rows = false;  // keep a float32 copy of bfloat16 rows; else round stochastically
    std::uint64_t seed = 0;    // of stochastic rounding
  };
  // Throws ValueError for kDenseAdamW with beta1 > 0.995 sqrt(beta2), eps < 1e-30 or a pool that is
  // not on the CPU.
  RowOptimizer(MemoryPool pool, const Options& options);
  ~RowOptimizer();
  RowOptimizer(const RowOptimizer&) = delete;
  RowOptimizer& operator=(const RowOptimizer&) = delete;

  struct StepResult {
    double gradient_norm = 0;  // before clipping, after `gradient_scale`; of the whole pool
    std::int64_t touched_rows = 0;
  };
  // Applies and clears the pool's gradient, scaled by `gradient_scale` and clipped to norm `clip`.
  // A gradient that is not finite changes nothing, and the step does not count; the norm says so.
  // An empty one is a step like any other: to a lazy optimizer nothing, to kDenseAdamW zeros.
  // kDenseAdamW: throws ValueError unless lr * weight_decay < 1.
  StepResult step(double lr, double gradient_scale = 1, std::optional<double> clip = {});
  // Norm of the pool's gradient now, without applying it.
  double gradient_norm(double gradient_scale = 1);

  RowState& state() { return state_; }  // updated in place; replace what it holds to restore a run
  std::int64_t steps() const { return steps_; }
  // kDenseAdamW: [n, 2] float64, learning rate and weight decay of the last n steps, those that
  // rows may still have to catch up with. With state(), the pool's rows and steps(), all that the
  // next steps depend on, bit for bit.
  at::Tensor missed_steps() const;
  // Restores a run; missed_steps only where it was kDenseAdamW's, else all rows count as current.
  void set_steps(std::int64_t steps, const at::Tensor& missed_steps = {});
  const Options& options() const { return options_; }

 private:
  MemoryPool pool_{nullptr};
  Options options_;
  RowState state_;
  std::int64_t steps_ = 0;
  class Lag;
  std::shared_ptr<Lag> lag_;                   // of kDenseAdamW
  std::shared_ptr<Communicator> row_sharers_;  // of the row-wise kinds in a group split by columns
};

using RowAdamW [[deprecated("use RowOptimizer")]] = RowOptimizer;

// AdamW [AdamW19] for everything but the pool: all tensors in one fused call. Weight decay is on
// matrices (two dimensions) only: not on norms, biases and the sub-keys of a memory layer. State is
// float32; parameters of another type keep a float32 master copy that the step is applied to.
//
//   DenseAdamW optimizer(model->dense_parameters(), {});
//   optimizer.zero_grad();
//   loss.backward();
//   double norm = optimizer.step(3e-4, 1.0);
class DenseAdamW {
 public:
  struct Options {
    double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1;
  };
  // Named tensors, updated in place; they must stay the same tensors. Throws ValueError for an
  // empty list.
  DenseAdamW(std::vector<std::pair<std::string, at::Tensor>> parameters, const Options& options);

  void zero_grad();
  // Euclidean norm of all gradients together; a tensor without one counts as zero.
  double gradient_norm() const;
  // One step, the gradient clipped to norm `clip` first; returns the norm before. Consumes the
  // gradients: their values are undefined afterwards. A norm that is not finite changes nothing.
  double step(double lr, std::optional<double> clip = {});
  // The same for a caller that asked for gradient_norm() already.
  void step_with_norm(double norm, double lr, std::optional<double> clip = {});

  // All that a later step depends on besides the parameters, by name ("exp_avg.<parameter>",
  // "exp_avg_sq.<parameter>", "master.<parameter>", "steps"): copy into these to restore a run.
  std::vector<std::pair<std::string, at::Tensor>> state() const;

 private:
  struct Group {  // of one weight decay
    double weight_decay;
    std::vector<std::string> names;
    std::vector<at::Tensor> parameters, targets, exp_avg,
        exp_avg_sq;  // targets: master or parameter
  };
  Options options_;
  std::vector<Group> groups_;
  at::Tensor steps_;  // [] float32, shared by all tensors
};

}  // namespace memlayers
