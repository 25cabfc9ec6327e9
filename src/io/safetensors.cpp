// SPDX-License-Identifier: Apache-2.0
#include "io/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "io/file_kind.h"
#include "io/finite.h"
#include "io/json.h"
#include "io/mapped_read.h"
#include "io/nearest.h"
#include "io/shown.h"
#include "memlayers/error.h"

namespace memlayers::io {
namespace {

struct TypeInfo {
  ElementType type;
  std::string_view name;
  std::int64_t bytes;
};

constexpr std::array<TypeInfo, 15> kTypes{{{ElementType::kBool, "BOOL", 1},
                                           {ElementType::kU8, "U8", 1},
                                           {ElementType::kI8, "I8", 1},
                                           {ElementType::kI16, "I16", 2},
                                           {ElementType::kU16, "U16", 2},
                                           {ElementType::kF16, "F16", 2},
                                           {ElementType::kBF16, "BF16", 2},
                                           {ElementType::kI32, "I32", 4},
                                           {ElementType::kU32, "U32", 4},
                                           {ElementType::kF32, "F32", 4},
                                           {ElementType::kF64, "F64", 8},
                                           {ElementType::kI64, "I64", 8},
                                           {ElementType::kU64, "U64", 8},
                                           {ElementType::kF8E4M3, "F8_E4M3", 1},
                                           {ElementType::kF8E5M2, "F8_E5M2", 1}}};

const TypeInfo& info(ElementType type) {
  return *std::find_if(kTypes.begin(), kTypes.end(),
                       [&](const TypeInfo& t) { return t.type == type; });
}

constexpr std::uint64_t kMaxHeader = 100'000'000;  // as the format's own reader has it

struct Parsed {
  TensorView view;
  std::uint64_t begin, end;
};

std::uint64_t offset_of(const nlohmann::json& value, const std::string& where) {
  if (!value.is_number_unsigned()) {
    throw Error(where + ": expected data_offsets of two whole numbers >= 0, got " + brief(value));
  }
  return value.get<std::uint64_t>();
}

Parsed parse_tensor(const std::string& where, const nlohmann::json& entry,
                    std::span<const std::byte> data) {
  if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") ||
      !entry.contains("data_offsets") || !entry["dtype"].is_string() ||
      !entry["shape"].is_array() || !entry["data_offsets"].is_array() ||
      entry["data_offsets"].size() != 2) {
    throw Error(where + ": expected an object of dtype, shape and data_offsets");
  }
  const std::string dtype = entry["dtype"].get<std::string>();
  const auto type = std::find_if(kTypes.begin(), kTypes.end(),
                                 [&](const TypeInfo& t) { return t.name == dtype; });
  if (type == kTypes.end()) throw Error(where + ": expected a known dtype, got " + quote(dtype));
  Parsed parsed{{type->type, {}, {}},
                offset_of(entry["data_offsets"][0], where),
                offset_of(entry["data_offsets"][1], where)};
  auto bytes = static_cast<std::uint64_t>(type->bytes);
  for (const nlohmann::json& extent : entry["shape"]) {
    if (!extent.is_number_unsigned()) {
      throw Error(where + ": expected a shape of whole numbers >= 0, got " + brief(entry["shape"]));
    }
    const auto n = extent.get<std::uint64_t>();
    constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    if (n > kMax || (n != 0 && bytes > kMax / n)) {
      throw Error(where + ": expected a size below 2^63 bytes, got shape " + brief(entry["shape"]));
    }
    bytes *= n;
    parsed.view.shape.push_back(static_cast<std::int64_t>(n));
  }
  if (parsed.end > data.size() || parsed.begin > parsed.end) {
    throw Error(where + ": expected data inside the file's " + std::to_string(data.size()) +
                " bytes, got offsets " + std::to_string(parsed.begin) + " to " +
                std::to_string(parsed.end));
  }
  if (parsed.end - parsed.begin != bytes) {
    throw Error(where + ": expected " + std::to_string(bytes) + " bytes for " + dtype + " " +
                brief(entry["shape"]) + ", got " + std::to_string(parsed.end - parsed.begin));
  }
  parsed.view.bytes = data.subspan(parsed.begin, bytes);
  return parsed;
}

void read_metadata(const std::string& path, const nlohmann::json& entry,
                   std::map<std::string, std::string>& metadata) {
  if (!entry.is_object()) throw Error(path + ": __metadata__: expected an object of strings");
  for (const auto& [key, value] : entry.items()) {
    if (!value.is_string()) {
      throw Error(path + ": __metadata__: expected a string for " + quote(key) + ", got " +
                  brief(value));
    }
    metadata[key] = value.get<std::string>();
  }
}

}  // namespace

