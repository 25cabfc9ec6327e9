// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace memlayers::train {

// The dense gradients of a step's micro-batches, summed in pairs (dist::pairwise_sum): so several
// processes, each with some of the micro-batches, get the bits of one that has all of them. Of n
// micro-batches log2(n) gradients are kept beside grad().
class PairwiseGradients {
 public:
  explicit PairwiseGradients(const std::vector<std::pair<std::string, at::Tensor>>& parameters);

  // Before the backward of the next micro-batch, which may be left out where it has no gradient.
  void next();
  // The parameter's grad() becomes the sum over all micro-batches; once the last gave it its own.
  void finish(const at::Tensor& parameter);
  void finish();  // all of them

 private:
  struct Parameter {
    at::Tensor parameter;
    std::vector<at::Tensor> sums;  // of ever fewer micro-batches before those that grad() has
    void add_last_sum();
  };
  std::vector<Parameter> parameters_;
  std::unordered_map<const at::TensorImpl*, std::size_t> numbers_;
  std::uint64_t micro_batches_ = 0;
};

}  // namespace memlayers::train
