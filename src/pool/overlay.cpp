// SPDX-License-Identifier: Apache-2.0
#include "pool/overlay.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "io/folder.h"
#include "memlayers/error.h"
#include "pool/row_format.h"

namespace memlayers::pool {
namespace {

constexpr const char* kFormat = "memlayers-segment";

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

}  // namespace

Overlay::Overlay(const PoolInfo& pool, std::span<const std::int64_t> slots,
                 std::span<const std::byte> rows, std::span<const std::int64_t> erased)
    : slots_(slots.begin(), slots.end()),
      erased_(erased.begin(), erased.end()),
      stride_(stride_bytes(pool.width, pool.type)) {
  const std::int64_t row_bytes = row_format(pool.type, pool.width).bytes();
  memory_.resize(slots.size() * static_cast<std::size_t>(stride_) / sizeof(Line));
  for (std::size_t i = 0; i < slots.size(); ++i) {
    std::memcpy(
        reinterpret_cast<std::byte*>(memory_.data()) + i * static_cast<std::size_t>(stride_),
        rows.data() + i * static_cast<std::size_t>(row_bytes), static_cast<std::size_t>(row_bytes));
  }
  if (!erased.empty()) zero_.resize(static_cast<std::size_t>(stride_) / sizeof(Line));
}

std::shared_ptr<const Overlay> Overlay::open(io::FileSystem& fs, const std::string& path,
                                             const PoolInfo& pool, const std::string& content,
                                             RowAccess access) {
  std::shared_ptr<Overlay> overlay(new Overlay());
  overlay->file_ = std::make_unique<RowsFile>(RowsFile::open(fs, path, kFormat));
  RowsFile& file = *overlay->file_;
  overlay->slots_ = numbers(file.file(), "slots");
  overlay->erased_ = numbers(file.file(), "erased");
  overlay->stride_ = file.stride();
  if (file.pool().id != pool.id || file.pool().width != pool.width ||
      file.pool().type != pool.type || file.stride() != stride_bytes(pool.width, pool.type)) {
    throw Corruption(path + ": expected a segment of pool " + pool.id + " with rows of " +
                     std::to_string(pool.width) + ", got one of pool " + file.pool().id +
                     " with rows of " + std::to_string(file.pool().width));
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
                   std::span<const std::int64_t> slots, std::span<const std::byte> rows,
                   std::span<const std::int64_t> erased, const std::string& content) {
  const std::string temporary = path + ".tmp";
  write_rows_file(fs, temporary, kFormat, pool, rows,
                  {{"content", content}, {"slots_xxh3", slots_digest(slots, erased)}},
                  {{"slots",
                    io::ElementType::kI64,
                    {static_cast<std::int64_t>(slots.size())},
                    std::as_bytes(slots)},
                   {"erased",
                    io::ElementType::kI64,
                    {static_cast<std::int64_t>(erased.size())},
                    std::as_bytes(erased)}});
  rename_or_remove(fs, temporary, path);
  fs.sync_folder(io::parent(path));
}

std::vector<std::int64_t> to_slots(std::span<const std::byte> bytes) {
  std::vector<std::int64_t> slots(bytes.size() / 8);
  io::copy_mapped(slots.data(), bytes.first(slots.size() * 8));
  return slots;
}

std::string content_digest(std::span<const std::int64_t> slots, std::span<const std::byte> rows,
                           std::span<const std::int64_t> erased) {
  const std::array<std::uint64_t, 3> sums{io::xxh3(std::as_bytes(slots)), io::xxh3(rows),
                                          io::xxh3(std::as_bytes(erased))};
  return io::xxh3_hex(std::as_bytes(std::span(sums)));
}

}  // namespace memlayers::pool
