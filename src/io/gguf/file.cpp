// SPDX-License-Identifier: Apache-2.0
#include "io/gguf/file.h"

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <utility>

#include "io/file_kind.h"
#include "io/mapped_read.h"
#include "io/shown.h"
#include "memlayers/error.h"

namespace memlayers::io::gguf {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr std::string_view kSuffix = ".gguf";
constexpr std::uint32_t kMostExtents = 4;
constexpr std::uint64_t kMostKeyBytes = 65535;  // by the format
constexpr std::int64_t kMostParts = 65535;      // a uint16 in the file
// What a key and its value, a tensor and its place take at least.
constexpr std::uint64_t kLeastValueBytes = 8 + 4 + 1, kLeastTensorBytes = 8 + 4 + 4 + 8;

// The head of a file, from front to back. Every step is checked against what is left.
class Cursor {
 public:
  Cursor(const std::string& path, std::span<const std::byte> bytes) : path_(path), rest_(bytes) {
    size_ = bytes.size();
  }

  std::uint64_t place() const { return size_ - rest_.size(); }
  std::uint64_t left() const { return rest_.size(); }

  std::span<const std::byte> take(std::uint64_t bytes, const char* what) {
    if (bytes > rest_.size()) {
      throw Error(path_ + ": expected " + what + " of " + std::to_string(bytes) +
                  " bytes at offset " + std::to_string(place()) + ", got the end of the file, " +
                  std::to_string(rest_.size()) + " bytes on");
    }
    const auto taken = rest_.first(bytes);
    rest_ = rest_.subspan(bytes);
    return taken;
  }

  template <class Number>
  Number number(const char* what) {
    Number number{};
    copy_mapped(&number, take(sizeof(Number), what));
    return number;
  }

  // How many things of at least `least` bytes follow.
  std::uint64_t count(const char* what, std::uint64_t least) {
    const auto count = number<std::uint64_t>(what);
    check_count(count, what, least);
    return count;
  }

  void check_count(std::uint64_t count, const char* what, std::uint64_t least) const {
    if (count <= rest_.size() / least) return;
    throw Error(path_ + ": expected " + what + " of at most " +
                std::to_string(rest_.size() / least) + ", as many as fit the file, got " +
                std::to_string(count) + " before offset " + std::to_string(place()));
  }

  std::string name(const char* what) {
    const auto length = number<std::uint64_t>(what);
    if (length > kMostKeyBytes) {
      throw Error(path_ + ": expected " + what + " of at most " + std::to_string(kMostKeyBytes) +
                  " bytes before offset " + std::to_string(place()) + ", got a length of " +
                  std::to_string(length));
    }
    std::string text(length, '\0');
    copy_mapped(text.data(), take(length, what));
    return text;
  }