std::int64_t element_bytes(ElementType type) { return info(type).bytes; }
std::string_view element_name(ElementType type) { return info(type).name; }

SafetensorsFile SafetensorsFile::open(FileSystem& fs, const std::string& path) {
  SafetensorsFile file;
  file.path_ = path;
  file.mapping_ = fs.map(path);
  const std::span<const std::byte> bytes = file.mapping_->bytes();
  if (bytes.size() < 8) {
    throw Error(path + ": expected a safetensors header, got a file of " +
                std::to_string(bytes.size()) + " bytes");
  }
  std::string beginning(std::min<std::size_t>(bytes.size(), 64), '\0');
  copy_mapped(beginning.data(), bytes.first(beginning.size()));
  if (const std::string_view kind = known_kind(beginning); !kind.empty()) {
    throw Error(path + ": expected a safetensors file, got " + std::string(kind));
  }
  std::uint64_t header_bytes = 0;
  copy_mapped(&header_bytes, bytes.first(8));
  if (header_bytes > bytes.size() - 8 || header_bytes > kMaxHeader) {
    throw Error(path + ": expected a header of at most " +
                std::to_string(std::min<std::uint64_t>(bytes.size() - 8, kMaxHeader)) +
                " bytes, got a length of " + std::to_string(header_bytes));
  }
  std::string text(header_bytes, '\0');
  copy_mapped(text.data(), bytes.subspan(8, header_bytes));
  const std::span<const std::byte> data = bytes.subspan(8 + header_bytes);
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
  parse_json_members(text, path + ": header",
                     [&](const std::string& name, const nlohmann::json& entry) {
                       if (name == "__metadata__") {
                         read_metadata(path, entry, file.metadata_);
                         return;
                       }
                       Parsed parsed = parse_tensor(path + ": tensor " + quote(name), entry, data);
                       ranges.emplace_back(parsed.begin, parsed.end);
                       const auto size = static_cast<std::size_t>(element_bytes(parsed.view.type));
                       if (reinterpret_cast<std::uintptr_t>(parsed.view.bytes.data()) % size != 0) {
                         // Old writers did not pad the header; readers of numbers need them
                         // aligned.
                         auto& copy = file.copies_.emplace_back(parsed.view.bytes.size());
                         copy_mapped(copy.data(), parsed.view.bytes);
                         parsed.view.bytes = copy;
                       }
                       file.tensors_.emplace(name, std::move(parsed.view));
                     });
  std::sort(ranges.begin(), ranges.end());
  std::uint64_t end = 0;
  for (const auto& [begin, stop] : ranges) {
    if (begin != end) {
      throw Error(path + ": expected tensors one after the other, got " +
                  (begin < end ? "two that overlap" : "a hole") + " at offset " +
                  std::to_string(std::min(begin, end)) + " of the data");
    }
    end = stop;
  }
  if (end != data.size()) {
    throw Error(path + ": expected " + std::to_string(end) + " bytes of data, got " +
                std::to_string(data.size()));
  }
  return file;
}

const TensorView& SafetensorsFile::at(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found != tensors_.end()) return found->second;
  std::string message = path_ + ": expected a tensor \"" + name + "\", found none";
  std::vector<std::string> names;
  for (const auto& [candidate, view] : tensors_) names.push_back(candidate);
  const std::string guess = nearest(name, names);
  if (!guess.empty()) message += " (the nearest is " + quote(guess) + ")";
  throw Error(message);
}

std::optional<std::uint64_t> SafetensorsFile::offset_of(std::span<const std::byte> part) const {
  const std::byte* begin = mapping_->bytes().data();
  const std::byte* end = begin + mapping_->bytes().size();
  if (std::less<>()(part.data(), begin) || !std::less<>()(part.data(), end)) return std::nullopt;
  return static_cast<std::uint64_t>(part.data() - begin);
}

void SafetensorsFile::release(std::span<const std::byte> part) const {
  if (offset_of(part)) mapping_->release(part);
}

