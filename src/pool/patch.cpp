// SPDX-License-Identifier: Apache-2.0
#include "pool/patch.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <numeric>

#include "io/folder.h"
#include "io/safetensors.h"
#include "io/shown.h"
#include "io/temporary.h"
#include "pool/chunks.h"
#include "pool/finite.h"
#include "pool/overlay.h"
#include "pool/row_format.h"
#include "pool/rows_file.h"
#include "pool/sub_keys.h"

namespace memlayers {
namespace {

constexpr const char* kFormat = "memlayers-patch";
constexpr const char* kWithSubKeys = "2";  // the version, so that an older reader refuses it
constexpr const char* kSubjects = "subjects";
constexpr std::string_view kNote = "note.";  // before the names of free metadata

std::string field(const io::SafetensorsFile& file, const std::string& name) {
  const auto found = file.metadata().find(name);
  if (found != file.metadata().end()) return found->second;
  throw Error(file.path() + ": expected metadata " + name + ", found none");
}

std::vector<std::int64_t> slots_of(const io::SafetensorsFile& file, const std::string& name) {
  const io::TensorView& tensor = file.at(name);
  if (tensor.type != io::ElementType::kI64 || tensor.shape.size() != 1) {
    throw Error(file.path() + ": tensor \"" + name + "\": expected I64 [n], got " +
                std::string(io::element_name(tensor.type)) + " with " +
                std::to_string(tensor.shape.size()) + " dimensions");
  }
  return pool::to_slots(tensor.bytes);
}

RowType type_of(const io::SafetensorsFile& file) {
  const std::string name = field(file, "dtype");
  for (RowType type : {RowType::kFloat32, RowType::kBFloat16, RowType::kInt8, RowType::kInt4}) {
    if (name == row_type_name(type)) return type;
  }
  throw Error(file.path() + ": metadata dtype: expected float32, bfloat16, int8 or int4, got " +
              io::quote(name));
}

std::int64_t width_of(const io::SafetensorsFile& file) {
  const std::string text = field(file, "width");
  std::int64_t width = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), width);
  if (error == std::errc() && end == text.data() + text.size() && width >= 1 &&
      width <= std::int64_t{1} << 40) {
    return width;
  }
  throw Error(file.path() + ": metadata width: expected a number in [1, 2^40], got " +
              io::quote(text));
}

}  // namespace

std::string new_patch_id() { return pool::new_pool_id(); }

Patch read_patch(const std::string& path) { return pool::read_patch(io::posix(), path); }

