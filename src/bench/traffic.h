// SPDX-License-Identifier: Apache-2.0
// What training over several processes must send, counted from the sizes alone.
#pragma once

#include <cstdint>

#include "memlayers/config.h"
#include "memlayers/parallel.h"

namespace memlayers::bench {

struct StepTraffic {
  double pool_bytes = 0;   // sent by a process in a step, for its pool
  double dense_bytes = 0;  // and for the sums of the dense gradients
  double rounds = 0;       // of questions and answers, one after the other
  double bytes() const { return pool_bytes + dense_bytes; }
};

// The least that the method needs in a step of `tokens` tokens over all processes of one memory
// group: a process sends each slot and weight that its tokens chose (4 bytes each) to every other
// process that holds a part of the row, gets back that part of the sum (float32), sends that part
// of the sum's gradient and gets a part of each weight's gradient (4 bytes). A dense gradient
// (float32) goes out once as parts and comes back once as sums: 2 (R - 1) / R of all. Headers,
// norms and losses are not counted. Throws Error for the variant "peer".
StepTraffic least_traffic(const ModelConfig& model, double dense_parameters, double tokens,
                          PoolSplit split);

}  // namespace memlayers::bench
