// SPDX-License-Identifier: Apache-2.0
// Sub-keys that patches write, in files: a tensor `key_places` I64 [m, 4] (layer, head, half,
// number) and a tensor `keys` F32 [m, width].
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.h"
#include "memlayers/patch.h"

namespace memlayers::pool {

inline std::span<const std::byte> place_bytes(const SubKeys& keys) {
  return std::as_bytes(std::span(keys.places));
}
inline std::span<const std::byte> number_bytes(const SubKeys& keys) {
  return std::as_bytes(std::span(keys.numbers));
}
inline std::span<const float> numbers_of(const SubKeys& keys, std::size_t i) {
  const auto width = static_cast<std::size_t>(keys.width);
  return std::span(keys.numbers).subspan(i * width, width);
}

// The two tensors; none where there is no sub-key. Valid as long as `keys`.
std::vector<io::TensorToWrite> tensors_of(const SubKeys& keys);
// Those of a file, in the order of their places; none where the tensors are not there. Throws Error
// for tensors of other shapes.
SubKeys read_sub_keys(const io::SafetensorsFile& file);
// From bytes as place_bytes() and number_bytes() give them, one behind the other.
SubKeys to_sub_keys(std::span<const std::byte> bytes, std::int64_t count, std::int64_t width);

// Throw Error in a sentence that begins with `what`: where places are not what places are, do not
// ascend, or numbers are not finite or too few; where the model has no such sub-keys.
void check_sub_keys(const std::string& what, const SubKeys& keys);
void check_fits(const std::string& what, const SubKeys& keys, const SubKeyGrid& grid);

// The number of a place among those of `keys`.
std::optional<std::size_t> find(const SubKeys& keys, const SubKeyPlace& place);
// Those of all layers; where several write one the last one wins. Throws Error for other widths.
SubKeys together(std::span<const SubKeys* const> layers);

}  // namespace memlayers::pool
