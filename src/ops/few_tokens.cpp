// SPDX-License-Identifier: Apache-2.0
#include "ops/few_tokens.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/kernels.h"
#include "ops/check.h"
#include "ops/parallel.h"

namespace memlayers::ops {

at::Tensor linear_of_few_tokens(const at::Tensor& x_in, const at::Tensor& weight_in,
                                const at::Tensor& bias_in) {
  check_dim("linear_of_few_tokens", "x", x_in, 2);
  check_dim("linear_of_few_tokens", "weight", weight_in, 2);
  check_type("linear_of_few_tokens", "x", x_in, {at::kFloat});
  check_type("linear_of_few_tokens", "weight", weight_in, {at::kFloat});
  TORCH_CHECK_VALUE(x_in.size(1) == weight_in.size(1),
                    "linear_of_few_tokens: expected x of the width of weight ", weight_in.sizes(),
                    ", got ", x_in.sizes());
  const at::Tensor x = x_in.contiguous(), weight = weight_in.contiguous();
  const at::Tensor bias = bias_in.defined() ? bias_in.contiguous() : bias_in;
  const std::int64_t T = x.size(0), in = x.size(1), out_width = weight.size(0);
  at::Tensor out = at::empty({T, out_width}, x.options());
  constexpr std::int64_t kBlock = 64;  // rows that stay in the cache for all tokens
  const std::int64_t blocks = (out_width + kBlock - 1) / kBlock;
  parallel_ranges(blocks, kBlock * in, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t last = std::min(out_width, end * kBlock);
    std::vector<std::int64_t> rows(last - begin * kBlock);
    std::iota(rows.begin(), rows.end(), begin * kBlock);
    for (std::int64_t first = begin * kBlock; first < last; first += kBlock) {
      const std::int64_t count = std::min(kBlock, last - first);
      for (std::int64_t t = 0; t < T; ++t) {
        float* to = out.mutable_data_ptr<float>() + t * out_width + first;
        kernels::active().f32.dots(
            weight.const_data_ptr<float>(), {in, in, 0, in}, rows.data() + (first - begin * kBlock),
            count, t + 1 == T ? last - first - count : 0, x.const_data_ptr<float>() + t * in, to);
        for (std::int64_t i = 0; bias.defined() && i < count; ++i) {
          to[i] += bias.const_data_ptr<float>()[first + i];
        }
      }
    }
  });
  return out;
}

}  // namespace memlayers::ops
