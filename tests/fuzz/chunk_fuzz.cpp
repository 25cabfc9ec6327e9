// SPDX-License-Identifier: Apache-2.0
// The files that hold rows. First byte even: a chunk of the base; odd: a patch's segment.
#include "fuzz/fuzz.h"
#include "pool/chunks.h"
#include "pool/overlay.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace memlayers;
  if (size == 0) return 0;
  const bool is_segment = data[0] % 2 == 1;
  testing::MemoryFileSystem fs;
  fs.make_folder(fuzz::kPool);
  const std::string path = is_segment ? "pool/seg-1.safetensors" : "pool/chunk-0-0.safetensors";
  fuzz::put(fs, path, fuzz::bytes_of(data + 1, size - 1));
  if (!is_segment) {
    fuzz::use_pool(fs);
    return 0;
  }
  fuzz::allow_error([&] {
    const pool::RowsFile file = pool::RowsFile::open(fs, path, "memlayers-segment");
    const auto overlay =
        pool::Overlay::open(fs, path, file.pool(), file.text("content"),
                            data[0] % 4 == 1 ? RowAccess::kMemory : RowAccess::kRead);
    overlay->verify();
    for (const std::int64_t slot : overlay->slots()) {
      const auto number = overlay->find(slot);
      fuzz::require(number.has_value());
      overlay->row(*number);
    }
    for (const std::int64_t slot : overlay->erased()) {
      fuzz::require(overlay->find(slot) == pool::Overlay::kErased);
    }
  });
  return 0;
}
