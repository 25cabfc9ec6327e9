// SPDX-License-Identifier: Apache-2.0
// The feed-forward block of a decoder layer: one, or a choice among several.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <vector>

#include "memlayers/linear.h"
#include "memlayers/llama.h"

namespace memlayers {

struct FeedForwardImpl : torch::nn::Module {  // SwiGLU
  explicit FeedForwardImpl(const ModelConfig& config);
  at::Tensor forward(const at::Tensor& x);

  Linear gate_proj{nullptr}, up_proj{nullptr}, down_proj{nullptr};
};
TORCH_MODULE(FeedForward);

// ModelConfig::experts feed-forward blocks, of which each token takes one: the most probable by a
// softmax of `router`, times that probability [Switch22]. No token is left out, however many take
// the same. Names and weights as in Hugging Face's Qwen2MoE: mlp.gate, mlp.experts.E.*.
struct ExpertsImpl : torch::nn::Module {
  explicit ExpertsImpl(const ModelConfig& config);
  at::Tensor forward(const at::Tensor& x);  // [.., dim]

  // E * sum over experts of (share of the tokens that took it) * (its mean probability), 1 where
  // all are taken alike, of the last forward() with gradients in training; undefined when it was
  // taken, or without one.
  at::Tensor take_balance();

  Linear router{nullptr};
  std::vector<FeedForward> experts;

 private:
  struct Routes {
    at::Tensor expert, weight;  // [T] int64, [T, 1] of x's type
  };
  Routes route(const at::Tensor& x);
  at::Tensor balance_;
};
TORCH_MODULE(Experts);

}  // namespace memlayers
