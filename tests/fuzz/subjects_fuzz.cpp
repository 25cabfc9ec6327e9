// SPDX-License-Identifier: Apache-2.0
// The registry of a patch's subjects: as it is (first byte 0), or sealed with a right beginning and
// checksum, so that what is behind them is read.
#include "fuzz/fuzz.h"
#include "io/folder.h"
#include "memlayers/subjects.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace memlayers;
  if (size == 0) return 0;
  std::vector<std::byte> bytes;
  const fuzz::Bytes body = fuzz::bytes_of(data + 1, size - 1);
  if (data[0] != 0) {
    bytes = to_bytes({});
    bytes.resize(8);
  }
  bytes.insert(bytes.end(), body.begin(), body.end());
  if (data[0] != 0) {
    const std::uint64_t sum = io::xxh3(bytes);
    const auto raw = std::as_bytes(std::span(&sum, 1));
    bytes.insert(bytes.end(), raw.begin(), raw.end());
  }
  fuzz::allow_error([&] {
    const SubjectRegistry registry = subjects_of(bytes, "it");
    fuzz::require(to_bytes(registry) == bytes);
    const SubjectRegistry twice = together(std::vector{registry, registry});
    fuzz::require(twice.frame == registry.frame &&
                  twice.subjects.size() == 2 * registry.subjects.size());
  });
  return 0;
}
