// SPDX-License-Identifier: Apache-2.0
#include "pool/mapped_region.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "memlayers/error.h"

namespace memlayers::pool {

MappedRegion MappedRegion::anonymous(std::size_t bytes) {
  if (bytes == 0) return {nullptr, 0};
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    throw Error("pool: expected memory for " + std::to_string(bytes) +
                " bytes of rows, got: " + std::strerror(errno));
  }
  ::madvise(data, bytes, MADV_HUGEPAGE);  // a wish; without it the rows work as well
  return {static_cast<std::byte*>(data), bytes};
}

MappedRegion::MappedRegion(MappedRegion&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedRegion& MappedRegion::operator=(MappedRegion&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedRegion::~MappedRegion() {
  if (size_ > 0) ::munmap(data_, size_);
}

}  // namespace memlayers::pool
