// SPDX-License-Identifier: Apache-2.0
#include "pool/rows_file.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "io/folder.h"
#include "io/shown.h"
#include "memlayers/error.h"
#include "pool/finite.h"
#include "pool/row_format.h"

namespace memlayers::pool {
namespace {

constexpr std::int64_t kBlockBytes = 64 << 10;
constexpr std::int64_t kPage = 4096;

RowType type_named(const io::SafetensorsFile& file, const std::string& name) {
  for (RowType type : {RowType::kFloat32, RowType::kBFloat16, RowType::kInt8, RowType::kInt4}) {
    if (name == row_type_name(type)) return type;
  }
  throw Error(file.path() + ": metadata dtype: expected float32, bfloat16, int8 or int4, got " +
              io::quote(name));
}

// Of a file's content: the checksum of its blocks' checksums.
std::string digest_of(const std::vector<std::uint64_t>& checksums) {
  return io::xxh3_hex(std::as_bytes(std::span(checksums)));
}

// The fields that must hold, in one string: what the header's own checksum covers.
std::string header_text(const std::map<std::string, std::string>& metadata) {
  std::string text;
  for (const auto& [key, value] : metadata) {
    if (key != "header_xxh3") text += key + "=" + value + "\n";
  }
  return text;
}

std::vector<std::byte> with_stride(std::span<const std::byte> rows, std::int64_t row_bytes,
                                   std::int64_t stride) {
  const std::int64_t count = static_cast<std::int64_t>(rows.size()) / row_bytes;
  std::vector<std::byte> padded(static_cast<std::size_t>(count * stride));
  for (std::int64_t row = 0; row < count; ++row) {
    std::memcpy(padded.data() + row * stride, rows.data() + row * row_bytes,
                static_cast<std::size_t>(row_bytes));
  }
  return padded;
}

}  // namespace

io::ElementType element_type(RowType type) {
  if (is_quantized(type)) return io::ElementType::kU8;
  return type == RowType::kFloat32 ? io::ElementType::kF32 : io::ElementType::kBF16;
}

std::int64_t stride_bytes(std::int64_t width, RowType type) {
  const std::int64_t bytes = row_format(type, width).bytes();
  const std::int64_t lines = (bytes + 63) / 64 * 64;
  std::int64_t paged = 64;
  while (paged < bytes && paged < kPage) paged *= 2;
  if (paged < bytes) paged = (bytes + kPage - 1) / kPage * kPage;
  return (paged - bytes) * 4 <= paged ? paged : lines;
}

void write_rows_file(io::FileSystem& fs, const std::string& path, const std::string& format,
                     const PoolInfo& pool, std::span<const std::byte> rows,
                     std::map<std::string, std::string> metadata,
                     const std::vector<io::TensorToWrite>& tensors) {
  const RowFormat row = row_format(pool.type, pool.width);
  const std::int64_t stride = stride_bytes(pool.width, pool.type);
  const std::int64_t count = static_cast<std::int64_t>(rows.size()) / row.bytes();
  if (const auto wrong = first_not_finite(rows, pool.type, pool.width)) {
    throw io::NotFinite(path + ": expected finite numbers to write, got NaN or infinity in row " +
                        std::to_string(*wrong) + " of " + std::to_string(count));
  }
  std::vector<std::byte> padded;
  std::span<const std::byte> data = rows;
  if (stride != row.bytes()) {
    padded = with_stride(rows, row.bytes(), stride);
    data = padded;
  }
  std::vector<std::uint64_t> checksums;
  for (std::size_t at = 0; at < data.size(); at += kBlockBytes) {
    checksums.push_back(
        io::xxh3(data.subspan(at, std::min<std::size_t>(kBlockBytes, data.size() - at))));
  }
  metadata.insert({{"format", format},
                   {"version", "1"},
                   {"features", "0"},
                   {"byte_order", "little"},
                   {"pool", pool.id},
                   {"generation", std::to_string(pool.generation)},
                   {"rows", std::to_string(count)},
                   {"total_rows", std::to_string(pool.rows)},
                   {"width", std::to_string(pool.width)},
                   {"dtype", row_type_name(pool.type)},
                   {"digest", digest_of(checksums)}});
  const std::string header = header_text(metadata);
  metadata["header_xxh3"] = io::xxh3_hex(std::as_bytes(std::span(header)));
  std::vector<io::TensorToWrite> all{
      {"rows", element_type(pool.type), {count, stride / row.element_bytes}, data},
      {"xxh3",
       io::ElementType::kU64,
       {static_cast<std::int64_t>(checksums.size())},
       std::as_bytes(std::span(checksums))}};
  all.insert(all.end(), tensors.begin(), tensors.end());
  io::write_safetensors(fs, path, all, metadata, kPage);
}

RowsFile RowsFile::open(io::FileSystem& fs, const std::string& path, const std::string& format,
                        const std::string& feature) {
  RowsFile file;
  file.file_ = io::SafetensorsFile::open(fs, path);
  const auto text = [&](const std::string& key) { return file.text(key); };
  if (text("format") != format || text("version") != "1") {
    throw Error(path + ": expected a " + format + " of version 1, got " +
                io::shown(text("format")) + " " + io::shown(text("version")));
  }
  const std::string header = header_text(file.file_.metadata());
  if (io::xxh3_hex(std::as_bytes(std::span(header))) != text("header_xxh3")) {
    throw Corruption(path + ": expected header checksum " + io::shown(text("header_xxh3")) +
                     ", got another: the header at byte 0 was altered");
  }
  // A feature is something that an older reader must not overlook.
  if ((text("features") != "0" && text("features") != feature) || text("byte_order") != "little") {
    throw Error(path + ": expected features 0 and byte order little, got " +
                io::shown(text("features")) + " and " + io::shown(text("byte_order")) +
                ": written by a newer version");
  }
  const std::string dtype = text("dtype");
  file.pool_ = {text("pool"), file.number("total_rows"), file.number("width"),
                type_named(file.file_, dtype),
                static_cast<std::uint64_t>(file.number("generation"))};
  if (file.pool_.width < 1 || file.pool_.width > std::int64_t{1} << 40) {
    throw Error(path + ": metadata width: expected a number in [1, 2^40], got " +
                std::to_string(file.pool_.width));
  }
  const RowFormat row = row_format(file.pool_.type, file.pool_.width);
  const io::TensorView rows = file.file_.at("rows"), sums = file.file_.at("xxh3");
  file.rows_ = file.number("rows");
  file.stride_ = rows.shape.size() == 2 ? rows.shape[1] * row.element_bytes : 0;
  file.data_ = rows.bytes;
  const std::int64_t data_bytes = static_cast<std::int64_t>(rows.bytes.size());
  const std::int64_t blocks = (data_bytes + kBlockBytes - 1) / kBlockBytes;
  if (rows.type != element_type(file.pool_.type) || rows.shape.size() != 2 ||
      rows.shape[0] != file.rows_ || row.elements > rows.shape[1] ||
      sums.type != io::ElementType::kU64 ||
      static_cast<std::int64_t>(sums.bytes.size()) != blocks * 8) {
    throw Error(path + ": expected rows and xxh3 as the metadata say (" +
                std::to_string(file.rows_) + " rows of " + std::to_string(file.pool_.width) + " " +
                dtype + "), got other shapes");
  }
  file.checksums_.resize(static_cast<std::size_t>(blocks));
  io::copy_mapped(file.checksums_.data(), sums.bytes);
  if (file.digest() != text("digest")) {
    const std::ptrdiff_t at = sums.bytes.data() - rows.bytes.data();
    throw Corruption(path + ": expected checksums (tensor xxh3, " + std::to_string(at) +
                     " bytes behind the start of rows) with digest " + io::shown(text("digest")) +
                     ", got " + file.digest() + ": the file was altered");
  }
  file.is_good_ =
      std::make_unique<std::atomic<std::uint64_t>[]>(static_cast<std::size_t>(blocks + 63) / 64);
  return file;
}

std::string RowsFile::digest() const { return digest_of(checksums_); }

std::int64_t RowsFile::number(const std::string& field) const {
  const auto found = file_.metadata().find(field);
  std::int64_t value = 0;
  if (found != file_.metadata().end()) {
    const std::string& text = found->second;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc() && end == text.data() + text.size() && value >= 0) return value;
  }
  throw Error(path() + ": metadata " + field + ": expected a number >= 0, got " +
              (found == file_.metadata().end() ? "none" : io::quote(found->second)));
}

