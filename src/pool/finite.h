// SPDX-License-Identifier: Apache-2.0
// Whether rows hold numbers: neither NaN nor infinity, of quantized rows in their scales.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "memlayers/config.h"

namespace memlayers::pool {

// Of rows that are contiguous and aligned for their elements.
bool all_finite(std::span<const std::byte> rows, RowType type, std::int64_t width);
// The first of these rows that has another number; none where all are finite.
std::optional<std::int64_t> first_not_finite(std::span<const std::byte> rows, RowType type,
                                             std::int64_t width);

// A part of a table whose rows lie `stride` bytes apart, a multiple of 64: it begins `offset`
// bytes, also a multiple of 64, behind the table's begin, and may cut its first and last row. Only
// what belongs to a row counts, not the bytes between them. Returns the number in the table of the
// first row that is not finite. Neither allocates nor throws: callable where mapped bytes are read.
std::optional<std::int64_t> first_not_finite(std::span<const std::byte> part, std::int64_t offset,
                                             std::int64_t stride, RowType type,
                                             std::int64_t width) noexcept;

}  // namespace memlayers::pool