Patch pool::read_patch(io::FileSystem& fs, const std::string& path) {
  const auto file = io::SafetensorsFile::open(fs, path);
  const auto refuse = [&](const std::string& got) {
    throw Error(path + ": expected a " + kFormat + " of version 1 or 2, got " + got);
  };
  const std::string kind = field(file, "format");
  if (kind != kFormat) refuse(io::shown(kind));
  const std::string version = field(file, "version");
  if (version != "1" && version != kWithSubKeys) {
    refuse(io::shown(kind) + " " + io::shown(version));
  }
  Patch patch;
  patch.id = field(file, "patch");
  patch.pool = field(file, "pool");
  patch.width = width_of(file);
  patch.row_dtype = type_of(file);
  for (const auto& [name, value] : file.metadata()) {
    if (name.starts_with(kNote)) patch.notes[name.substr(kNote.size())] = value;
  }
  const std::vector<std::int64_t> slots = slots_of(file, "slots");
  const io::TensorView& rows = file.at("rows");
  const pool::RowFormat format = pool::row_format(patch.row_dtype, patch.width);
  if (rows.type != pool::element_type(patch.row_dtype) || rows.shape.size() != 2 ||
      rows.shape[0] != static_cast<std::int64_t>(slots.size()) ||
      rows.shape[1] != format.elements) {
    throw Error(path + ": tensor \"rows\": expected " +
                std::string(io::element_name(pool::element_type(patch.row_dtype))) + " [" +
                std::to_string(slots.size()) + ", " + std::to_string(format.elements) +
                "] by slots, width and dtype, got another shape or type");
  }
  std::vector<std::size_t> order(slots.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return slots[i]; });
  const auto row_bytes = static_cast<std::size_t>(format.bytes());
  patch.rows.resize(rows.bytes.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    patch.slots.push_back(slots[order[i]]);
  }
  pool::copy_rows(static_cast<std::int64_t>(order.size()), format.bytes(), patch.rows.data(),
                  [&](std::int64_t i) {
                    return rows.bytes.data() + order[static_cast<std::size_t>(i)] * row_bytes;
                  });
  if (file.tensors().contains("erased")) {
    patch.erased = slots_of(file, "erased");
    std::ranges::sort(patch.erased);
  }
  if (file.tensors().contains(kSubjects)) {
    const io::TensorView& tensor = file.at(kSubjects);
    if (tensor.type != io::ElementType::kU8 || tensor.shape.size() != 1) {
      throw Error(path + ": tensor \"subjects\": expected U8 [n], got " +
                  std::string(io::element_name(tensor.type)) + " with " +
                  std::to_string(tensor.shape.size()) + " dimensions");
    }
    std::vector<std::byte> bytes(tensor.bytes.size());
    io::copy_mapped(bytes.data(), tensor.bytes);
    patch.subjects = subjects_of(bytes, path + ": tensor \"subjects\"");
  }
  if (version == kWithSubKeys) patch.sub_keys = pool::read_sub_keys(file);
  const std::string content = pool::content_digest(pool::writes_of(patch));
  if (file.metadata().contains("content") && field(file, "content") != content) {
    throw Error(path + ": expected content " + field(file, "content") + " by its metadata, got " +
                content + ": the file was altered");
  }
  pool::check_finite_rows(path, patch.slots, patch.rows, patch.row_dtype, patch.width);
  return patch;
}

void pool::write_patch(io::FileSystem& fs, const std::string& path, const Patch& patch,
                       bool is_new) {
  const pool::RowFormat format = pool::row_format(patch.row_dtype, patch.width);
  std::map<std::string, std::string> metadata{
      {"format", kFormat},
      {"version", patch.sub_keys.places.empty() ? "1" : kWithSubKeys},
      {"patch", patch.id},
      {"pool", patch.pool},
      {"width", std::to_string(patch.width)},
      {"dtype", row_type_name(patch.row_dtype)},
      {"content", pool::content_digest(pool::writes_of(patch))}};
  for (const auto& [name, value] : patch.notes) metadata[std::string(kNote) + name] = value;
  pool::check_finite_rows(path, patch.slots, patch.rows, patch.row_dtype, patch.width);
  std::vector<io::TensorToWrite> tensors{
      {"slots",
       io::ElementType::kI64,
       {static_cast<std::int64_t>(patch.slots.size())},
       std::as_bytes(std::span(patch.slots))},
      {"rows",
       pool::element_type(patch.row_dtype),
       {static_cast<std::int64_t>(patch.slots.size()), format.elements},
       patch.rows},
      {"erased",
       io::ElementType::kI64,
       {static_cast<std::int64_t>(patch.erased.size())},
       std::as_bytes(std::span(patch.erased))}};
  for (io::TensorToWrite& tensor : pool::tensors_of(patch.sub_keys)) {
    tensors.push_back(std::move(tensor));
  }
  const std::vector<std::byte> subjects =
      patch.subjects.empty() ? std::vector<std::byte>{} : to_bytes(patch.subjects);
  if (!subjects.empty()) {
    tensors.push_back(
        {kSubjects, io::ElementType::kU8, {static_cast<std::int64_t>(subjects.size())}, subjects});
  }
  const io::TemporaryName temporary(fs, path);
  io::write_safetensors(fs, temporary.path(), tensors, metadata);
  try {
    is_new ? fs.rename_new(temporary.path(), path) : fs.rename(temporary.path(), path);
  } catch (...) {
    temporary.remove();
    throw;
  }
  fs.sync_folder(io::parent(path));
}

