// SPDX-License-Identifier: Apache-2.0
#include "nn/token_by_token.h"

#include <ATen/core/grad_mode.h>

#include <utility>

namespace memlayers::nn {
namespace {

thread_local bool is_on = false;

}  // namespace

TokenByToken::TokenByToken() : was_on_(std::exchange(is_on, true)) {}
TokenByToken::~TokenByToken() { is_on = was_on_; }

bool is_token_by_token(const at::Tensor& x) {
  return (is_on || x.numel() <= kFewTokens * x.size(-1)) && !at::GradMode::is_enabled() &&
         x.is_cpu();
}

}  // namespace memlayers::nn
