// SPDX-License-Identifier: Apache-2.0
// What a memory layer's lookup compares: queries and sub-keys as they are scored, the sub-keys of
// one version of the pool's store, and their copy in 8 bits that decoding reads.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "memlayers/memory_layer.h"
#include "memlayers/ops.h"

namespace memlayers::nn {

// Norm of query halves and sub-keys; added under the root.
constexpr double kNormEps = 1e-6;

// [H, 2, n, k_dim/2] float32: sub-keys of the layer, its own or those of a version (keys_of), as
// they are scored: those that are open; normalised where the layer does so.
at::Tensor scored_keys(const MemoryLayerImpl& layer, const at::Tensor& layer_keys);

// The same for queries as the layer's query_proj gives them, [T, h, k_dim] of any number h of
// heads.
at::Tensor scored_query(const MemoryLayerImpl& layer, const at::Tensor& projected);

// Writes those of the sub-keys that are this layer's into `keys` [H, 2, n_keys, k_dim/2], of any
// type. Throws Error where they do not fit.
void write_sub_keys(const SubKeys& sub_keys, std::int64_t layer, at::Tensor& keys);

// Copies made of a layer's sub-keys, each once for a version of the pool's store and kept as long
// as that version is read. They are compared with the sub-keys whenever one asks that does not
// continue: torch counts the changes of a tensor, but not those of its fused optimizers nor those
// through .data. May be called from several threads, not while weights change.
class ProductKeys {
 public:
  explicit ProductKeys(const MemoryLayerImpl& layer);  // which must outlive it
  ~ProductKeys();

  // As MemoryLayer::keys_of.
  at::Tensor of(const Snapshot* rows) const;
  // What decoding reads of scored_keys(layer, of(rows)).
  std::shared_ptr<const PackedKeys> packed(const Snapshot* rows) const;
  // The sub-keys may have changed since: the copies are compared with them before their next use,
  // which costs reading all sub-keys once.
  void expect_change() const;
  void forget() const;  // all copies

 private:
  struct Copy;
  std::shared_ptr<const SubKeys> patched(const Snapshot* rows) const;
  // `patched` may be null: the layer's own. Requires mutex_.
  Copy& copy_of(const std::shared_ptr<const SubKeys>& patched) const;
  void drop_stale() const;  // requires mutex_

  const MemoryLayerImpl& layer_;
  mutable std::mutex mutex_;  // guards what is below
  mutable std::vector<std::unique_ptr<Copy>> copies_;
  // Of the weights that copies_ are made of: where each lies and how often torch saw it change; and
  // a hash of their content.
  struct Stamp {
    const void* data = nullptr;
    std::int64_t version = 0;
    bool operator==(const Stamp&) const = default;
  };
  static Stamp stamp_of(const at::Tensor& tensor);
  mutable Stamp keys_stamp_, norm_stamp_;
  mutable std::uint64_t content_ = 0;
  mutable bool is_compared_ = false;  // since expect_change()
};

}  // namespace memlayers::nn
