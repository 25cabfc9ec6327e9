// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>

namespace memlayers::pool {

// Zero-filled memory of its own mapping, in huge pages where the system has them; unmapped on
// destruction. Move only.
class MappedRegion {
 public:
  static MappedRegion anonymous(std::size_t bytes);  // throws Error when there is no memory for it
  MappedRegion(MappedRegion&& other) noexcept;
  MappedRegion& operator=(MappedRegion&& other) noexcept;
  ~MappedRegion();
  std::span<std::byte> bytes() const { return {data_, size_}; }

 private:
  MappedRegion(std::byte* data, std::size_t size) : data_(data), size_(size) {}
  std::byte* data_;
  std::size_t size_;
};

}  // namespace memlayers::pool
