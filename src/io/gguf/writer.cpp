// SPDX-License-Identifier: Apache-2.0
#include "io/gguf/writer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include "io/gguf/file.h"
#include "io/shown.h"
#include "io/temporary.h"
#include "memlayers/error.h"

namespace memlayers::io::gguf {
namespace {

constexpr std::uint32_t kVersion = 3;
constexpr std::int64_t kNumbersAtOnce = 1 << 20;  // a multiple of every block

template <class Number>
void append(std::string& bytes, Number number) {
  char raw[sizeof(Number)];
  std::memcpy(raw, &number, sizeof(Number));
  bytes.append(raw, sizeof(Number));
}

void append_text(std::string& bytes, std::string_view text) {
  append(bytes, std::uint64_t{text.size()});
  bytes += text;
}

std::uint64_t bytes_of(const Writer::Tensor& tensor) {
  return static_cast<std::uint64_t>(numbers_in(tensor.shape) / tensor.type->block_numbers *
                                    tensor.type->block_bytes);
}

std::uint64_t padding(std::uint64_t bytes) {
  return (kDefaultAlignment - bytes % kDefaultAlignment) % kDefaultAlignment;
}

// Float16, and the float16 scale of a block, end at 65504.
void check_range(const std::string& path, const Writer::Tensor& tensor,
                 std::span<const float> numbers) {
  const bool is_half = tensor.type->id == kTypeF16;
  constexpr float kMostHalf = 65504;
  const float most = is_half                       ? kMostHalf
                     : tensor.type->id == kTypeQ80 ? 127 * kMostHalf
                                                   : std::numeric_limits<float>::max();
  for (const float number : numbers) {
    if (std::abs(number) <= most) continue;  // false of a NaN
    throw Error(path + ": tensor " + quote(tensor.name) + ": expected numbers that type " +
                std::string(tensor.type->name) + " holds, got " + std::to_string(number));
  }
}

void write_tensor(io::File& file, const std::string& path, const Writer::Tensor& tensor,
                  std::uint64_t place) {
  const std::int64_t all = numbers_in(tensor.shape), block = tensor.type->block_numbers;
  std::vector<float> numbers(static_cast<std::size_t>(std::min(all, kNumbersAtOnce)));
  std::vector<std::byte> bytes;
  for (std::int64_t first = 0; first < all;) {
    const std::int64_t some = std::min(all - first, kNumbersAtOnce);
    const auto piece = std::span(numbers).first(static_cast<std::size_t>(some));
    tensor.read(first, piece);
    check_range(path, tensor, piece);
    bytes.resize(static_cast<std::size_t>(some / block * tensor.type->block_bytes));
    tensor.type->encode(piece.data(), some / block, bytes.data());
    file.pwrite(bytes, place);
    place += bytes.size();
    first += some;
  }
}

}  // namespace

void Writer::put(std::string_view key, std::uint32_t type) {
  append_text(keys_, key);
  append(keys_, type);
  ++count_;
}

void Writer::text(std::string_view key, std::string_view value) {
  put(key, static_cast<std::uint32_t>(ValueType::kString));
  append_text(keys_, value);
}

void Writer::flag(std::string_view key, bool value) {
  put(key, static_cast<std::uint32_t>(ValueType::kBool));
  append(keys_, std::uint8_t{value});
}

void Writer::count(std::string_view key, std::int64_t value) {
  put(key, static_cast<std::uint32_t>(ValueType::kU32));
  append(keys_, static_cast<std::uint32_t>(value));
}

void Writer::number(std::string_view key, double value) {
  put(key, static_cast<std::uint32_t>(ValueType::kF32));
  append(keys_, static_cast<float>(value));
}

void Writer::texts(std::string_view key, const std::vector<std::string>& values) {
  put(key, static_cast<std::uint32_t>(ValueType::kArray));
  append(keys_, static_cast<std::uint32_t>(ValueType::kString));
  append(keys_, std::uint64_t{values.size()});
  for (const std::string& value : values) append_text(keys_, value);
}

void Writer::integers(std::string_view key, const std::vector<std::int32_t>& values) {
  put(key, static_cast<std::uint32_t>(ValueType::kArray));
  append(keys_, static_cast<std::uint32_t>(ValueType::kI32));
  append(keys_, std::uint64_t{values.size()});
  for (const std::int32_t value : values) append(keys_, value);
}

void Writer::numbers(std::string_view key, const std::vector<float>& values) {
  put(key, static_cast<std::uint32_t>(ValueType::kArray));
  append(keys_, static_cast<std::uint32_t>(ValueType::kF32));
  append(keys_, std::uint64_t{values.size()});
  for (const float value : values) append(keys_, value);
}

void Writer::write(FileSystem& fs, const std::string& path,
                   const std::vector<Tensor>& tensors) const {
  std::string head = "GGUF";
  append(head, kVersion);
  append(head, std::uint64_t{tensors.size()});
  append(head, count_);
  head += keys_;
  std::uint64_t offset = 0;
  for (const Tensor& tensor : tensors) {
    append_text(head, tensor.name);
    append(head, static_cast<std::uint32_t>(tensor.shape.size()));
    for (std::size_t i = tensor.shape.size(); i-- > 0;)
      append(head, std::uint64_t(tensor.shape[i]));
    append(head, tensor.type->id);
    append(head, offset);
    offset += bytes_of(tensor) + padding(bytes_of(tensor));
  }
  head.append(padding(head.size()), '\0');
  ask_for_room(fs, parent(path), head.size() + offset);
  const TemporaryName name(fs, path);
  try {
    const auto file = fs.open(name.path(), OpenMode::kCreate);
    file->pwrite(std::as_bytes(std::span(head)), 0);
    std::uint64_t place = head.size();
    for (const Tensor& tensor : tensors) {
      write_tensor(*file, path, tensor, place);
      const std::uint64_t bytes = bytes_of(tensor);
      const std::string zeros(padding(bytes), '\0');
      file->pwrite(std::as_bytes(std::span(zeros)), place + bytes);
      place += bytes + zeros.size();
    }
    file->sync();
    fs.rename_new(name.path(), path);
  } catch (...) {
    name.remove();
    throw;
  }
  fs.sync_folder(parent(path));
}

}  // namespace memlayers::io::gguf
