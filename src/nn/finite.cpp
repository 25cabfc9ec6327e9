// SPDX-License-Identifier: Apache-2.0
#include "nn/finite.h"

#include <torch/types.h>

#include <algorithm>
#include <atomic>

#include "io/finite.h"
#include "memlayers/error.h"
#include "nn/table.h"
#include "ops/parallel.h"

namespace memlayers::nn {
namespace {

io::ElementType file_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return io::ElementType::kF32;
    case at::kBFloat16:
      return io::ElementType::kBF16;
    case at::kHalf:
      return io::ElementType::kF16;
    case at::kDouble:
      return io::ElementType::kF64;
    default:
      return io::ElementType::kU8;  // knows no infinity
  }
}

}  // namespace

bool all_finite(const at::Tensor& tensor) {
  if (!tensor.is_cpu()) return at::isfinite(tensor).all().item<bool>();
  constexpr std::int64_t kBlock = 1 << 18;
  const at::Tensor lined_up = tensor.detach().contiguous();
  const std::span<const std::byte> bytes = bytes_of(lined_up);
  const auto size = static_cast<std::int64_t>(bytes.size());
  const io::ElementType type = file_type(tensor.scalar_type());
  std::atomic<bool> is_finite = true;
  ops::parallel_ranges((size + kBlock - 1) / kBlock, kBlock,
                       [&](std::int64_t first, std::int64_t last) {
                         for (std::int64_t i = first; i < last && is_finite; ++i) {
                           const std::int64_t at = i * kBlock, count = std::min(kBlock, size - at);
                           if (!io::all_finite(bytes.subspan(at, count), type)) is_finite = false;
                         }
                       });
  return is_finite;
}

void check_finite(const at::Tensor& tensor, const std::string& what) {
  if (!all_finite(tensor)) throw Error(what + ": expected finite numbers, got NaN or infinity");
}

void check_logits(const at::Tensor& logits) {
  if (all_finite(logits)) return;
  throw Error(
      "logits: expected finite numbers, got NaN or infinity: the model's weights are not finite, "
      "or "
      "its numbers overflow");
}

}  // namespace memlayers::nn
