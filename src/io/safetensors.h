// SPDX-License-Identifier: Apache-2.0
// The safetensors format: an 8-byte little-endian header length, a JSON header, the tensors' bytes.
// Files from outside are untrusted: everything is checked before use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/file_system.h"

namespace memlayers::io {

enum class ElementType {
  kBool,
  kU8,
  kI8,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kF64,
  kI64,
  kU64,
  kF8E4M3,
  kF8E5M2
};

std::int64_t element_bytes(ElementType type);
std::string_view element_name(ElementType type);  // as in the header: "F32", "BF16", "I64", ...

struct TensorView {
  ElementType type;
  std::vector<std::int64_t> shape;
  // Row-major, little-endian, aligned for its elements; lives as long as its file.
  std::span<const std::byte> bytes;
};

// A mapped, fully checked file. Throws Error for anything wrong with it, naming path and tensor:
// header past the end or over 100 MB, bad JSON, duplicate or overlapping tensors, holes, a size
// that does not fit its shape, an unknown dtype.
class SafetensorsFile {
 public:
  static SafetensorsFile open(FileSystem& fs, const std::string& path);
  const std::string& path() const { return path_; }
  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const TensorView& at(const std::string& name) const;  // throws Error with the nearest name
  // Where bytes of a tensor lie in the file; none for one that was copied because it lay unaligned.
  std::optional<std::uint64_t> offset_of(std::span<const std::byte> part) const;
  // A part of a tensor's bytes is not needed in memory for now.
  void release(std::span<const std::byte> part) const;

 private:
  std::string path_;
  std::unique_ptr<Mapping> mapping_;
  std::vector<std::vector<std::byte>> copies_;  // of tensors that lie unaligned in the file
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

struct TensorToWrite {
  std::string name;
  ElementType type;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
  // Of one that does not lie in memory (`bytes` is empty): fills `out` with its elements from
  // `first` on, and is asked for all of them in order, a piece at a time.
  std::function<void(std::int64_t first, std::span<std::byte> out)> read = {};
};

// Numbers that are never written to a file.
class NotFinite : public Error {
 public:
  using Error::Error;
};

// Writes and syncs a new file; throws Error (and leaves no file) when it cannot, before it writes
// anything where the disk has no room for all of it, NotFinite where a tensor has a NaN or an
// infinity. The header is padded with spaces so that the first tensor's bytes start at a multiple
// of `alignment`. Tensors are laid out in the order given.
void write_safetensors(FileSystem& fs, const std::string& path,
                       const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata = {},
                       std::int64_t alignment = 64);

// The weights of a model folder as one: model.safetensors or, where there is none, the shards named
// by model.safetensors.index.json, as transformers has it. Throws Error where one is missing or a
// tensor is named twice.
class SafetensorsFolder {
 public:
  static SafetensorsFolder open(FileSystem& fs, const std::string& folder);
  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  const std::string& folder() const { return folder_; }
  // A part of a tensor's bytes is not needed in memory for now.
  void release(std::span<const std::byte> part) const;

 private:
  std::string folder_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, TensorView> tensors_;
};

}  // namespace memlayers::io
