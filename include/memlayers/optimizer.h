// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "memlayers/config.h"
#include "memlayers/pool.h"

namespace memlayers {

// The pool's optimizer: AdamW (or SGD) on the rows that were read since the last step, and on no other
// ("lazy"). Consumes the pool's recorded gradient; state exists for the rows only.
//
//   RowAdamW optimizer(model->pool(), {.lr = 1e-3});
//   loss.backward();
//   double norm = optimizer.step();
class RowAdamW {
 public:
  struct Options {
    double lr = 1e-3;
    double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0;
    PoolOptimizer kind = PoolOptimizer::kAdamW;
    bool master_rows = false;  // keep a float32 copy of bfloat16 rows; else round stochastically
    std::uint64_t seed = 0;    // of stochastic rounding
  };
  RowAdamW(MemoryPool pool, const Options& options);

  struct StepResult {
    double gradient_norm = 0;       // before clipping, after `gradient_scale`
    std::int64_t touched_rows = 0;
  };
  // Applies and clears the pool's gradient, scaled by `gradient_scale` and clipped to norm `clip`. A
  // gradient that is not finite changes nothing; the norm says so.
  StepResult step(double lr, double gradient_scale = 1, std::optional<double> clip = {});
  // Norm of the pool's gradient now, without applying it.
  double gradient_norm(double gradient_scale = 1);

  RowState& state() { return state_; }
  std::int64_t steps() const { return steps_; }
  void set_steps(std::int64_t steps) { steps_ = steps; }
  const Options& options() const { return options_; }

 private:
  MemoryPool pool_{nullptr};
  Options options_;
  RowState state_;
  std::int64_t steps_ = 0;
};

}  // namespace memlayers
