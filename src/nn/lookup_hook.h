// SPDX-License-Identifier: Apache-2.0
// Watching what memory layers read, and leaving some of it out: for explanations.
#pragma once

#include <functional>

#include "memlayers/memory_layer.h"

namespace memlayers::nn {

// While it lives, every MemoryLayer::forward() of this thread shows it what it is about to read:
// slots and weights [T, H, k], of which the weights may be changed in place. One at a time a
// thread.
class LookupHook {
 public:
  using Act = std::function<void(const MemoryLayerImpl& layer, const at::Tensor& slots,
                                 at::Tensor& weights)>;
  explicit LookupHook(Act act);
  ~LookupHook();
  LookupHook(const LookupHook&) = delete;
  LookupHook& operator=(const LookupHook&) = delete;

  // What a layer does with all that it is about to read, [T, H * k]: nothing where no hook lives.
  static void show(const MemoryLayerImpl& layer, const at::Tensor& slots,
                   const at::Tensor& weights);

 private:
  Act act_;
};

}  // namespace memlayers::nn