 private:
  const std::string& path_;
  std::span<const std::byte> rest_;
  std::uint64_t size_;
};

ValueType read_value_type(Cursor& head, const std::string& where) {
  const auto type = head.number<std::uint32_t>("a type");
  if (type > static_cast<std::uint32_t>(ValueType::kF64)) {
    throw Error(where + ": expected a type from 0 to 12, got " + std::to_string(type));
  }
  return static_cast<ValueType>(type);
}

std::span<const std::byte> take_strings(Cursor& head, std::span<const std::byte> from,
                                        std::uint64_t count) {
  const std::uint64_t begin = head.place();
  for (std::uint64_t i = 0; i < count; ++i) {
    head.take(head.number<std::uint64_t>("the length of a string"), "a string");
  }
  return from.first(head.place() - begin);
}

Value read_value(Cursor& head, std::span<const std::byte> file, const std::string& where) {
  Value value{};
  value.type = read_value_type(head, where);
  if (value.type == ValueType::kString) {
    value.bytes = head.take(head.number<std::uint64_t>("the length of a string"), "a string");
    return value;
  }
  if (value.type != ValueType::kArray) {
    value.bytes = head.take(value_bytes(value.type), "a value");
    return value;
  }
  value.element = read_value_type(head, where);
  if (value.element == ValueType::kArray) {
    throw Error(where + ": expected an array of numbers or strings, got one of arrays");
  }
  const bool has_strings = value.element == ValueType::kString;
  const std::uint64_t least = has_strings ? 8 : value_bytes(value.element);
  value.count = head.count("an array", least);
  value.bytes = has_strings ? take_strings(head, file.subspan(head.place()), value.count)
                            : head.take(value.count * least, "an array");
  return value;
}

struct Place {
  std::uint64_t begin, size;
  const std::string* name;
};

// Everything but the bytes; `size` is how many those are.
Tensor read_tensor(Cursor& head, const std::string& where, std::uint64_t& size) {
  Tensor tensor{};
  const auto extents = head.number<std::uint32_t>("a number of dimensions");
  if (extents < 1 || extents > kMostExtents) {
    throw Error(where + ": expected 1 to " + std::to_string(kMostExtents) + " dimensions, got " +
                std::to_string(extents));
  }
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  std::uint64_t numbers = 1;
  for (std::uint32_t i = 0; i < extents; ++i) {
    const auto extent = head.number<std::uint64_t>("a dimension");
    if (extent == 0 || extent > kMost / numbers) {
      throw Error(where + ": expected dimensions of at least 1 whose product is below 2^63, got " +
                  std::to_string(extent));
    }
    numbers *= extent;
    tensor.shape.push_back(static_cast<std::int64_t>(extent));
  }
  const auto id = head.number<std::uint32_t>("a type");
  tensor.type = find_type(id);
  if (tensor.type == nullptr) {
    throw Error(where + ": expected a known type, got " + std::to_string(id));
  }
  const std::int64_t block = tensor.type->block_numbers;
  if (tensor.shape.front() % block != 0) {
    throw Error(where + ": expected rows of a multiple of " + std::to_string(block) +
                " numbers, as type " + std::string(tensor.type->name) + " has them, got " +
                std::to_string(tensor.shape.front()));
  }
  const std::uint64_t blocks = numbers / static_cast<std::uint64_t>(block);
  const auto block_bytes = static_cast<std::uint64_t>(tensor.type->block_bytes);
  if (blocks > kMost / block_bytes) {
    throw Error(where + ": expected a size below 2^63 bytes, got " + std::to_string(blocks) +
                " blocks of " + std::to_string(block_bytes));
  }
  size = blocks * block_bytes;
  std::ranges::reverse(tensor.shape);
  return tensor;
}

void check_beginning(Cursor& head, const std::string& path, std::span<const std::byte> bytes) {
  std::string beginning(std::min<std::size_t>(bytes.size(), 64), '\0');
  copy_mapped(beginning.data(), bytes.first(beginning.size()));
  if (!beginning.starts_with(kMagic)) {
    const std::string_view kind = known_kind(beginning);
    throw Error(path + ": expected a GGUF file, got " +
                (kind.empty() ? "one that begins with " + quote(beginning.substr(0, 4))
                              : std::string(kind)));
  }
  head.take(kMagic.size(), "the file's kind");
  const auto version = head.number<std::uint32_t>("a version");
  if (version != 0 && version % 65536 == 0) {
    throw Error(path + ": expected a little-endian GGUF file, got a big-endian one");
  }
  if (version != 2 && version != 3) {
    throw Error(path + ": expected GGUF version 2 or 3, got " + std::to_string(version));
  }
}

std::uint64_t read_alignment(const Metadata& metadata) {
  const auto field = metadata.find("general.alignment");
  if (!field) return kDefaultAlignment;
  const std::int64_t alignment = field->integer(1, std::int64_t{1} << 31);
  if ((alignment & (alignment - 1)) != 0) field->fail("a power of two");
  return static_cast<std::uint64_t>(alignment);
}

void check_overlaps(const std::string& path, std::vector<Place> places) {
  std::ranges::sort(places, {}, &Place::begin);
  for (std::size_t i = 1; i < places.size(); ++i) {
    if (places[i].begin - places[i - 1].begin >= places[i - 1].size) continue;
    throw Error(path + ": expected tensors that do not overlap, got " + quote(*places[i - 1].name) +
                " and " + quote(*places[i].name) + " at offset " + std::to_string(places[i].begin) +
                " of the data");
  }
}

// "-00001-of-00003.gguf"
std::string part_suffix(std::int64_t part, std::int64_t parts) {
  const auto five_digits = [](std::int64_t number) {
    const std::string digits = std::to_string(number);
    return std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0') + digits;
  };
  return "-" + five_digits(part) + "-of-" + five_digits(parts) + std::string(kSuffix);
}

std::int64_t part_number(const Metadata& metadata) {
  const auto number = metadata.find("split.no");
  return number ? number->integer(0, kMostParts) : 0;
}

std::int64_t part_count(const Metadata& metadata) {
  const auto count = metadata.find("split.count");
  return count ? count->integer(0, kMostParts) : 1;
}

}  // namespace

std::int64_t numbers_in(const std::vector<std::int64_t>& shape) {
  std::int64_t numbers = 1;
  for (const std::int64_t extent : shape) numbers *= extent;
  return numbers;
}

