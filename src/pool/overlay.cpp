// SPDX-License-Identifier: Apache-2.0
#include "pool/overlay.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>

#include "io/folder.h"
#include "io/shown.h"
#include "memlayers/error.h"
#include "pool/row_format.h"
#include "pool/sub_keys.h"

namespace memlayers::pool {
namespace {

constexpr const char* kFormat = "memlayers-segment";
// Of a segment with sub-keys, which a reader that does not know them must not open.
constexpr const char* kSubKeys = "1";

std::vector<std::int64_t> numbers(const io::SafetensorsFile& file, const std::string& name) {
  const io::TensorView& tensor = file.at(name);
  if (tensor.type != io::ElementType::kI64 || tensor.shape.size() != 1) {
    throw Error(file.path() + ": tensor \"" + name + "\": expected I64 [n], got another");
  }
  return to_slots(tensor.bytes);
}

// That slots strictly ascend inside the pool.
void check_slots(const std::string& path, const std::string& name,
                 std::span<const std::int64_t> slots, std::int64_t rows) {
  const bool ascend = std::ranges::adjacent_find(slots, std::greater_equal<>()) == slots.end();
  if (ascend && (slots.empty() || (slots.front() >= 0 && slots.back() < rows))) return;
  throw Error(path + ": tensor \"" + name + "\": expected ascending slots in [0, " +
              std::to_string(rows) + "), got others");
}

std::string slots_digest(std::span<const std::int64_t> slots,
                         std::span<const std::int64_t> erased) {
  const std::array<std::uint64_t, 2> sums{io::xxh3(std::as_bytes(slots)),
                                          io::xxh3(std::as_bytes(erased))};
  return io::xxh3_hex(std::as_bytes(std::span(sums)));
}

std::string keys_digest(const SubKeys& keys) {
  const std::array<std::uint64_t, 2> sums{io::xxh3(place_bytes(keys)),
                                          io::xxh3(number_bytes(keys))};
  return io::xxh3_hex(std::as_bytes(std::span(sums)));
}

}  // namespace

const SubKeys Writes::none = {};

Writes writes_of(const Patch& patch) {
  return {patch.slots, patch.rows, patch.erased, patch.sub_keys};
}

Overlay::Overlay(const PoolInfo& pool, const Writes& writes)
    : slots_(writes.slots.begin(), writes.slots.end()),
      erased_(writes.erased.begin(), writes.erased.end()),
      sub_keys_(writes.sub_keys),
      stride_(stride_bytes(pool.width, pool.type)) {
  const std::int64_t row_bytes = row_format(pool.type, pool.width).bytes();
  memory_.resize(slots_.size() * static_cast<std::size_t>(stride_) / sizeof(Line));
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    std::memcpy(
        reinterpret_cast<std::byte*>(memory_.data()) + i * static_cast<std::size_t>(stride_),
        writes.rows.data() + i * static_cast<std::size_t>(row_bytes),
        static_cast<std::size_t>(row_bytes));
  }
  if (!erased_.empty()) zero_.resize(static_cast<std::size_t>(stride_) / sizeof(Line));
}

