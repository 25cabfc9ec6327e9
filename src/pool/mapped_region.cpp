// SPDX-License-Identifier: Apache-2.0
#include "pool/mapped_region.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "memlayers/error.h"

namespace memlayers::pool {
namespace {

// Whole huge pages where there is one: Linux (6.7) puts such mappings where huge pages begin.
std::size_t mapped_bytes(std::size_t bytes) {
  constexpr std::size_t kHugePage = 2 << 20;
  return bytes < kHugePage ? bytes : (bytes + kHugePage - 1) / kHugePage * kHugePage;
}

}  // namespace

MappedRegion MappedRegion::anonymous(std::size_t bytes) {
  if (bytes == 0) return MappedRegion({});
  void* data = ::mmap(nullptr, mapped_bytes(bytes), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    throw Error("pool: expected memory for " + std::to_string(bytes) +
                " bytes of rows, got: " + std::strerror(errno));
  }
  ::madvise(data, mapped_bytes(bytes), MADV_HUGEPAGE);  // a wish; without it the rows work as well
  return MappedRegion({static_cast<std::byte*>(data), bytes});
}

MappedRegion MappedRegion::scratch(io::FileSystem& fs, const std::string& folder,
                                   std::size_t bytes) {
  MappedRegion region({});
  region.file_ = fs.make_scratch(folder, bytes);
  region.bytes_ = region.file_->bytes();
  // The neighbours of a row that is read are not read next.
  if (bytes > 0) ::madvise(region.bytes_.data(), bytes, MADV_RANDOM);
  return region;
}

MappedRegion::MappedRegion(MappedRegion&& other) noexcept
    : bytes_(std::exchange(other.bytes_, {})), file_(std::move(other.file_)) {}

MappedRegion& MappedRegion::operator=(MappedRegion&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  std::swap(file_, other.file_);
  return *this;
}

MappedRegion::~MappedRegion() {
  if (!file_ && !bytes_.empty()) ::munmap(bytes_.data(), mapped_bytes(bytes_.size()));
}

}  // namespace memlayers::pool
