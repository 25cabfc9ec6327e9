// SPDX-License-Identifier: Apache-2.0
#include "nn/table.h"

#include <torch/types.h>

#include <memory>

#include "pool/prefetch.h"

namespace memlayers::nn {
namespace {

// A gather of 131,072 cold rows of 2 KiB (big_pool_bench, 2 threads, virtual disk) took 4.5 s by
// page faults, and read ahead 1.7 s by 8 MiB, 1.4 s by 32 and 1.2 s by 256: but memory may be
// short.
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
