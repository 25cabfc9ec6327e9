// SPDX-License-Identifier: Apache-2.0
// Products of few tokens, whose cost is reading the weights. W is read once, in its order, at the
// rate of the memory where it lies in huge pages (nn/huge_pages.h; else at less than half of it);
// for more tokens they cost arithmetic. The bits of a token depend on x of that token alone.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <initializer_list>

#include "ops/linear/weights.h"
#include "ops/stages.h"

namespace memlayers::ops {

enum class Activation : std::uint8_t { kNone, kSilu, kSigmoid };

// f(x W^T + b), of which each operator's result is rounded to x's type, as work of Stages. x [T,
// in] of a type that the weights take, bias [out] of either type or undefined; on the CPU; no
// gradient. Throws ValueError and TypeError for what does not fit, with the name `op`.
class Product {
 public:
  Product(const char* op, const at::Tensor& x, const Weights& weights, const at::Tensor& bias,
          Activation activation = Activation::kNone);

  std::int64_t columns() const { return weights_.out; }
  // Adds columns [begin, end), but for those that stand side by side with what is on the other side
  // of `begin` or `end`: they belong to the greater. Returns the stage. The product must outlive
  // the stages.
  int add_to(Stages& stages, std::int64_t begin, std::int64_t end,
             std::initializer_list<int> after = {});

  // [T, out], when the stages are done: as float32 numbers, and of x's type.
  const at::Tensor& numbers() const { return out_; }
  at::Tensor out() const { return from_float(out_, type_); }

 private:
  void compute(std::int64_t begin, std::int64_t end);
  // What comes after the sums: `count` columns from `first` of all tokens.
  template <class Round>
  void finish(std::int64_t first, std::int64_t count, const Round& round);

  Weights weights_;
  at::Tensor operand_, bias_, out_;
  at::ScalarType type_;
  Activation activation_;
};

// x W^T + b [T, out] of x's type, as Product.
at::Tensor linear(const at::Tensor& x, const Weights& weights, const at::Tensor& bias = {});

}  // namespace memlayers::ops