std::string RowsFile::text(const std::string& field) const {
  const auto found = file_.metadata().find(field);
  if (found == file_.metadata().end()) {
    throw Error(path() + ": expected metadata " + field + ", found none");
  }
  return found->second;
}

std::span<const std::byte> RowsFile::block_bytes(std::int64_t block) const {
  const auto at = static_cast<std::size_t>(block * kBlockBytes);
  return data_.subspan(at, std::min<std::size_t>(kBlockBytes, data_.size() - at));
}

void RowsFile::check_block(std::int64_t block) const {
  const std::span<const std::byte> bytes = block_bytes(block);
  std::uint64_t sum = 0;
  std::optional<std::int64_t> wrong;
  io::read_mapped([&] {
    sum = io::xxh3(bytes);
    wrong = first_not_finite(bytes, block * kBlockBytes, stride_, pool_.type, pool_.width);
  });
  if (sum != checksums_[static_cast<std::size_t>(block)]) {
    throw Corruption(path() + ": expected the checksum of the block at byte " +
                     std::to_string(block * kBlockBytes) +
                     " of `rows` to hold, got another: the file was altered");
  }
  if (wrong) {
    throw Corruption(path() + ": expected finite numbers, got NaN or infinity in " +
                     row_text(*wrong));
  }
}