namespace {
std::uint64_t bytes_to_write(const TensorToWrite& tensor) {
  std::int64_t bytes = element_bytes(tensor.type);
  for (const std::int64_t extent : tensor.shape) bytes *= extent;
  return static_cast<std::uint64_t>(bytes);
}

void check_finite(const std::string& path, const TensorToWrite& tensor,
                  std::span<const std::byte> bytes) {
  if (all_finite(bytes, tensor.type)) return;
  throw NotFinite(path + ": tensor \"" + tensor.name +
                  "\": expected finite numbers, got NaN or infinity");
}

void check_to_write(const std::string& path, const TensorToWrite& tensor) {
  if (tensor.read) return;  // as it is written
  const std::uint64_t bytes = bytes_to_write(tensor);
  if (bytes != tensor.bytes.size()) {
    throw Error(path + ": tensor \"" + tensor.name + "\": expected " + std::to_string(bytes) +
                " bytes for its shape, got " + std::to_string(tensor.bytes.size()));
  }
  check_finite(path, tensor, tensor.bytes);
}

void write_tensor(File& file, const std::string& path, const TensorToWrite& tensor,
                  std::uint64_t place) {
  if (!tensor.read) return file.pwrite(tensor.bytes, place);
  constexpr std::uint64_t kAtOnce = 4 << 20;
  const std::uint64_t bytes = bytes_to_write(tensor);
  std::vector<std::byte> buffer(std::min(bytes, kAtOnce));
  for (std::uint64_t at = 0; at < bytes;) {
    const auto piece = std::span(buffer).first(std::min<std::uint64_t>(kAtOnce, bytes - at));
    tensor.read(static_cast<std::int64_t>(at) / element_bytes(tensor.type), piece);
    check_finite(path, tensor, piece);
    file.pwrite(piece, place + at);
    at += piece.size();
  }
}
}  // namespace

void write_safetensors(FileSystem& fs, const std::string& path,
                       const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata, std::int64_t alignment) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    const std::uint64_t end = offset + bytes_to_write(tensor);
    check_to_write(path, tensor);
    if (header.contains(tensor.name)) {
      throw Error(path + ": tensor \"" + tensor.name + "\": expected each name once, got it twice");
    }
    header[tensor.name] = {{"dtype", std::string(element_name(tensor.type))},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception&) {
    throw Error(path + ": expected names and metadata in UTF-8");
  }
  const auto unit = static_cast<std::size_t>(std::max<std::int64_t>(8, alignment));
  text.append((unit - (8 + text.size()) % unit) % unit, ' ');
  const std::uint64_t header_bytes = text.size();
  std::uint64_t all = 8 + header_bytes;
  for (const TensorToWrite& tensor : tensors) all += bytes_to_write(tensor);
  ask_for_room(fs, parent(path), all);
  const auto file = fs.open(path, OpenMode::kCreate);
  try {
    file->pwrite(std::as_bytes(std::span(&header_bytes, 1)), 0);
    file->pwrite(std::as_bytes(std::span(text)), 8);
    std::uint64_t place = 8 + header_bytes;
    for (const TensorToWrite& tensor : tensors) {
      write_tensor(*file, path, tensor, place);
      place += bytes_to_write(tensor);
    }
    file->sync();
  } catch (...) {
    try {
      fs.unlink(path);
    } catch (const Error&) {  // the first error is the one to tell
    }
    throw;
  }
}

SafetensorsFolder SafetensorsFolder::open(FileSystem& fs, const std::string& folder) {
  SafetensorsFolder all;
  all.folder_ = folder;
  const std::string index_path = join(folder, "model.safetensors.index.json");
  std::map<std::string, std::vector<std::string>> expected;  // file -> tensors
  const std::string single = "model.safetensors";
  if (!fs.exists(join(folder, single)) && fs.exists(index_path)) {
    const nlohmann::json index = parse_json(read_text(fs, index_path), index_path);
    if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
      throw Error(index_path + ": expected an object \"weight_map\" of tensors and their files");
    }
    for (const auto& [tensor, file] : index["weight_map"].items()) {
      if (!file.is_string() || file.get<std::string>().empty() ||
          file.get<std::string>().find('/') != std::string::npos) {
        throw Error(index_path + ": weight_map: expected names of files in this folder, got " +
                    brief(file) + " for " + quote(tensor));
      }
      expected[file.get<std::string>()].push_back(tensor);
    }
  } else {
    expected[single];
  }
  for (const auto& [name, wanted] : expected) {
    all.files_.push_back(SafetensorsFile::open(fs, join(folder, name)));
    for (const auto& [tensor, view] : all.files_.back().tensors()) {
      if (!all.tensors_.emplace(tensor, view).second) {
        throw Error(join(folder, name) + ": tensor " + quote(tensor) + ": also in another file");
      }
    }
    for (const std::string& tensor : wanted) all.files_.back().at(tensor);
  }
  return all;
}

void SafetensorsFolder::release(std::span<const std::byte> part) const {
  for (const SafetensorsFile& file : files_) file.release(part);
}

}  // namespace memlayers::io
