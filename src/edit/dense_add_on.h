// SPDX-License-Identifier: Apache-2.0
// What a memory is compared with: as much that is trained or computed, but dense.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "edit/student.h"
#include "memlayers/optimizer.h"
#include "nn/output_hook.h"

namespace memlayers::edit {

// A bottleneck beside each memory layer of a model, s B silu(A x), of what the layer takes, added
// to what it gives: A [width, dim] normal with deviation dim^-0.5, B [dim, width] zero, s the
// layer's output scale; float32, by AdamW without decay. The memory reads what it read before, and
// what is in the model's files does not change. In the thread that made it, one at a time.
class DenseAddOn : public Student {
 public:
  DenseAddOn(Llama& model, std::int64_t width, double lr, std::uint64_t seed);
  std::vector<at::Tensor> trained() const override;  // A and B of each layer
  void show(bool before) override;
  void step(double rate) override;
  bool keeps_lower_layers() const override { return true; }
  std::vector<at::Tensor> learned() const override { return trained(); }

 private:
  struct Block {
    const MemoryLayerImpl* layer;
    at::Tensor in, out;
  };
  void attach();
  at::Tensor given(const MemoryLayerImpl& layer, const at::Tensor& x, const at::Tensor& y) const;

  Llama model_;  // whose layers these are
  double lr_;
  std::vector<Block> blocks_;
  std::unique_ptr<DenseAdamW> optimizer_;
  std::optional<nn::OutputHook> hook_;  // while it is shown
};

// The width whose FLOPs are those of a memory layer of this model (count_flops()); and that with
// which all of its layers together train so many numbers. To the nearest, at least 1.
std::int64_t width_of_equal_flops(const ModelConfig& config);
std::int64_t width_of_parameters(const ModelConfig& config, std::int64_t parameters);

}  // namespace memlayers::edit
