// SPDX-License-Identifier: Apache-2.0
// Measurements of the parts of a memory layer, each beside the limit that the machine sets or the
// work that it is compared with. docs/performance.md says what each figure is. Built into the
// command, not into the library.
#pragma once

#include <cstdint>

#include "bench/draw.h"
#include "bench/figures.h"
#include "bench/limits.h"
#include "memlayers/config.h"

namespace memlayers::bench {

struct Case {
  // Its [model] and [memory], and of [train] value_optimizer and master_rows. memory must be set.
  TrainConfig config;
  std::int64_t tokens = 1024;  // of a batch
  Distribution distribution;
  int repeat = 5;  // timed repetitions, after one that is not; at least 1
};

// Each takes its measurements one after the other on torch's threads, draws other numbers for each
// repetition, and throws Error where a case does not fit into the free memory.
Figures bench_lookup(const Case& c, Stream& stream);
Figures bench_gather(const Case& c, Stream& stream);
Figures bench_update(const Case& c, Stream& stream);
Figures bench_layer(const Case& c, Stream& stream);
Figures bench_step(const Case& c, Stream& stream);
// A whole decoder beside its dense twin: the same decoder with a feed-forward block wherever it has
// a memory layer.
Figures bench_decoder(const Case& c, Stream& stream);

}  // namespace memlayers::bench
