// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <tuple>

#include "memlayers/config.h"
#include "memlayers/linear.h"
#include "memlayers/pool.h"

namespace memlayers {

namespace nn {
class ProductKeys;
struct Asked;
}  // namespace nn

// A memory layer: product-key lookup and weighted sum of pool rows; docs/math.md and
// [MEM24] Sec. 2. forward(x): x [..., dim] -> [..., dim], of x's dtype; lookup and weights in
// float32.
//
//   MemoryPool pool(PoolOptions{.n_keys = 1024, .width = 512});
//   MemoryLayer layer(512, MemoryConfig{.n_keys = 1024}, pool);
//   auto y = layer->forward(x);
//
// Several layers may share one pool. Parameters: keys [H, 2, n_keys, k_dim/2]; query_proj; where
// configured value_proj, swilu_proj, gate_hidden, gate, query_norm and key_norm [k_dim] (learned
// scales). Variant kNgram has key_proj, value_proj, query_norm and key_norm [dim] alone.
// Throws ValueError when the pool's n_keys or width do not fit.
class MemoryLayerImpl : public torch::nn::Module {
 public:
  MemoryLayerImpl(std::int64_t dim, const MemoryConfig& config, MemoryPool pool);
  ~MemoryLayerImpl() override;

  // Draws all weights but the pool's anew, from torch's global generator.
  void reset_parameters();

  // `rows`: a snapshot of the pool's store, as in MemoryPool::gather, whose sub-keys are looked up
  // too. Absent: for a pool that reads a store, how it is now. `continues`: x are later tokens of
  // sequences of which this layer has seen the earlier ones, with the same weights. Then it is not
  // asked again, at the cost of reading all sub-keys, whether they are those that it has copies of
  // (select). `suffixes`: for variant kNgram, and needed there, the token of each x and the knn
  // before it, the nearest first, [T, knn + 1] int64, -1 where there is none.
  at::Tensor forward(const at::Tensor& x, const Snapshot* rows = nullptr, bool continues = false,
                     const at::Tensor& suffixes = {});

  // The slots and softmax weights of the tokens x [T, dim]: both [T, H, k]; what forward reads. A
  // few tokens without gradient (decoding) read the sub-keys in 8 bits first, a copy that is kept
  // from call to call until the sub-keys change, whoever changes them; the result is exact (ops.h,
  // PackedKeys). `rows`: of forward. Throws ValueError for variant kNgram, which has no keys.
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
  double output_scale = 1;  // of the weighted sum: one of MemoryConfig::output_scales
  torch::Tensor keys;
  Linear query_proj{nullptr}, value_proj{nullptr}, swilu_proj{nullptr};
  Linear gate_hidden{nullptr}, gate{nullptr};  // the first where gate_dim says so
  Linear key_proj{nullptr};                    // of kNgram alone
  torch::Tensor query_norm, key_norm;          // undefined without qk-norm; kNgram: [dim]

 private:
  void make_lookup();   // the parameters of keys and queries, and of their norms
  void reset_lookup();  // draws them
  std::tuple<at::Tensor, at::Tensor> look_up(const at::Tensor& x, const Snapshot* rows);
  // What stands before the rows of x [T, dim], which are on their way then.
  nn::Asked ask(const at::Tensor& x, const Snapshot* rows);
  nn::Asked hash(const at::Tensor& suffixes, std::int64_t tokens);  // the same of kNgram
  at::Tensor opened(const at::Tensor& x, const at::Tensor& y);      // its gate, [T, 1]
  // The weighted sums [T, width] of rows; slots and weights [T, H * k].
  at::Tensor sum_rows(const at::Tensor& x, const at::Tensor& slots, const at::Tensor& weights,
                      const Snapshot* rows);

  std::int64_t dim_;
  MemoryConfig config_;
  MemoryPool pool_{nullptr};
  std::unique_ptr<nn::ProductKeys> product_keys_;
};
TORCH_MODULE(MemoryLayer);

}  // namespace memlayers
