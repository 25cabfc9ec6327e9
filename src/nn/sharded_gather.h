// SPDX-License-Identifier: Apache-2.0
// MemoryPool's gathers where a memory group holds the pool, with their gradients.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "memlayers/ops.h"
#include "nn/pool_exchange.h"

namespace memlayers::nn {

struct ShardedRead {
  std::shared_ptr<PoolExchange::Call> call;
  PoolExchange::Rows rows;
  // Takes the gradient of this process's part that call `number` made.
  std::function<void(std::int64_t number, std::vector<FactoredGradient>)> record;
};

// `values` is an input only so that backward runs. weights [T, J], x [T, u_width].
at::Tensor sharded_gather(const at::Tensor& values, const at::Tensor& weights,
                          const ShardedRead& read);
at::Tensor sharded_peer_gather(const at::Tensor& values, const at::Tensor& x,
                               const at::Tensor& weights, const ShardedRead& read);

}  // namespace memlayers::nn
