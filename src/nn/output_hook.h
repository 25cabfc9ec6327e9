// SPDX-License-Identifier: Apache-2.0
// Changing what memory layers give: for what a memory is compared with.
#pragma once

#include <functional>

#include "memlayers/memory_layer.h"

namespace memlayers::nn {

// While it lives, every MemoryLayer::forward() of this thread gives what it makes of x [T, dim] and
// the memory's own y [T, dim], of the same type. One at a time a thread.
class OutputHook {
 public:
  using Act = std::function<at::Tensor(const MemoryLayerImpl& layer, const at::Tensor& x,
                                       const at::Tensor& y)>;
  explicit OutputHook(Act act);
  ~OutputHook();
  OutputHook(const OutputHook&) = delete;
  OutputHook& operator=(const OutputHook&) = delete;

  // What the layer gives in the end: y where no hook lives.
  static at::Tensor given(const MemoryLayerImpl& layer, const at::Tensor& x, const at::Tensor& y);

 private:
  Act act_;
};

}  // namespace memlayers::nn
