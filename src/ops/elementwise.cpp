// SPDX-License-Identifier: Apache-2.0
#include "ops/elementwise.h"

#include <algorithm>

#include "kernels/kernels.h"
#include "ops/linear/weights.h"
#include "ops/parallel.h"
#include "ops/torch/check.h"

namespace memlayers::ops {
namespace {

template <class Number>
at::Tensor swiglu_of(const at::Tensor& gate, const at::Tensor& up) {
  constexpr std::int64_t kAtOnce = 256;
  at::Tensor y = empty(gate.sizes(), gate.scalar_type());
  const auto* from = gate.const_data_ptr<Number>();
  const auto* by = up.const_data_ptr<Number>();
  auto* to = y.mutable_data_ptr<Number>();
  parallel_ranges(gate.numel(), 8, [&](std::int64_t begin, std::int64_t end) {
    float part[kAtOnce];
    for (std::int64_t first = begin; first < end; first += kAtOnce) {
      const std::int64_t count = std::min(kAtOnce, end - first);
      std::copy_n(from + first, count, part);
      kernels::active().silu(part, count, part);
      for (std::int64_t i = 0; i < count; ++i) {
        to[first + i] =
            Number(static_cast<float>(Number(part[i])) * static_cast<float>(by[first + i]));
      }
    }
  });
  return y;
}

template <class Number>
at::Tensor times_of(const at::Tensor& x, const at::Tensor& by) {
  const std::int64_t width = x.size(1), numbers_a_factor = width / by.size(1);
  at::Tensor y = empty(x.sizes(), x.scalar_type());
  const auto* from = x.const_data_ptr<Number>();
  const auto* factor = by.const_data_ptr<Number>();
  auto* to = y.mutable_data_ptr<Number>();
  parallel_ranges(x.numel(), 4, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) to[i] = from[i] * factor[i / numbers_a_factor];
  });
  return y;
}

// Of one type, float32 or bfloat16.
void check_types(const char* op, const NamedTensor& first, const NamedTensor& second) {
  check_cpu(op, {first, second});
  check_type(op, first.name, first.tensor, {at::kFloat, at::kBFloat16});
  check_type(op, second.name, second.tensor, {first.tensor.scalar_type()});
}

}  // namespace

at::Tensor times(const at::Tensor& x_in, const at::Tensor& by_in) {
  check_types("times", {"x", x_in}, {"by", by_in});
  check_dim("times", "x", x_in, 2);
  check_dim("times", "by", by_in, 2);
  TORCH_CHECK_VALUE(
      by_in.size(0) == x_in.size(0) && (by_in.size(1) == x_in.size(1) || by_in.size(1) == 1),
      "times: expected factors of the shape of x ", x_in.sizes(), " or one a token, got ",
      by_in.sizes());
  const at::Tensor x = x_in.contiguous(), by = by_in.contiguous();
  return x.scalar_type() == at::kFloat ? times_of<float>(x, by) : times_of<c10::BFloat16>(x, by);
}

at::Tensor swiglu(const at::Tensor& gate_in, const at::Tensor& up_in) {
  check_types("swiglu", {"gate", gate_in}, {"up", up_in});
  TORCH_CHECK_VALUE(gate_in.sizes() == up_in.sizes(),
                    "swiglu: expected gate and up of one shape, got ", gate_in.sizes(), " and ",
                    up_in.sizes());
  const at::Tensor gate = gate_in.contiguous(), up = up_in.contiguous();
  return gate.scalar_type() == at::kFloat ? swiglu_of<float>(gate, up)
                                          : swiglu_of<c10::BFloat16>(gate, up);
}

}  // namespace memlayers::ops
