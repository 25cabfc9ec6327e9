// SPDX-License-Identifier: Apache-2.0
#include "ops/linear/product.h"

#include <algorithm>
#include <cmath>

#include "ops/torch/check.h"

namespace memlayers::ops {
namespace {

float activated(Activation activation, float x) {
  switch (activation) {
    case Activation::kNone:
      break;
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kSigmoid:
      return 1 / (1 + std::exp(-x));
  }
  return x;
}

void check_product(const char* op, const at::Tensor& x, const Weights& weights,
                   const at::Tensor& bias) {
  check_dim(op, "x", x, 2);
  if (!weights.code) check_dim(op, "weight", weights.stored, 2);
  check_type(op, "x", x, {at::kFloat, at::kBFloat16});
  TORCH_CHECK_TYPE(weights.take(x.scalar_type()), op, ": expected weight for x of type ",
                   x.scalar_type(), ", got ", weights.stored.scalar_type());
  check_cpu(op, {{"x", x}, {"weight", weights.stored}});
  if (bias.defined()) check_cpu(op, {{"bias", bias}});
  TORCH_CHECK_VALUE(x.size(1) == weights.in, op, ": expected x of the width of weight [",
                    weights.out, ", ", weights.in, "], got ", x.sizes());
}

}  // namespace

Product::Product(const char* op, const at::Tensor& x, const Weights& weights,
                 const at::Tensor& bias, Activation activation)
    : weights_(weights), type_(x.scalar_type()), activation_(activation) {
  check_product(op, x, weights, bias);
  weights_.stored = weights.stored.contiguous();
  operand_ = weights.format->operand(x);
  if (bias.defined()) bias_ = as_float(bias);
  out_ = empty({x.size(0), weights.out});
}

int Product::add_to(Stages& stages, std::int64_t begin, std::int64_t end,
                    std::initializer_list<int> after) {
  const std::int64_t together = weights_.format->rows_together();
  if (end == columns()) end += together - 1;
  return stages.add(begin / together, end / together,
                    together * weights_.format->row_bytes(weights_.in), after,
                    [this, together](std::int64_t first, std::int64_t last) {
                      compute(first * together, std::min(last * together, columns()));
                    });
}

void Product::compute(std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t kBlock = 64;  // rows that stay in the cache for all tokens
  const std::int64_t row_bytes = weights_.format->row_bytes(weights_.in);
  const auto* rows = static_cast<const std::byte*>(weights_.stored.const_data_ptr());
  const std::int64_t block = out_.size(0) == 1 ? end - begin : kBlock;
  for (std::int64_t first = begin; first < end; first += block) {
    const std::int64_t count = std::min(block, end - first);
    weights_.format->products(rows + first * row_bytes, weights_.in, count, operand_,
                              out_.mutable_data_ptr<float>() + first, columns());
    if (type_ == at::kFloat) {
      finish(first, count, [](float x) { return x; });
    } else {
      finish(first, count, [](float x) { return static_cast<float>(c10::BFloat16(x)); });
    }
  }
}

template <class Round>
void Product::finish(std::int64_t first, std::int64_t count, const Round& round) {
  const float* bias = bias_.defined() ? bias_.const_data_ptr<float>() + first : nullptr;
  for (std::int64_t t = 0; t < out_.size(0); ++t) {
    float* out = out_.mutable_data_ptr<float>() + t * columns() + first;
    for (std::int64_t i = 0; i < count; ++i) {
      out[i] = round(bias == nullptr ? out[i] : out[i] + bias[i]);
    }
    if (activation_ == Activation::kNone) continue;
    for (std::int64_t i = 0; i < count; ++i) out[i] = round(activated(activation_, out[i]));
  }
}

at::Tensor linear(const at::Tensor& x, const Weights& weights, const at::Tensor& bias) {
  Product product("linear", x, weights, bias);
  Stages stages;
  product.add_to(stages, 0, product.columns());
  stages.run();
  return product.out();
}

}  // namespace memlayers::ops
