// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <memory>

namespace memlayers {

namespace ops {
struct Weights;  // src/ops/linear/weights.h
}

// torch::nn::Linear, x [..., in] -> x W^T + b [..., out], as the models of this library use it: a
// few tokens without gradient on the CPU cost reading the weights, at the rate of the memory, and
// bfloat16 numbers are multiplied fast on every processor (docs/performance.md). weight [out, in]
// and bias [out] are float32 or bfloat16 as x is; other types go torch's way.
class LinearImpl : public torch::nn::LinearImpl {
 public:
  using torch::nn::LinearImpl::LinearImpl;
  at::Tensor forward(const at::Tensor& x);

  // Weights of 8 or 4 bits in place of `weight`, which is undefined from then on: for reading, on
  // the CPU. Throws ValueError where they are of another shape.
  void set_packed(std::shared_ptr<const ops::Weights> weights);
  const ops::Weights* packed() const { return packed_.get(); }  // null: `weight` it is

 private:
  std::shared_ptr<const ops::Weights> packed_;
};
TORCH_MODULE(Linear);

// torch::nn::Embedding, ids [...] int64 -> rows [..., dim], whose rows may be of 8 or 4 bits: then
// they are float32 numbers that these stand for.
class EmbeddingImpl : public torch::nn::EmbeddingImpl {
 public:
  using torch::nn::EmbeddingImpl::EmbeddingImpl;
  at::Tensor forward(const at::Tensor& ids);
  void set_packed(std::shared_ptr<const ops::Weights> weights);  // as Linear's
  const ops::Weights* packed() const { return packed_.get(); }

 private:
  std::shared_ptr<const ops::Weights> packed_;
};
TORCH_MODULE(Embedding);

}  // namespace memlayers
