// SPDX-License-Identifier: Apache-2.0
// The GGUF format, versions 2 and 3: keys and values, a list of tensors, their bytes. Files from
// outside are untrusted: everything is checked before use, and no memory is taken for what a file
// only says that it has. Time and memory go with what the head of the file holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/file_system.h"
#include "io/gguf/metadata.h"
#include "io/gguf/types.h"

namespace memlayers::io::gguf {

inline constexpr std::uint64_t kDefaultAlignment = 32;

struct Tensor {
  const TensorType* type;
  std::vector<std::int64_t> shape;   // outermost first; the file has them the other way round
  std::span<const std::byte> bytes;  // whole blocks, of any alignment; lives as long as its file
};

// The numbers of `shape`, of which the innermost fill whole blocks.
std::int64_t numbers_in(const std::vector<std::int64_t>& shape);

// A mapped, fully checked file, with the other parts of one that was split: <name>-00001-of-00003
// .gguf is the first of three. Throws Error for anything wrong with it, naming path and key or
// tensor: a file of another kind, byte order or version, cut, counts and lengths past its end,
// arrays of arrays, names that stand twice, tensors that overlap or lie outside, sizes that do not
// fit a type, a missing part.
class File {
 public:
  static File open(FileSystem& fs, const std::string& path);

  const std::string& path() const { return metadata_.path(); }
  const Metadata& metadata() const { return metadata_; }  // of the first part
  const std::map<std::string, Tensor>& tensors() const { return tensors_; }
  // A part of a tensor's bytes is not needed in memory for now.
  void release(std::span<const std::byte> part) const;

 private:
  struct Part {
    Metadata metadata;
    std::map<std::string, Tensor> tensors;
    std::unique_ptr<Mapping> mapping;
  };
  static Part open_part(FileSystem& fs, const std::string& path);
  void add_parts(FileSystem& fs);

  Metadata metadata_;
  std::map<std::string, Tensor> tensors_;
  std::vector<std::unique_ptr<Mapping>> mappings_;
};

// Whether the file at `path` (no folder) is one by its name, or else by its first four bytes.
bool is_gguf(FileSystem& fs, const std::string& path);

}  // namespace memlayers::io::gguf
