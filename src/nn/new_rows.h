// SPDX-License-Identifier: Apache-2.0
// What a new pool's rows are: a row has the same bits in a pool of any size, on any number of
// threads and in any part of a memory group.
#pragma once

#include <functional>

#include "memlayers/pool.h"

namespace memlayers::nn {

// Fills a table of zeros, that of `part` of the pool (without a memory group: of slots one behind
// the other), with normal numbers as the options say; calls after_part() now and then, from several
// threads.
void fill_new_rows(at::Tensor& rows, const PoolOptions& options, const PoolPart& part,
                   const std::function<void()>& after_part);

}  // namespace memlayers::nn
