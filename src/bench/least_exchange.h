// SPDX-License-Identifier: Apache-2.0
// What training over several processes must send, counted from the sizes alone.
#pragma once

#include <cstdint>
#include <vector>

#include "memlayers/config.h"
#include "memlayers/parallel.h"

namespace memlayers::bench {

struct StepExchange {
  double pool_bytes = 0;   // sent by a process in a step, for its pool
  double dense_bytes = 0;  // and for the sums of the dense gradients
  double rounds = 0;       // of questions and answers, one after the other
  double bytes() const { return pool_bytes + dense_bytes; }
};

// Widths of what stands side by side in a row and is cut by itself: one, or PEER's U and V.
std::vector<std::int64_t> row_sections(const ModelConfig& model);
// As a pool of this model is split where [parallel] split is "auto".
PoolSplit automatic_split(const ModelConfig& model, int processes);

// The least that the method needs in a step of `tokens` tokens over all processes of one memory
// group: a process sends each slot and weight that its tokens chose (4 bytes each) to every other
// process that holds a part of the row, gets back that part of the sum (float32), sends that part
// of the sum's gradient and gets a part of each weight's gradient (4 bytes). PEER: the inputs' part
// and their dots with U before it, the factors of U and the inputs' gradient after it. A dense
// gradient (float32) goes out once as parts and comes back once as sums: 2 (R - 1) / R of all.
// Headers, norms and losses are not counted. `model` may have no memory layers.
StepExchange least_exchange(const ModelConfig& model, double dense_parameters, double tokens,
                            PoolSplit split);

}  // namespace memlayers::bench