std::shared_ptr<const Overlay> Overlay::open(io::FileSystem& fs, const std::string& path,
                                             const PoolInfo& pool, const std::string& content,
                                             RowAccess access) {
  std::shared_ptr<Overlay> overlay(new Overlay());
  overlay->file_ = std::make_unique<RowsFile>(RowsFile::open(fs, path, kFormat, kSubKeys));
  RowsFile& file = *overlay->file_;
  overlay->slots_ = numbers(file.file(), "slots");
  overlay->erased_ = numbers(file.file(), "erased");
  overlay->stride_ = file.stride();
  if (file.pool().id != pool.id || file.pool().width != pool.width ||
      file.pool().type != pool.type || file.stride() != stride_bytes(pool.width, pool.type)) {
    throw Corruption(path + ": expected a segment of pool " + io::shown(pool.id) +
                     " with rows of " + std::to_string(pool.width) + ", got one of pool " +
                     io::shown(file.pool().id) + " with rows of " +
                     std::to_string(file.pool().width));
  }
  if (file.text("content") != content) {
    throw Corruption(path + ": expected content " + content + " by the log, got " +
                     file.text("content"));
  }
  if (file.text("slots_xxh3") != slots_digest(overlay->slots_, overlay->erased_)) {
    throw Corruption(path +
                     ": expected the checksum of the tensors slots and erased to hold, got "
                     "another: the file was altered behind byte " +
                     std::to_string(file.rows() * file.stride()) + " of the data");
  }
  check_slots(path, "slots", overlay->slots_, pool.rows);
  check_slots(path, "erased", overlay->erased_, pool.rows);
  if (file.text("features") == kSubKeys) {
    overlay->sub_keys_ = read_sub_keys(file.file());
    if (file.text("keys_xxh3") != keys_digest(overlay->sub_keys_)) {
      throw Corruption(path +
                       ": expected the checksum of the tensors keys and key_places to hold, got "
                       "another: the file was altered");
    }
    check_sub_keys(path, overlay->sub_keys_);
  }
  if (static_cast<std::int64_t>(overlay->slots_.size()) != file.rows()) {
    throw Error(path + ": expected as many slots as rows, " + std::to_string(file.rows()) +
                ", got " + std::to_string(overlay->slots_.size()));
  }
  if (!overlay->erased_.empty()) {
    overlay->zero_.resize(static_cast<std::size_t>(overlay->stride_) / sizeof(Line));
  }
  file.set_access(fs, access);
  return overlay;
}

std::optional<std::uint32_t> Overlay::find(std::int64_t slot) const {
  const auto found = std::ranges::lower_bound(slots_, slot);
  if (found != slots_.end() && *found == slot) {
    return static_cast<std::uint32_t>(found - slots_.begin());
  }
  if (std::ranges::binary_search(erased_, slot)) return kErased;
  return std::nullopt;
}

const std::byte* Overlay::row(std::uint32_t number) const {
  if (number == kErased) return zero_.front().bytes.data();
  if (file_ == nullptr) {
    return reinterpret_cast<const std::byte*>(memory_.data()) +
           number * static_cast<std::size_t>(stride_);
  }
  file_->check_once(number, 1);
  return file_->row(number);
}

void Overlay::verify() const {
  if (file_ != nullptr) file_->check(0, file_->rows());
}

void write_segment(io::FileSystem& fs, const std::string& path, const PoolInfo& pool,
                   const Writes& writes, const std::string& content) {
  const std::string temporary = path + ".tmp";
  std::map<std::string, std::string> metadata{
      {"content", content}, {"slots_xxh3", slots_digest(writes.slots, writes.erased)}};
  std::vector<io::TensorToWrite> tensors{{"slots",
                                          io::ElementType::kI64,
                                          {static_cast<std::int64_t>(writes.slots.size())},
                                          std::as_bytes(writes.slots)},
                                         {"erased",
                                          io::ElementType::kI64,
                                          {static_cast<std::int64_t>(writes.erased.size())},
                                          std::as_bytes(writes.erased)}};
  if (!writes.sub_keys.places.empty()) {
    metadata["features"] = kSubKeys;
    metadata["keys_xxh3"] = keys_digest(writes.sub_keys);
    for (io::TensorToWrite& tensor : tensors_of(writes.sub_keys)) {
      tensors.push_back(std::move(tensor));
    }
  }
  write_rows_file(fs, temporary, kFormat, pool, writes.rows, metadata, tensors);
  rename_or_remove(fs, temporary, path);
  fs.sync_folder(io::parent(path));
}

std::vector<std::int64_t> to_slots(std::span<const std::byte> bytes) {
  std::vector<std::int64_t> slots(bytes.size() / 8);
  io::copy_mapped(slots.data(), bytes.first(slots.size() * 8));
  return slots;
}

std::string content_digest(const Writes& writes) {
  std::vector<std::uint64_t> sums{io::xxh3(std::as_bytes(writes.slots)), io::xxh3(writes.rows),
                                  io::xxh3(std::as_bytes(writes.erased))};
  if (!writes.sub_keys.places.empty()) {
    sums.push_back(io::xxh3(place_bytes(writes.sub_keys)));
    sums.push_back(io::xxh3(number_bytes(writes.sub_keys)));
  }
  return io::xxh3_hex(std::as_bytes(std::span(sums)));
}

}  // namespace memlayers::pool
