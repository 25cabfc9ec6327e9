// SPDX-License-Identifier: Apache-2.0
#include "nn/lookup_hook.h"

#include <utility>
#include <vector>

namespace memlayers::nn {
namespace {

thread_local const LookupHook::Act* living = nullptr;

}  // namespace

LookupHook::LookupHook(Act act) : act_(std::move(act)) { living = &act_; }
LookupHook::~LookupHook() { living = nullptr; }

void LookupHook::show(const MemoryLayerImpl& layer, const at::Tensor& slots,
                      const at::Tensor& weights) {
  if (living == nullptr) return;
  const MemoryConfig& config = layer.config();
  const std::vector<std::int64_t> by_head{slots.size(0), config.heads, config.knn};
  at::Tensor changeable = weights.view(by_head);
  (*living)(layer, slots.view(by_head), changeable);
}

}  // namespace memlayers::nn
