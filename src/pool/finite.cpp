// SPDX-License-Identifier: Apache-2.0
#include "pool/finite.h"

#include <algorithm>

#include "io/finite.h"
#include "kernels/quantized.h"
#include "pool/row_format.h"

namespace memlayers::pool {
namespace {

// All ones in NaN and infinity.
constexpr std::uint32_t kFloat = 0x7f800000;
constexpr std::uint16_t kBFloat16 = 0x7f80;

// Where the numbers of one row are that can be NaN: bytes [begin, end).
struct Numbers {
  std::int64_t begin, end;
  bool is_float;  // else bfloat16
};

Numbers numbers_of(RowType type, std::int64_t width) {
  const std::int64_t bytes = row_format(type, width).bytes();
  switch (type) {
    case RowType::kFloat32:
      return {0, bytes, true};
    case RowType::kBFloat16:
      return {0, bytes, false};
    case RowType::kInt8: {
      const std::int64_t scale = kernels::scales_offset<kernels::Int8>(width);
      return {scale, scale + 4, true};
    }
    case RowType::kInt4:
      break;
  }
  return {kernels::scales_offset<kernels::Int4>(width), bytes, false};
}

}  // namespace

std::optional<std::int64_t> first_not_finite(std::span<const std::byte> part, std::int64_t offset,
                                             std::int64_t stride, RowType type,
                                             std::int64_t width) noexcept {
  const Numbers numbers = numbers_of(type, width);
  const auto check = [&](std::int64_t begin, std::int64_t end) {
    const auto data =
        part.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
    return numbers.is_float ? io::are_finite(data, kFloat) : io::are_finite(data, kBFloat16);
  };
  const auto size = static_cast<std::int64_t>(part.size());
  // One pass where the rows are nothing but numbers.
  if (numbers.begin == 0 && numbers.end == stride && check(0, size)) return std::nullopt;
  for (std::int64_t row = offset / stride; row * stride < offset + size; ++row) {
    const std::int64_t begin = std::max<std::int64_t>(0, row * stride + numbers.begin - offset);
    const std::int64_t end = std::min(size, row * stride + numbers.end - offset);
    if (begin < end && !check(begin, end)) return row;
  }
  return std::nullopt;
}

std::optional<std::int64_t> first_not_finite(std::span<const std::byte> rows, RowType type,
                                             std::int64_t width) {
  return first_not_finite(rows, 0, row_format(type, width).bytes(), type, width);
}

bool all_finite(std::span<const std::byte> rows, RowType type, std::int64_t width) {
  return !first_not_finite(rows, type, width);
}

}  // namespace memlayers::pool
