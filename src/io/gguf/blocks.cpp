// SPDX-License-Identifier: Apache-2.0
#include "io/gguf/blocks.h"

#include <algorithm>

#include "io/mapped_read.h"

namespace memlayers::io::gguf {

const std::array<const TensorType*, 3>& multiplied_types() {
  static const std::array<const TensorType*, 3> types{find_type("Q8_0"), find_type("Q4_0"),
                                                      find_type("Q4_1")};
  return types;
}

bool is_multiplied(const TensorType& type) {
  return std::ranges::find(multiplied_types(), &type) != multiplied_types().end();
}

const TensorType* type_of_row(std::int64_t width, std::int64_t bytes) {
  if (width % kBlockNumbers != 0) return nullptr;
  for (const TensorType* type : multiplied_types()) {
    if (width / kBlockNumbers * type->block_bytes == bytes) return type;
  }
  return nullptr;
}

void copy_numbers(const Tensor& tensor, std::int64_t first, std::int64_t count, std::byte* out) {
  const TensorType& type = *tensor.type;
  const std::byte* from = tensor.bytes.data();
  if (type.block_numbers == 1) {
    copy_mapped(out, tensor.bytes.subspan(static_cast<std::size_t>(first * type.block_bytes),
                                          static_cast<std::size_t>(count * type.block_bytes)));
    return;
  }
  read_mapped([&] {
    constexpr std::int64_t kMostNumbers = 256;  // in a block
    float block[kMostNumbers];
    auto* to = reinterpret_cast<float*>(out);
    for (std::int64_t done = 0; done < count;) {
      const std::int64_t at = first + done, skipped = at % type.block_numbers;
      const std::byte* begin = from + at / type.block_numbers * type.block_bytes;
      const std::int64_t whole = (count - done) / type.block_numbers;
      if (skipped == 0 && whole > 0) {
        type.decode(begin, whole, to + done);
        done += whole * type.block_numbers;
        continue;
      }
      type.decode(begin, 1, block);
      const std::int64_t some = std::min(count - done, type.block_numbers - skipped);
      std::copy_n(block + skipped, some, to + done);
      done += some;
    }
  });
}

}  // namespace memlayers::io::gguf
