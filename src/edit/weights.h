// SPDX-License-Identifier: Apache-2.0
// What learning facts in a patch is compared with: training all of a model, or low-rank adapters of
// its matrices. For `memlayers bench learn`; nothing else changes dense weights. More to compare it
// with: edit/dense_add_on.h, edit/retrieval.h.
#pragma once

#include <torch/optim/adamw.h>

#include <memory>
#include <string>
#include <vector>

#include "edit/chosen_rows.h"

namespace memlayers::edit {

// Full finetuning: every dense weight by AdamW without decay, every row of the pool by Adam.
class AllWeights : public Student {
 public:
  AllWeights(Llama& model, double lr);
  std::vector<at::Tensor> trained() const override;
  void show(bool before) override;
  void step(double rate) override;
  bool keeps_lower_layers() const override { return false; }
  std::vector<at::Tensor> learned() const override;
  std::int64_t parameters() const override;
  std::int64_t kept_bytes() const override { return stored_bytes(); }  // all of them, again

 private:
  double lr_;
  std::vector<at::Tensor> weights_, before_;
  std::vector<at::Tensor> masters_;  // float32: what is trained, whatever type the weights have
  torch::optim::AdamW optimizer_;
  std::unique_ptr<ChosenRows> rows_;  // none where the model has no pool
};

// LoRA [LORA21]: W = W0 + 2 B A for each projection of attention, feed-forward and memory layers,
// A [rank, in] normal with deviation in^-0.5, B [out, rank] zero, by AdamW without decay. Works on
// the gradient of W: dL/dA = 2 B^T dL/dW, dL/dB = 2 dL/dW A^T.
class LowRank : public Student {
 public:
  LowRank(Llama& model, std::int64_t rank, double lr, std::uint64_t seed);
  std::vector<at::Tensor> trained() const override;
  void show(bool before) override;
  void step(double rate) override;
  bool keeps_lower_layers() const override { return false; }
  std::vector<at::Tensor> learned() const override;
  std::int64_t stored_bytes() const override { return bytes_of(learned()); }
  std::int64_t kept_bytes() const override { return bytes_of(trained()); }  // merged into them

 private:
  struct Adapter {
    at::Tensor weight, before, a, b;
  };
  double lr_;
  std::vector<Adapter> adapters_;
  std::unique_ptr<torch::optim::AdamW> optimizer_;
};

}  // namespace memlayers::edit
