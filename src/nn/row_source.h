// SPDX-License-Identifier: Apache-2.0
// Where a pool's rows come from: its own table, in memory or in a file; rows of few bits; a store;
// the processes of a memory group. What is the same for all of them: one pair of functions for
// autograd.
#pragma once

#include <torch/types.h>

#include <functional>
#include <memory>

#include "memlayers/ops.h"
#include "memlayers/store.h"

namespace memlayers::nn {

class RowSource {
 public:
  virtual ~RowSource() = default;
  // As MemoryPool::gather and peer_gather, whose gradients they have.
  virtual at::Tensor gather(const at::Tensor& slots, const at::Tensor& weights) = 0;
  virtual at::Tensor peer_gather(const at::Tensor& x, const at::Tensor& slots,
                                 const at::Tensor& weights) = 0;
};

// Called with rows [..] int64 before they are read, as often as each was chosen.
using OnRead = std::function<void(const at::Tensor& rows)>;

// The rows of a store as they are when they are asked for.
std::unique_ptr<RowSource> store_rows(std::shared_ptr<StoreReader> store);
// `values`: those of the pool, bytes of `type` [slots, quantized_row_bytes(type, width)].
std::unique_ptr<RowSource> quantized_rows(const at::Tensor& values, RowType type,
                                          std::int64_t width, OnRead on_read);

// The rows that one call chose, and where their gradient goes. Shared with the call's graph, which
// may outlive the pool.
class RowRead {
 public:
  virtual ~RowRead() = default;
  // [T, width]: the sums of the rows by weights [T, J].
  virtual at::Tensor sums(const at::Tensor& weights) = 0;
  // What is wanted of a backward pass.
  struct Wanted {
    bool rows, weights;
  };
  // From grad, that of sums(weights): records the gradient of the rows; returns that of the
  // weights.
  virtual at::Tensor sums_backward(const at::Tensor& weights, const at::Tensor& grad,
                                   Wanted wanted) = 0;
  // PEER: [T, v_dim], and what backward needs of it besides; undefined for nothing.
  struct PeerSums {
    at::Tensor sums, products = {};
  };
  virtual PeerSums peer_sums(const at::Tensor& x, const at::Tensor& weights) = 0;
  struct PeerGradient {
    at::Tensor x, weights;
  };
  struct PeerInputs {
    at::Tensor x, weights, products;
  };
  virtual PeerGradient peer_backward(const PeerInputs& inputs, const at::Tensor& grad,
                                     bool wants_rows) = 0;
};

// `values` is an input only so that backward runs: its gradient goes where the read says.
// `slots` are those that the read was made of; that nobody changes them before backward is checked.
at::Tensor sums_of(const at::Tensor& values, const at::Tensor& slots, const at::Tensor& weights,
                   std::shared_ptr<RowRead> read);
at::Tensor peer_sums_of(const at::Tensor& values, const at::Tensor& x, const at::Tensor& slots,
                        const at::Tensor& weights, std::shared_ptr<RowRead> read);

}  // namespace memlayers::nn
