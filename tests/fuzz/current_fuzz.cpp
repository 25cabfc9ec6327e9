// SPDX-License-Identifier: Apache-2.0
// CURRENT, the file that names the live log of an edited pool.
#include "fuzz/edited_pool.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace memlayers;
  static const testing::MemoryFileSystem edited = fuzz::edited_pool();
  testing::MemoryFileSystem fs(edited);
  fuzz::put(fs, "pool/CURRENT", fuzz::bytes_of(data, size));
  fuzz::use_pool(fs);
  return 0;
}
