// SPDX-License-Identifier: Apache-2.0
#include "nn/linear.h"

#include <optional>
#include <utility>
#include <vector>

#include "nn/float32_product.h"
#include "nn/token_by_token.h"
#include "ops/elementwise.h"
#include "ops/linear/product.h"

namespace memlayers {
namespace nn {

at::Tensor project(const at::Tensor& x, const ops::Weights& weights, const at::Tensor& bias) {
  if (weights.code && x.requires_grad() && torch::GradMode::is_enabled()) {
    return torch::linear(x, weights.unpacked().to(x.scalar_type()), bias);
  }
  if (weights.take(x.scalar_type()) && (weights.code || is_token_by_token(x))) {
    if (x.dim() == 2) return ops::linear(x, weights, bias);
    std::vector<std::int64_t> sizes = x.sizes().vec();
    sizes.back() = weights.out;
    return ops::linear(x.reshape({-1, x.size(-1)}), weights, bias).view(sizes);
  }
  const at::Tensor& weight = weights.stored;
  const bool is_slow = x.is_cpu() && x.scalar_type() == torch::kBFloat16 &&
                       weight.scalar_type() == torch::kBFloat16 && !has_bfloat16_products();
  if (!is_slow) return torch::linear(x, weight, bias);
  return Float32Product::apply(x, weight, bias.defined() ? std::optional(bias) : std::nullopt);
}

namespace {

bool is_ours(const at::Tensor& x) {
  const at::ScalarType type = x.scalar_type();
  return is_token_by_token(x) && (type == torch::kFloat || type == torch::kBFloat16);
}

}  // namespace

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  return is_ours(gate) ? ops::swiglu(gate, up) : torch::silu(gate) * up;
}

at::Tensor times(const at::Tensor& x, const at::Tensor& by) {
  return is_ours(x) && x.dim() == 2 ? ops::times(x, by) : x * by;
}

at::Tensor as_type(const at::Tensor& x, at::ScalarType type) {
  const bool is_rounded = x.scalar_type() == torch::kFloat && type == torch::kBFloat16;
  return is_rounded && is_ours(x) ? ops::from_float(x.contiguous(), type) : x.to(type);
}

}  // namespace nn

at::Tensor LinearImpl::forward(const at::Tensor& x) {
  return nn::project(x, nn::weights_of(*this), bias);
}

void LinearImpl::set_packed(std::shared_ptr<const ops::Weights> weights) {
  TORCH_CHECK_VALUE(weights->out == options.out_features() && weights->in == options.in_features(),
                    "Linear::set_packed: expected weights [", options.out_features(), ", ",
                    options.in_features(), "], got [", weights->out, ", ", weights->in, "]");
  packed_ = std::move(weights);
  weight.reset();
  parameters_["weight"].reset();
}

at::Tensor EmbeddingImpl::forward(const at::Tensor& ids) {
  if (!packed_) return torch::nn::EmbeddingImpl::forward(ids);
  std::vector<std::int64_t> sizes = ids.sizes().vec();
  sizes.push_back(packed_->in);
  return packed_->unpacked(ids.flatten()).view(sizes);
}

void EmbeddingImpl::set_packed(std::shared_ptr<const ops::Weights> weights) {
  TORCH_CHECK_VALUE(
      weights->out == options.num_embeddings() && weights->in == options.embedding_dim(),
      "Embedding::set_packed: expected weights [", options.num_embeddings(), ", ",
      options.embedding_dim(), "], got [", weights->out, ", ", weights->in, "]");
  packed_ = std::move(weights);
  weight.reset();
  parameters_["weight"].reset();
}

}  // namespace memlayers
