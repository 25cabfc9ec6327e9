// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/types.h>

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "memlayers/parallel.h"
#include "train/pairwise_gradients.h"

namespace memlayers::train {

// Sums of the dense gradients over all processes, made while backward still runs: gradients that
// are there go off in buckets, the last layers' first. Each process adds up one piece of a bucket,
// in pairs by rank (dist::pairwise_sum), and gives it to all: so every process has the same bits,
// and the same as in another run.
//
// Holds a bucket's numbers of all processes until finish(): three times the gradients in all. Of
// one process nothing is held or sent, and its gradients stay as they are.
class GradientSum {
 public:
  struct Options {
    double bucket_mb = 4;              // 10^6 bytes
    at::ScalarType type = at::kFloat;  // on their way: float32 or bfloat16; sums are float32
  };
  // Every process makes one, of the same parameters, which must stay the same tensors.
  GradientSum(std::shared_ptr<Communicator> world,
              const std::vector<std::pair<std::string, at::Tensor>>& parameters,
              const Options& options);
  ~GradientSum();
  GradientSum(const GradientSum&) = delete;
  GradientSum& operator=(const GradientSum&) = delete;

  // The backward that comes next is the last one of the step; `gradients` has those before.
  void begin(PairwiseGradients& gradients);
  // After it: waits for the others. Then grad() of every parameter is the sum over all processes; a
  // parameter without one counts as zeros.
  void finish();

 private:
  struct Bucket;
  class Hook;
  void ready(std::size_t bucket);
  void start(Bucket& bucket);
  bool add_up(Bucket& bucket, bool may_wait);
  int tag(const Bucket& bucket, int phase) const;

  std::shared_ptr<Communicator> world_;
  std::vector<std::unique_ptr<Bucket>> buckets_;
  std::vector<at::Tensor> parameters_;
  std::size_t started_ = 0;                 // buckets on their way, which leave in their order
  PairwiseGradients* gradients_ = nullptr;  // between begin() and finish()
  bool is_open_ = false;                    // from begin() to the end of backward
};

}  // namespace memlayers::train
