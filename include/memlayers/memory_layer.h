// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include "memlayers/config.h"
#include "memlayers/pool.h"

namespace memlayers {

// A memory layer: product-key lookup and weighted sum of pool rows; DESIGN.md, "The layer", and
// [MEM24] Sec. 2. forward(x): x [..., dim] -> [..., dim], of x's dtype; lookup and weights in
// float32.
//
//   MemoryPool pool(PoolOptions{.n_keys = 1024, .width = 512});
//   MemoryLayer layer(512, MemoryConfig{.n_keys = 1024}, pool);
//   auto y = layer->forward(x);
//
// Several layers may share one pool. Parameters: keys [H, 2, n_keys, k_dim/2]; query_proj; where
// configured value_proj, swilu_proj, gate, query_norm and key_norm [k_dim] (learned scales).
// Throws ValueError when the pool's n_keys or width do not fit.
class MemoryLayerImpl : public torch::nn::Module {
 public:
  MemoryLayerImpl(std::int64_t dim, const MemoryConfig& config, MemoryPool pool);
  ~MemoryLayerImpl() override;

  // `rows`: a snapshot of the pool's store, as in MemoryPool::gather, whose sub-keys are looked up
  // too. Absent: for a pool that reads a store, how it is now.
  at::Tensor forward(const at::Tensor& x, const Snapshot* rows = nullptr);

  // The slots and softmax weights of the tokens x [T, dim]: both [T, H, k]; what forward reads. A
  // few tokens without gradient (decoding) read the sub-keys in 8 bits first, kept from call to
  // call until the sub-keys change; the result is exact (ops.h, PackedKeys). `rows`: of forward.
  std::tuple<at::Tensor, at::Tensor> select(const at::Tensor& x, const Snapshot* rows = nullptr);

  // `keys` with the sub-keys that patches write in this version of the pool's store instead; `keys`
  // itself where they write none of this layer, or without a version. May be called from several
  // threads.
  at::Tensor keys_of(const Snapshot* rows) const;

  // From now on lookups see all sub-keys, those of a growth as well (MemoryConfig::open_keys). Not
  // while others call forward().
  void open_keys();

  const MemoryConfig& config() const { return config_; }
  MemoryPool pool() const { return pool_; }

  std::int64_t number = 0;  // of the decoder layer: patches of sub-keys name it
  torch::Tensor keys;
  torch::nn::Linear query_proj{nullptr}, value_proj{nullptr}, swilu_proj{nullptr}, gate{nullptr};
  torch::Tensor query_norm, key_norm;  // undefined without qk-norm

 private:
  // The sub-keys of one version of the pool's store: made once, kept as long as it is read.
  struct CachedKeys;
  // `patched` may be null: the layer's own. Requires cache_mutex_.
  CachedKeys& cached(const std::shared_ptr<const SubKeys>& patched) const;
  // What patches write of this layer's; or null.
  std::shared_ptr<const SubKeys> patched(const Snapshot* rows) const;
  std::shared_ptr<const PackedKeys> packed_keys(const Snapshot* rows) const;

  // forward() of x [T, dim], with each operator by itself; and of a few tokens without gradient
  // (decoding), whose cost is reading the weights, in as few parallel parts as can be.
  at::Tensor forward_of_many(const at::Tensor& x, const Snapshot* rows);
  at::Tensor forward_of_few(const at::Tensor& x, const Snapshot* rows);
  bool is_few(const at::Tensor& x) const;
  // The weighted sums [T, width] of rows; slots and weights [T, H * k].
  at::Tensor sum_rows(const at::Tensor& x, const at::Tensor& slots, const at::Tensor& weights,
                      const Snapshot* rows);

  std::int64_t dim_;
  MemoryConfig config_;
  MemoryPool pool_{nullptr};
  mutable std::mutex cache_mutex_;  // guards what is below: forward may run in several threads
  mutable std::vector<std::unique_ptr<CachedKeys>> cache_;
};
TORCH_MODULE(MemoryLayer);

}  // namespace memlayers
