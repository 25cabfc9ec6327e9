// SPDX-License-Identifier: Apache-2.0
// The header of a safetensors file.
#include "io/safetensors.h"

#include "fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace memlayers;
  testing::MemoryFileSystem fs;
  fuzz::put(fs, "file.safetensors", fuzz::bytes_of(data, size));
  fuzz::allow_error([&] {
    const io::SafetensorsFile file = io::SafetensorsFile::open(fs, "file.safetensors");
    std::size_t bytes = 0;
    unsigned sum = 0;  // so that every byte is touched
    for (const auto& [name, tensor] : file.tensors()) {
      std::int64_t elements = 1;
      for (const std::int64_t side : tensor.shape) elements *= side;
      fuzz::require(tensor.bytes.size() ==
                    static_cast<std::size_t>(elements * io::element_bytes(tensor.type)));
      for (const std::byte b : tensor.bytes) sum += static_cast<unsigned>(b);
      bytes += tensor.bytes.size();
    }
    fuzz::require(bytes < size && sum <= 255 * size);
  });
  return 0;
}