// A chunk says which rows of the pool it holds, a segment has them in an order of its own.
std::string RowsFile::row_text(std::int64_t row) const {
  if (!file_.metadata().contains("first_row")) return "row " + std::to_string(row) + " of `rows`";
  return "the row of slot " + std::to_string(number("first_row") + row);
}

void RowsFile::read_block(std::int64_t block) const {
  const std::lock_guard lock(source_->mutex);
  const std::uint64_t bit = std::uint64_t{1} << (block % 64);
  if ((is_good_[static_cast<std::size_t>(block) / 64].load(std::memory_order_acquire) & bit) != 0) {
    return;  // another thread was first, and its readers may be at work
  }
  const std::span<const std::byte> bytes = block_bytes(block);
  source_->file->pread(
      memory_->bytes().subspan(static_cast<std::size_t>(block * kBlockBytes), bytes.size()),
      source_->offset + static_cast<std::uint64_t>(block * kBlockBytes));
  check_block(block);
  is_good_[static_cast<std::size_t>(block) / 64].fetch_or(bit, std::memory_order_release);
}

void RowsFile::check(std::int64_t first, std::int64_t count) const {
  if (source_ != nullptr) check_once(first, count);  // now all are in memory
  const std::int64_t end = (first + count) * stride_;
  for (std::int64_t block = first * stride_ / kBlockBytes; block * kBlockBytes < end; ++block) {
    check_block(block);
  }
}

void RowsFile::check_once(std::int64_t first, std::int64_t count) const {
  const std::int64_t end = (first + count) * stride_;
  for (std::int64_t block = first * stride_ / kBlockBytes; block * kBlockBytes < end; ++block) {
    std::atomic<std::uint64_t>& word = is_good_[static_cast<std::size_t>(block) / 64];
    const std::uint64_t bit = std::uint64_t{1} << (block % 64);
    if ((word.load(std::memory_order_acquire) & bit) != 0) continue;
    if (source_ != nullptr) {
      read_block(block);
      continue;
    }
    // Two threads may both find a block unread and read it: that is no harm, as nobody writes it.
    check_block(block);
    word.fetch_or(bit, std::memory_order_release);
  }
}

void RowsFile::release(std::int64_t first, std::int64_t count) const {
  if (memory_ != nullptr) return;
  file_.release(data_.subspan(static_cast<std::size_t>(first * stride_),
                              static_cast<std::size_t>(count * stride_)));
}

void RowsFile::set_access(io::FileSystem& fs, RowAccess access) {
  const auto offset = file_.offset_of(data_);
  if (access == RowAccess::kMapped || data_.empty() || !offset) return;
  auto source = std::make_unique<Source>();
  source->file = fs.open(path(), io::OpenMode::kRead);
  source->offset = *offset;
  memory_ = std::make_unique<MappedRegion>(MappedRegion::anonymous(data_.size()));
  data_ = memory_->bytes();
  source_ = std::move(source);
  if (access == RowAccess::kMemory) {
    check_once(0, rows_);
    source_.reset();
  }
}

void rename_or_remove(io::FileSystem& fs, const std::string& temporary, const std::string& path) {
  try {
    fs.rename(temporary, path);
  } catch (...) {
    try {
      fs.unlink(temporary);
    } catch (const Error&) {  // the first error is the one to tell
    }
    throw;
  }
}

}  // namespace memlayers::pool
