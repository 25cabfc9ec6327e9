// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "edit/student.h"
#include "memlayers/optimizer.h"

namespace memlayers::edit {

// All of a memory that stands beside a frozen decoder: queries, sub-keys and gates by AdamW without
// decay, clipped to norm 1; every row by Adam. Before, the memory gives nothing.
class WholeMemory : public Student {
 public:
  WholeMemory(Llama& model, double row_lr, double dense_lr);
  std::vector<at::Tensor> trained() const override;
  void show(bool before) override;
  void step(double rate) override;
  bool keeps_lower_layers() const override { return true; }
  std::vector<at::Tensor> learned() const override;
  std::int64_t parameters() const override;

 private:
  Llama model_;
  double row_lr_, dense_lr_;
  std::vector<std::pair<std::string, at::Tensor>> weights_;
  std::vector<double> scales_;
  DenseAdamW optimizer_;
  RowOptimizer rows_;
};

}  // namespace memlayers::edit
