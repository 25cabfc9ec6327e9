// SPDX-License-Identifier: Apache-2.0
#include "nn/table.h"

#include <torch/torch.h>

#include <memory>

#include "pool/prefetch.h"

namespace memlayers::nn {
namespace {

// Best of 8, 16, 32, 64 and 128 MiB in big_pool_bench, rows of 1 KiB, cold.
constexpr std::int64_t kWindowBytes = 32 << 20;

std::int64_t row_bytes(const at::Tensor& table) {
  return table.size(0) == 0 ? 1 : static_cast<std::int64_t>(table.nbytes()) / table.size(0);
}

}  // namespace

Table make_table(at::IntArrayRef sizes, at::ScalarType type,
                 const std::optional<std::string>& folder) {
  const auto elements = static_cast<std::size_t>(c10::multiply_integers(sizes));
  const std::size_t bytes = std::max<std::size_t>(1, elements * c10::elementSize(type));
  auto region = std::make_shared<pool::MappedRegion>(
      folder ? pool::MappedRegion::scratch(io::posix(), *folder, bytes)
             : pool::MappedRegion::anonymous(bytes));
  return {torch::from_blob(
              region->bytes().data(), sizes, [region](void*) {}, torch::dtype(type)),
          region};
}

void prefetch_rows(std::span<const at::Tensor> tables, std::span<const std::int64_t> slots) {
  for (const at::Tensor& table : tables) {
    pool::prefetch_rows(bytes_of(table), row_bytes(table), slots);
  }
}

std::int64_t rows_a_window(std::span<const at::Tensor> tables) {
  std::int64_t bytes = 0;
  for (const at::Tensor& table : tables) bytes += pool::prefetched_bytes(row_bytes(table));
  return std::max<std::int64_t>(1, kWindowBytes / std::max<std::int64_t>(1, bytes));
}

}  // namespace memlayers::nn
