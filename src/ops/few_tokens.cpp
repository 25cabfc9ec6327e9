// SPDX-License-Identifier: Apache-2.0
#include "ops/few_tokens.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "kernels/kernels.h"
#include "ops/check.h"
#include "ops/parallel.h"

namespace memlayers::ops {
namespace {

// x W^T + b, float32 but for the weight.
template <class Row>
at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const std::int64_t T = x.size(0), in = x.size(1), out_width = weight.size(0);
  at::Tensor out = at::empty({T, out_width}, x.options());
  const auto* tokens = x.const_data_ptr<float>();
  const auto* rows = static_cast<const Row*>(weight.const_data_ptr());
  const auto* added = bias.defined() ? bias.const_data_ptr<float>() : nullptr;
  auto* result = out.mutable_data_ptr<float>();
  constexpr std::int64_t kBlock = 64;  // rows that stay in the cache for all tokens
  const std::int64_t blocks = (out_width + kBlock - 1) / kBlock;
  parallel_ranges(blocks, kBlock * in, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t start = begin * kBlock, last = std::min(out_width, end * kBlock);
    const std::int64_t block = T == 1 ? last - start : kBlock;
    for (std::int64_t first = start; first < last; first += block) {
      const std::int64_t count = std::min(block, last - first);
      for (std::int64_t t = 0; t < T; ++t) {
        float* to = result + t * out_width + first;
        kernels::active().rows<Row>().dots_in_order(rows + first * in, in, count, tokens + t * in,
                                                    to);
        for (std::int64_t i = 0; added != nullptr && i < count; ++i) to[i] += added[first + i];
      }
    }
  });
  return out;
}

}  // namespace

at::Tensor linear_of_few_tokens(const at::Tensor& x_in, const at::Tensor& weight_in,
                                const at::Tensor& bias_in) {
  check_dim("linear_of_few_tokens", "x", x_in, 2);
  check_dim("linear_of_few_tokens", "weight", weight_in, 2);
  check_type("linear_of_few_tokens", "x", x_in, {at::kFloat, at::kBFloat16});
  check_type("linear_of_few_tokens", "weight", weight_in, {x_in.scalar_type()});
  TORCH_CHECK_VALUE(x_in.size(1) == weight_in.size(1),
                    "linear_of_few_tokens: expected x of the width of weight ", weight_in.sizes(),
                    ", got ", x_in.sizes());
  const at::Tensor x = x_in.to(at::kFloat).contiguous(), weight = weight_in.contiguous();
  const at::Tensor bias = bias_in.defined() ? bias_in.to(at::kFloat).contiguous() : bias_in;
  if (weight.scalar_type() == at::kFloat) return product<float>(x, weight, bias);
  return product<kernels::BFloat16>(x, weight, bias).to(at::kBFloat16);
}

}  // namespace memlayers::ops