File::Part File::open_part(FileSystem& fs, const std::string& path) {
  Part part{.metadata = Metadata(path), .tensors = {}, .mapping = fs.map(path)};
  const std::span<const std::byte> bytes = part.mapping->bytes();
  Cursor head(path, bytes);
  check_beginning(head, path, bytes);
  const auto tensors = head.number<std::uint64_t>("a number of tensors");
  const std::uint64_t values = head.count("a number of keys", kLeastValueBytes);
  head.check_count(tensors, "a number of tensors", kLeastTensorBytes);
  for (std::uint64_t i = 0; i < values; ++i) {
    std::string key = head.name("a key");
    const std::string where = path + ": key " + quote(key);
    const Value value = read_value(head, bytes, where);
    if (!part.metadata.add(std::move(key), value)) {
      throw Error(where + ": expected each key once, got it twice");
    }
  }
  std::vector<Place> places;
  for (std::uint64_t i = 0; i < tensors; ++i) {
    std::string name = head.name("a tensor's name");
    const std::string where = path + ": tensor " + quote(name);
    std::uint64_t size = 0;
    Tensor tensor = read_tensor(head, where, size);
    const auto begin = head.number<std::uint64_t>("a tensor's offset");
    const auto [added, is_new] = part.tensors.emplace(std::move(name), std::move(tensor));
    if (!is_new) throw Error(where + ": expected each name once, got it twice");
    places.push_back({begin, size, &added->first});
  }
  const std::uint64_t alignment = read_alignment(part.metadata);
  const std::uint64_t padding = (alignment - head.place() % alignment) % alignment;
  const auto data = tensors == 0 ? std::span<const std::byte>()
                                 : bytes.subspan(std::min(head.place() + padding, bytes.size()));
  for (const Place& place : places) {
    const std::string where = path + ": tensor " + quote(*place.name);
    if (place.begin % alignment != 0) {
      throw Error(where + ": expected an offset that is a multiple of " +
                  std::to_string(alignment) + ", got " + std::to_string(place.begin));
    }
    if (place.begin > data.size() || place.size > data.size() - place.begin) {
      throw Error(where + ": expected data inside the file's " + std::to_string(data.size()) +
                  " bytes, got " + std::to_string(place.size) + " at offset " +
                  std::to_string(place.begin));
    }
    part.tensors.at(*place.name).bytes = data.subspan(place.begin, place.size);
  }
  check_overlaps(path, std::move(places));
  return part;
}

File File::open(FileSystem& fs, const std::string& path) {
  File file;
  Part first = open_part(fs, path);
  file.metadata_ = std::move(first.metadata);
  file.tensors_ = std::move(first.tensors);
  file.mappings_.push_back(std::move(first.mapping));
  file.add_parts(fs);
  return file;
}

void File::add_parts(FileSystem& fs) {
  const std::int64_t parts = part_count(metadata_), number = part_number(metadata_);
  if (parts <= 1) return;
  const std::string suffix = part_suffix(number + 1, parts);
  if (!path().ends_with(suffix)) {
    throw Error(path() + ": expected a name that ends with " + suffix + ", since it is part " +
                std::to_string(number + 1) + " of " + std::to_string(parts));
  }
  const std::string stem = path().substr(0, path().size() - suffix.size());
  if (number != 0) {
    throw Error(path() + ": expected the first part of a model, " + stem + part_suffix(1, parts) +
                ", got part " + std::to_string(number + 1));
  }
  for (std::int64_t i = 1; i < parts; ++i) {
    Part part = open_part(fs, stem + part_suffix(i + 1, parts));
    const std::string& where = part.metadata.path();
    if (part_number(part.metadata) != i || part_count(part.metadata) != parts) {
      throw Error(where + ": expected part " + std::to_string(i + 1) + " of " +
                  std::to_string(parts) + ", got " +
                  std::to_string(part_number(part.metadata) + 1) + " of " +
                  std::to_string(part_count(part.metadata)));
    }
    for (auto& [name, tensor] : part.tensors) {
      if (!tensors_.emplace(name, std::move(tensor)).second) {
        throw Error(where + ": tensor " + quote(name) + ": also in another part");
      }
    }
    mappings_.push_back(std::move(part.mapping));
  }
  const auto total = metadata_.find("split.tensors.count");
  const auto found = static_cast<std::int64_t>(tensors_.size());
  if (total && total->integer(0, INT64_MAX) != found) {
    total->fail(std::to_string(found) + ", as many as all parts have");
  }
}

void File::release(std::span<const std::byte> part) const {
  for (const auto& mapping : mappings_) {
    const std::byte* begin = mapping->bytes().data();
    const std::byte* end = begin + mapping->bytes().size();
    if (std::less<>()(part.data(), begin) || !std::less<>()(part.data(), end)) continue;
    mapping->release(part);
    return;
  }
}

bool is_gguf(FileSystem& fs, const std::string& path) {
  if (fs.is_folder(path) || !fs.exists(path)) return false;
  if (path.ends_with(kSuffix)) return true;
  const auto file = fs.open(path, OpenMode::kRead);
  std::array<char, 4> beginning{};
  if (file->size() < beginning.size()) return false;
  file->pread(std::as_writable_bytes(std::span(beginning)), 0);
  return std::string_view(beginning.data(), beginning.size()) == kMagic;
}

}  // namespace memlayers::io::gguf
