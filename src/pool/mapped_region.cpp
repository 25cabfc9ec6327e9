// SPDX-License-Identifier: Apache-2.0
#include "pool/mapped_region.h"

#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "memlayers/error.h"

namespace memlayers::pool {
namespace {

constexpr std::size_t kHugePage = 2 << 20;

// Whole huge pages where there is one: Linux (6.7) puts such mappings where huge pages begin.
std::size_t mapped_bytes(std::size_t bytes) {
  return bytes < kHugePage ? bytes : (bytes + kHugePage - 1) / kHugePage * kHugePage;
}

// How far into its mapping a region of so many bytes begins: each some pages further than the one
// before. An update goes through the same row of several tables, whose length is a power of two as
// often as not; the first-level cache of AMD's processors finds its ways by a hash of the address's
// bits 12 to 27 (Lipp et al., "Take A Way", 2020), so that rows at a distance of 4 GiB push each
// other out of it: three such tables took three times as long (docs/performance.md).
std::size_t next_offset(std::size_t bytes) {
  constexpr std::size_t kPage = 4096, kStep = 3 * kPage, kOffsets = 16;
  static std::atomic<std::size_t> made{0};
  return bytes < kHugePage ? 0 : made++ % kOffsets * kStep;
}

}  // namespace

MappedRegion MappedRegion::anonymous(std::size_t bytes) {
  MappedRegion region;
  if (bytes == 0) return region;
  const std::size_t offset = next_offset(bytes), all = mapped_bytes(bytes + offset);
  void* data = ::mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    throw Error("pool: expected " + std::to_string(bytes) +
                " bytes of free memory for a table of rows, got: " + std::strerror(errno));
  }
  ::madvise(data, all, MADV_HUGEPAGE);  // a wish; without it the rows work as well
  region.mapping_ = {static_cast<std::byte*>(data), all};
  region.bytes_ = region.mapping_.subspan(offset, bytes);
  return region;
}

MappedRegion MappedRegion::scratch(io::FileSystem& fs, const std::string& folder,
                                   std::size_t bytes) {
  MappedRegion region;
  const std::size_t offset = next_offset(bytes);
  region.file_ = fs.make_scratch(folder, bytes + offset);
  region.bytes_ = region.file_->bytes().subspan(offset);
  // The neighbours of a row that is read are not read next.
  if (bytes > 0) ::madvise(region.bytes_.data(), bytes, MADV_RANDOM);
  return region;
}

MappedRegion::MappedRegion(MappedRegion&& other) noexcept
    : bytes_(std::exchange(other.bytes_, {})),
      mapping_(std::exchange(other.mapping_, {})),
      file_(std::move(other.file_)) {}

MappedRegion& MappedRegion::operator=(MappedRegion&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  std::swap(mapping_, other.mapping_);
  std::swap(file_, other.file_);
  return *this;
}

MappedRegion::~MappedRegion() {
  if (!mapping_.empty()) ::munmap(mapping_.data(), mapping_.size());
}

}  // namespace memlayers::pool
