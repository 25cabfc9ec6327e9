// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <sstream>

#include "memlayers/error.h"
#include "memlayers/grow.h"
#include "nn/finite.h"

namespace memlayers {

std::vector<std::int64_t> unused_slots(const at::Tensor& reads) {
  const at::Tensor unused = (reads == 0).nonzero().flatten().cpu().contiguous();
  const auto* slot = unused.const_data_ptr<std::int64_t>();
  return {slot, slot + unused.numel()};
}

std::vector<std::int64_t> revive_unused(Llama& model, const at::Tensor& reads, double noise,
                                        std::uint64_t seed) {
  MemoryPool pool = model->pool();
  TORCH_CHECK_VALUE(!pool.is_empty(), "revive: expected a model with memory layers, got none");
  TORCH_CHECK_VALUE(
      !pool->snapshot() && !pool->is_sharded() && !is_quantized(pool->options().row_dtype),
      "revive: expected a model that holds all of its pool, as float32 or bfloat16");
  TORCH_CHECK_VALUE(reads.dim() == 1 && reads.size(0) == pool->slots() && noise >= 0,
                    "revive: expected reads [", pool->slots(), "] and noise of at least 0, got ",
                    reads.sizes(), " and ", noise);
  const std::vector<std::int64_t> unused = unused_slots(reads);
  const auto busy = pool->slots() - static_cast<std::int64_t>(unused.size());
  TORCH_CHECK_VALUE(busy > 0, "revive: expected slots that were read, got none");
  if (unused.empty()) return unused;
  const torch::NoGradGuard no_grad;
  pool->catch_up();
  const auto count = static_cast<std::int64_t>(unused.size());
  const at::Tensor busiest =
      reads.cpu().argsort(/*stable=*/true, 0, /*descending=*/true).slice(0, 0, busy);
  const at::Tensor from = busiest.index_select(0, torch::arange(count).remainder(busy));
  at::Tensor values = pool->values.detach();
  const at::Tensor rows = values.index_select(0, from).to(torch::kFloat);
  at::Generator random = at::detail::createCPUGenerator(seed);
  const at::Tensor size = rows.square().mean(1, /*keepdim=*/true).sqrt() * noise;
  const at::Tensor seeded = rows + size * at::randn(rows.sizes(), random, rows.options());
  const at::Tensor revived = seeded.to(values.scalar_type());
  if (!nn::all_finite(revived)) {
    std::ostringstream size_of_noise;
    size_of_noise << noise;
    throw Error("revive: noise: expected one that leaves rows finite, got " + size_of_noise.str());
  }
  values.index_copy_(0, torch::tensor(unused, torch::kLong), revived);
  return unused;
}

}  // namespace memlayers
