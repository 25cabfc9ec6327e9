// SPDX-License-Identifier: Apache-2.0
#include "ops/rms_norm.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "ops/parallel.h"
#include "ops/torch/check.h"

namespace memlayers::ops {
namespace {

// Which row of scale [rows, width] a vector of x [vectors, width] is multiplied by.
struct Layout {
  std::int64_t width, vectors, rows, repeat;

  Layout(const at::Tensor& x, const at::Tensor& scale)
      : width(x.dim() > 0 ? x.size(-1) : 0), vectors(1), rows(1), repeat(1) {
    const at::IntArrayRef sizes = scale.sizes();
    const std::int64_t dims = x.dim() - scale.dim();
    bool fits = scale.dim() >= 1 && dims >= 0 && sizes.back() == width;
    bool is_any = true;  // so far only ones
    for (std::int64_t i = scale.dim() - 2; fits && i >= 0; --i) {
      is_any = is_any && sizes[i] == 1;
      fits = is_any || sizes[i] == x.size(dims + i);
      (is_any ? repeat : rows) *= x.size(dims + i);
    }
    TORCH_CHECK_VALUE(fits, "rms_norm: expected scale of the last dimensions of x ", x.sizes(),
                      ", got ", sizes);
    for (const std::int64_t size : x.sizes().slice(0, x.dim() - 1)) vectors *= size;
  }
  std::int64_t row(std::int64_t vector) const { return vector / repeat % rows; }
};

void check_types(const at::Tensor& x, const at::Tensor& scale) {
  check_cpu("rms_norm", {{"x", x}, {"scale", scale}});
  check_type("rms_norm", "x", x, {at::kFloat, at::kBFloat16});
  check_type("rms_norm", "scale", scale, {at::kFloat, at::kBFloat16});
}

// x: in float32, whatever type X it had.
template <class X, class Scale>
Normed normed(const at::Tensor& x, const at::Tensor& scale, const Layout& layout, double eps) {
  using Out = decltype(Scale{} * X{});
  Normed result{at::empty_like(x, c10::CppTypeToScalarType<Out>::value),
                at::empty({layout.vectors}, x.options())};
  const std::int64_t W = layout.width;
  const auto* from = x.const_data_ptr<float>();
  const auto* by = scale.const_data_ptr<Scale>();
  auto* to = result.y.mutable_data_ptr<Out>();
  auto* factors = result.factor.mutable_data_ptr<float>();
  parallel_ranges(layout.vectors, 8 * W, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t v = begin; v < end; ++v) {
      factors[v] = normalise<X>(from + v * W, by + layout.row(v) * W, W, eps, to + v * W);
    }
  });
  return result;
}

// sum of a * b * c
float triple_product(const float* a, const float* b, const float* c, std::int64_t width) {
  constexpr int kSums = 16;  // as many additions do not wait for each other
  float sums[kSums] = {};
  std::int64_t i = 0;
  for (; i + kSums <= width; i += kSums) {
    for (int s = 0; s < kSums; ++s) sums[s] += a[i + s] * b[i + s] * c[i + s];
  }
  for (; i < width; ++i) sums[0] += a[i] * b[i] * c[i];
  for (int s = kSums / 2; s > 0; s /= 2) {
    for (int t = 0; t < s; ++t) sums[t] += sums[t + s];
  }
  return sums[0];
}

// Gradients of one vector: with n = f x and f = (mean of x^2 + eps)^(-1/2), that of x is
// f (g s) - f^3 x mean(g s x); g n is added to that of the scale.
void backward_of(const float* __restrict grad, const float* __restrict x,
                 const float* __restrict scale, float factor, std::int64_t width,
                 float* __restrict grad_x, float* __restrict grad_scale) {
  const float mean = triple_product(grad, scale, x, width) / static_cast<float>(width);
  const float along = factor * factor * factor * mean;
  for (std::int64_t c = 0; c < width; ++c) {
    grad_x[c] = factor * (grad[c] * scale[c]) - along * x[c];
    grad_scale[c] += grad[c] * (factor * x[c]);
  }
}

}  // namespace

Normed rms_norm(const at::Tensor& x_in, const at::Tensor& scale_in, double eps) {
  check_types(x_in, scale_in);
  const Layout layout(x_in, scale_in);
  const at::Tensor x = x_in.to(at::kFloat).contiguous(), scale = scale_in.contiguous();
  const bool is_wide_scale = scale.scalar_type() == at::kFloat;
  if (x_in.scalar_type() == at::kFloat) {
    return is_wide_scale ? normed<float, float>(x, scale, layout, eps)
                         : normed<float, c10::BFloat16>(x, scale, layout, eps);
  }
  return is_wide_scale ? normed<c10::BFloat16, float>(x, scale, layout, eps)
                       : normed<c10::BFloat16, c10::BFloat16>(x, scale, layout, eps);
}

std::tuple<at::Tensor, at::Tensor> rms_norm_backward(const at::Tensor& grad_in,
                                                     const at::Tensor& x_in,
                                                     const at::Tensor& scale_in,
                                                     const at::Tensor& factor) {
  check_types(x_in, scale_in);
  check_cpu("rms_norm", {{"the gradient", grad_in}, {"factor", factor}});
  check_same_shape("rms_norm", "the gradient", grad_in, "x", x_in);
  const Layout layout(x_in, scale_in);
  const at::Tensor grad = grad_in.to(at::kFloat).contiguous();
  const at::Tensor x = x_in.to(at::kFloat).contiguous();
  const at::Tensor scale = scale_in.to(at::kFloat).contiguous();
  const std::int64_t W = layout.width, numbers = layout.rows * W;
  // Sums of blocks of vectors, then of these: the same bits for any number of threads.
  constexpr std::int64_t kBlock = 128;
  const std::int64_t blocks = (layout.vectors + kBlock - 1) / kBlock;
  at::Tensor grad_x = at::empty_like(x), sums = at::zeros({blocks, numbers}, x.options());
  const auto* g = grad.const_data_ptr<float>();
  const auto* from = x.const_data_ptr<float>();
  const auto* by = scale.const_data_ptr<float>();
  const auto* factors = factor.const_data_ptr<float>();
  auto* to = grad_x.mutable_data_ptr<float>();
  auto* sum = sums.mutable_data_ptr<float>();
  parallel_ranges(blocks, 16 * kBlock * W, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t v = begin * kBlock; v < std::min(layout.vectors, end * kBlock); ++v) {
      const std::int64_t at = layout.row(v) * W;
      backward_of(g + v * W, from + v * W, by + at, factors[v], W, to + v * W,
                  sum + v / kBlock * numbers + at);
    }
  });
  return {grad_x.to(x_in.scalar_type()), sums.sum(0, /*keepdim=*/false, at::kDouble)
                                             .view(scale_in.sizes())
                                             .to(scale_in.scalar_type())};
}

}  // namespace memlayers::ops
