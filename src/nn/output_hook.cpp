// SPDX-License-Identifier: Apache-2.0
#include "nn/output_hook.h"

#include <utility>

namespace memlayers::nn {
namespace {

thread_local const OutputHook::Act* changing = nullptr;

}  // namespace

OutputHook::OutputHook(Act act) : act_(std::move(act)) { changing = &act_; }
OutputHook::~OutputHook() { changing = nullptr; }

at::Tensor OutputHook::given(const MemoryLayerImpl& layer, const at::Tensor& x,
                             const at::Tensor& y) {
  return changing == nullptr ? y : (*changing)(layer, x, y);
}

}  // namespace memlayers::nn
