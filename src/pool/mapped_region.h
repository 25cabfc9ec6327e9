// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "io/file_system.h"

namespace memlayers::pool {

// Zero-filled memory of its own mapping, given back on destruction. Move only.
class MappedRegion {
 public:
  // In RAM, in huge pages where the system has them; begins on a page. Throws Error when there is
  // no memory for it.
  static MappedRegion anonymous(std::size_t bytes);
  // In a scratch file of `folder`, for rows read here and there: memory holds what is in use, and
  // the system takes it back when it is short. Throws Error, as FileSystem::make_scratch does.
  static MappedRegion scratch(io::FileSystem& fs, const std::string& folder, std::size_t bytes);
  MappedRegion(MappedRegion&& other) noexcept;
  MappedRegion& operator=(MappedRegion&& other) noexcept;
  ~MappedRegion();
  std::span<std::byte> bytes() const { return bytes_; }
  void write_back() const {  // Scratch::write_back(); nothing in RAM
    if (file_) file_->write_back();
  }

 private:
  MappedRegion() = default;
  std::span<std::byte> bytes_;
  std::span<std::byte> mapping_;       // in RAM: what is unmapped here
  std::unique_ptr<io::Scratch> file_;  // owns the bytes otherwise
};

}  // namespace memlayers::pool
