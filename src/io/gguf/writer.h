// SPDX-License-Identifier: Apache-2.0
// Writes GGUF files of version 3.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/file_system.h"
#include "io/gguf/types.h"

namespace memlayers::io::gguf {

class Writer {
 public:
  struct Tensor {
    std::string name;
    const TensorType* type;           // one that is written
    std::vector<std::int64_t> shape;  // outermost first; rows fill whole blocks
    // Fills `out` with numbers from `first` on; asked for all in order, in pieces of whole blocks.
    std::function<void(std::int64_t first, std::span<float> out)> read;
  };

  // Keys, in the order in which they are put.
  void text(std::string_view key, std::string_view value);
  void flag(std::string_view key, bool value);
  void count(std::string_view key, std::int64_t value);  // uint32
  void number(std::string_view key, double value);       // float32
  void texts(std::string_view key, const std::vector<std::string>& values);
  void integers(std::string_view key, const std::vector<std::int32_t>& values);
  void numbers(std::string_view key, const std::vector<float>& values);

  // A new file, whole or not at all: under a temporary name until it is written and synced. Throws
  // Error where something is at `path`, and for numbers that a tensor's type cannot hold.
  void write(FileSystem& fs, const std::string& path, const std::vector<Tensor>& tensors) const;

 private:
  void put(std::string_view key, std::uint32_t type);

  std::string keys_;
  std::uint64_t count_ = 0;
};

}  // namespace memlayers::io::gguf
