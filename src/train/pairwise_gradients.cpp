// SPDX-License-Identifier: Apache-2.0
#include "train/pairwise_gradients.h"

#include <torch/utils.h>

#include <bit>

namespace memlayers::train {

PairwiseGradients::PairwiseGradients(
    const std::vector<std::pair<std::string, at::Tensor>>& parameters) {
  for (const auto& [name, parameter] : parameters) {
    numbers_.emplace(parameter.unsafeGetTensorImpl(), parameters_.size());
    parameters_.push_back({parameter, {}});
  }
}

// A gradient that is undefined is of micro-batches without any.
void PairwiseGradients::Parameter::add_last_sum() {
  at::Tensor& gradient = parameter.mutable_grad();
  const at::Tensor earlier = std::move(sums.back());
  sums.pop_back();
  if (!gradient.defined()) {
    gradient = earlier;
  } else if (earlier.defined()) {
    gradient.add_(earlier);
  }
}

// Every second micro-batch is added by backward itself, to the one before it.
void PairwiseGradients::next() {
  const torch::NoGradGuard no_grad;
  const std::uint64_t number = micro_batches_++;
  if (number == 0 || number % 2 == 1) return;
  for (Parameter& one : parameters_) {
    for (int level = std::countr_zero(number); level > 1; --level) one.add_last_sum();
    one.sums.push_back(std::move(one.parameter.mutable_grad()));
    one.parameter.mutable_grad().reset();
  }
}

void PairwiseGradients::finish(const at::Tensor& parameter) {
  const torch::NoGradGuard no_grad;
  Parameter& one = parameters_[numbers_.at(parameter.unsafeGetTensorImpl())];
  while (!one.sums.empty()) one.add_last_sum();
}

void PairwiseGradients::finish() {
  for (const Parameter& one : parameters_) finish(one.parameter);
}

}  // namespace memlayers::train