void write_patch(const std::string& path, const Patch& patch) {
  pool::write_patch(io::posix(), path, patch);
}

void write_new_patch(const std::string& path, const Patch& patch) {
  pool::write_patch(io::posix(), path, patch, /*is_new=*/true);
}

namespace pool {
namespace {

void check_slots(const std::string& what, const std::vector<std::int64_t>& slots,
                 std::int64_t rows) {
  for (std::size_t i = 0; i < slots.size(); ++i) {
    if (slots[i] < 0 || slots[i] >= rows) {
      throw Error(what + ": expected slots in [0, " + std::to_string(rows) + "), got " +
                  std::to_string(slots[i]));
    }
    if (i > 0 && slots[i] == slots[i - 1]) {
      throw Error(what + ": expected each slot once, got " + std::to_string(slots[i]) + " twice");
    }
    if (i > 0 && slots[i] < slots[i - 1]) {
      throw Error(what + ": expected ascending slots, got " + std::to_string(slots[i]) +
                  " behind " + std::to_string(slots[i - 1]));
    }
  }
}

}  // namespace

void check_patch(const Patch& patch, const PoolInfo& pool,
                 const std::optional<SubKeyGrid>& sub_keys) {
  const std::string what = "patch " + io::shown(patch.id);
  if (patch.id.empty() || patch.id.size() > 256) {
    throw Error("patch: expected an id of 1 to 256 characters, got one of " +
                std::to_string(patch.id.size()));
  }
  if (patch.pool != pool.id) {
    throw Error(what + ": expected a patch for pool " + io::shown(pool.id) + ", got one for pool " +
                io::shown(patch.pool));
  }
  if (patch.width != pool.width || patch.row_dtype != pool.type) {
    throw Error(what + ": expected rows of " + std::to_string(pool.width) + " " +
                row_type_name(pool.type) + ", got " + std::to_string(patch.width) + " " +
                row_type_name(patch.row_dtype));
  }
  const auto row_bytes = static_cast<std::size_t>(row_format(pool.type, pool.width).bytes());
  if (patch.rows.size() != patch.slots.size() * row_bytes) {
    throw Error(what + ": expected " + std::to_string(row_bytes) + " bytes for each of " +
                std::to_string(patch.slots.size()) + " slots, got " +
                std::to_string(patch.rows.size()));
  }
  check_sub_keys(what, patch.sub_keys);
  if (patch.slots.empty() && patch.erased.empty() && patch.sub_keys.places.empty()) {
    throw Error(what + ": expected at least one slot or sub-key, got none");
  }
  if (sub_keys) {
    check_fits(what, patch.sub_keys, *sub_keys);
  } else if (!patch.sub_keys.places.empty()) {
    throw Error(what +
                ": expected a store that was opened with the sub-keys of its model "
                "(StoreOptions::sub_keys), got a patch that writes some");
  }
  check_slots(what, patch.slots, pool.rows);
  check_slots(what, patch.erased, pool.rows);
  std::vector<std::int64_t> both;
  std::ranges::set_intersection(patch.slots, patch.erased, std::back_inserter(both));
  if (!both.empty()) {
    throw Error(what + ": expected each slot once, got " + std::to_string(both.front()) +
                " as a row and as erased");
  }
  check_finite_rows(what, patch.slots, patch.rows, pool.type, pool.width);
}

void check_finite_rows(const std::string& what, std::span<const std::int64_t> slots,
                       std::span<const std::byte> rows, RowType type, std::int64_t width) {
  const auto wrong = first_not_finite(rows, type, width);
  if (!wrong) return;
  const auto row = static_cast<std::size_t>(*wrong);
  throw Error(what + ": expected finite numbers, got NaN or infinity in " +
              (row < slots.size() ? "the row of slot " + std::to_string(slots[row])
                                  : "row " + std::to_string(row)));
}

}  // namespace pool
}  // namespace memlayers
