// SPDX-License-Identifier: Apache-2.0
#include "pool/chunks.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <random>

#include "io/folder.h"
#include "memlayers/error.h"
#include "pool/prefetch.h"
#include "pool/row_format.h"

namespace memlayers::pool {
namespace {

constexpr std::int64_t kChunkBytes = 64 << 20;
constexpr std::int64_t kBlockBytes = 64 << 10;
constexpr std::int64_t kPage = 4096;

io::ElementType element_type(RowType type) {
  if (is_quantized(type)) return io::ElementType::kU8;
  return type == RowType::kFloat32 ? io::ElementType::kF32 : io::ElementType::kBF16;
}
RowType type_named(const io::SafetensorsFile& file, const std::string& name) {
  for (RowType type : {RowType::kFloat32, RowType::kBFloat16, RowType::kInt8, RowType::kInt4}) {
    if (name == row_type_name(type)) return type;
  }
  throw Error(file.path() + ": metadata dtype: expected float32, bfloat16, int8 or int4, got \"" +
              name + "\"");
}

// A multiple of 64 bytes and, where that wastes at most a quarter, a divisor or multiple of a page,
// so that a row costs at most one fault.
std::int64_t stride_bytes(std::int64_t width, RowType type) {
  const std::int64_t bytes = row_format(type, width).bytes();
  const std::int64_t lines = (bytes + 63) / 64 * 64;
  std::int64_t paged = 64;
  while (paged < bytes && paged < kPage) paged *= 2;
  if (paged < bytes) paged = (bytes + kPage - 1) / kPage * kPage;
  return (paged - bytes) * 4 <= paged ? paged : lines;
}

// Of a chunk's content: the checksum of its blocks' checksums.
std::string digest_of(const std::vector<std::uint64_t>& checksums) {
  return io::xxh3_hex(std::as_bytes(std::span(checksums)));
}

// The fields of a chunk that must hold, in one string: what the header's own checksum covers.
std::string header_text(const std::map<std::string, std::string>& metadata) {
  std::string text;
  for (const auto& [key, value] : metadata) {
    if (key != "header_xxh3") text += key + "=" + value + "\n";
  }
  return text;
}

std::int64_t number(const io::SafetensorsFile& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  std::int64_t value = 0;
  if (found != file.metadata().end()) {
    const std::string& text = found->second;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc() && end == text.data() + text.size() && value >= 0) return value;
  }
  throw Error(file.path() + ": metadata " + key + ": expected a number >= 0, got " +
              (found == file.metadata().end() ? "none" : "\"" + found->second + "\""));
}

std::string text(const io::SafetensorsFile& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end())
    throw Error(file.path() + ": expected metadata " + key + ", found none");
  return found->second;
}

std::string hex128(XXH128_hash_t hash) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  for (const unsigned char byte : canonical.digest) {
    out += kDigits[byte >> 4];
    out += kDigits[byte & 15];
  }
  return out;
}

struct Digest {
  Digest() : state(XXH3_createState()) { XXH3_128bits_reset(state); }
  ~Digest() { XXH3_freeState(state); }
  Digest(const Digest&) = delete;
  Digest& operator=(const Digest&) = delete;
  void start(std::int64_t rows, std::int64_t width, RowType type) {
    const std::string head =
        std::to_string(rows) + "x" + std::to_string(width) + row_type_name(type);
    XXH3_128bits_update(state, head.data(), head.size());
  }
  void add(const std::byte* data, std::size_t size) { XXH3_128bits_update(state, data, size); }
  std::string finish() { return hex128(XXH3_128bits_digest(state)); }
  XXH3_state_t* state;
};

// One chunk file for each range of rows; rows_of(first, count) gives its rows, contiguous, valid
// until the next call.
template <class Rows>
void write_chunks_of(io::FileSystem& fs, const std::string& folder, std::string_view stem,
                     const PoolInfo& info, const Rows& rows_of) {
  const std::int64_t row_bytes = row_format(info.type, info.width).bytes();
  const std::int64_t stride = stride_bytes(info.width, info.type);
  const std::int64_t element_bytes = row_format(info.type, info.width).element_bytes;
  const std::int64_t rows_a_chunk = std::max<std::int64_t>(1, kChunkBytes / stride);
  std::vector<std::byte> padded;
  for (std::int64_t first = 0, i = 0; first < info.rows; first += rows_a_chunk, ++i) {
    const std::int64_t count = std::min(rows_a_chunk, info.rows - first);
    std::span<const std::byte> data = rows_of(first, count);
    if (stride != row_bytes) {
      padded.assign(static_cast<std::size_t>(count * stride), std::byte{0});
      for (std::int64_t row = 0; row < count; ++row) {
        std::memcpy(padded.data() + row * stride, data.data() + row * row_bytes,
                    static_cast<std::size_t>(row_bytes));
      }
      data = padded;
    }
    std::vector<std::uint64_t> checksums;
    for (std::size_t at = 0; at < data.size(); at += kBlockBytes) {
      checksums.push_back(
          io::xxh3(data.subspan(at, std::min<std::size_t>(kBlockBytes, data.size() - at))));
    }
    std::map<std::string, std::string> metadata{{"format", "memlayers-chunk"},
                                                {"version", "1"},
                                                {"features", "0"},
                                                {"byte_order", "little"},
                                                {"pool", info.id},
                                                {"generation", std::to_string(info.generation)},
                                                {"first_row", std::to_string(first)},
                                                {"rows", std::to_string(count)},
                                                {"total_rows", std::to_string(info.rows)},
                                                {"width", std::to_string(info.width)},
                                                {"dtype", row_type_name(info.type)},
                                                {"digest", digest_of(checksums)}};
    const std::string header = header_text(metadata);
    metadata["header_xxh3"] = io::xxh3_hex(std::as_bytes(std::span(header)));
    const std::string name = std::string(stem) + "-" + std::to_string(i) + "-" +
                             std::to_string(info.generation) + ".safetensors";
    io::write_safetensors(fs, io::join(folder, name),
                          {{"rows", element_type(info.type), {count, stride / element_bytes}, data},
                           {"xxh3",
                            io::ElementType::kU64,
                            {static_cast<std::int64_t>(checksums.size())},
                            std::as_bytes(std::span(checksums))}},
                          metadata, kPage);
  }
}

}  // namespace

std::string new_pool_id() {
  std::random_device device;
  std::array<unsigned, 4> words{device(), device(), device(), device()};
  words[1] = (words[1] & 0xffff0fffU) | 0x4000U;      // version 4: random
  words[2] = (words[2] & 0x3fffffffU) | 0x80000000U;  // variant 1
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string id;
  for (std::size_t i = 0; i < 32; ++i) {
    if (i == 8 || i == 12 || i == 16 || i == 20) id += '-';
    id += kDigits[(words[i / 8] >> (28 - 4 * (i % 8))) & 15];
  }
  return id;
}

void write_chunks(io::FileSystem& fs, const std::string& folder, std::string_view stem,
                  const RowsView& rows, const std::string& pool_id, std::uint64_t generation) {
  const std::int64_t row_bytes = row_format(rows.type, rows.width).bytes();
  write_chunks_of(fs, folder, stem, {pool_id, rows.rows, rows.width, rows.type, generation},
                  [&](std::int64_t first, std::int64_t count) {
                    const auto part = [&](std::int64_t begin, std::int64_t end) {
                      return std::span(rows.data + begin * row_bytes,
                                       static_cast<std::size_t>((end - begin) * row_bytes));
                    };
                    const std::int64_t end = first + count;
                    if (first == 0) prefetch(part(0, count));
                    prefetch(part(end, std::min(rows.rows, end + count)));
                    return part(first, end);
                  });
}

void write_chunks(io::FileSystem& fs, const std::string& folder, std::string_view stem,
                  const RowsSource& source, const std::string& pool_id, std::uint64_t generation) {
  const std::int64_t row_bytes = row_format(source.type, source.width).bytes();
  std::vector<std::byte> buffer;
  write_chunks_of(fs, folder, stem, {pool_id, source.rows, source.width, source.type, generation},
                  [&](std::int64_t first, std::int64_t count) {
                    buffer.resize(static_cast<std::size_t>(count * row_bytes));
                    source.read(first, buffer);
                    return std::span<const std::byte>(buffer);
                  });
}

ChunkedRows ChunkedRows::open(io::FileSystem& fs, const std::string& folder,
                              std::string_view stem) {
  ChunkedRows table;
  const std::string prefix = std::string(stem) + "-";
  for (const std::string& name : fs.list(folder)) {
    if (!name.starts_with(prefix) || !name.ends_with(".safetensors")) continue;
    io::SafetensorsFile file = io::SafetensorsFile::open(fs, io::join(folder, name));
    const std::string& path = file.path();
    if (text(file, "format") != "memlayers-chunk" || text(file, "version") != "1") {
      throw Error(path + ": expected a memlayers-chunk of version 1, got " + text(file, "format") +
                  " " + text(file, "version"));
    }
    const std::string header = header_text(file.metadata());
    if (io::xxh3_hex(std::as_bytes(std::span(header))) != text(file, "header_xxh3")) {
      throw Error(path + ": expected header checksum " + text(file, "header_xxh3") +
                  ", got another: the header was altered");
    }
    // A feature is something that an older reader must not overlook.
    if (text(file, "features") != "0" || text(file, "byte_order") != "little") {
      throw Error(path + ": expected features 0 and byte order little, got " +
                  text(file, "features") + " and " + text(file, "byte_order") +
                  ": written by a newer version");
    }
    const std::string dtype = text(file, "dtype");
    PoolInfo info{text(file, "pool"), number(file, "total_rows"), number(file, "width"),
                  type_named(file, dtype), static_cast<std::uint64_t>(number(file, "generation"))};
    if (table.chunks_.empty()) {
      table.info_ = info;
    } else if (info.id != table.info_.id || info.rows != table.info_.rows ||
               info.width != table.info_.width || info.type != table.info_.type) {
      throw Error(path + ": expected a chunk of pool " + table.info_.id + " with " +
                  std::to_string(table.info_.rows) + " rows of " +
                  std::to_string(table.info_.width) + ", got pool " + info.id + " with " +
                  std::to_string(info.rows) + " of " + std::to_string(info.width));
    }
    if (info.width < 1 || info.width > std::int64_t{1} << 40) {
      throw Error(path + ": metadata width: expected a number in [1, 2^40], got " +
                  std::to_string(info.width));
    }
    const RowFormat format = row_format(info.type, info.width);
    const io::TensorView rows = file.at("rows"), sums = file.at("xxh3");
    const std::int64_t first = number(file, "first_row"), count = number(file, "rows");
    const std::int64_t stride = rows.shape.size() == 2 ? rows.shape[1] * format.element_bytes : 0;
    const std::int64_t data_bytes = static_cast<std::int64_t>(rows.bytes.size());
    const std::int64_t blocks = (data_bytes + kBlockBytes - 1) / kBlockBytes;
    if (rows.type != element_type(info.type) || rows.shape.size() != 2 || rows.shape[0] != count ||
        format.elements > rows.shape[1] || count < 1 || count > info.rows ||
        first > info.rows - count || sums.type != io::ElementType::kU64 ||
        static_cast<std::int64_t>(sums.bytes.size()) != blocks * 8) {
      throw Error(path + ": expected rows and xxh3 as the metadata say (" + std::to_string(count) +
                  " rows of " + std::to_string(info.width) + " " + dtype + "), got other shapes");
    }
    if (table.stride_ == 0) table.stride_ = stride;
    if (stride != table.stride_) {
      throw Error(path + ": expected rows " + std::to_string(table.stride_) + " bytes apart, got " +
                  std::to_string(stride));
    }
    std::vector<std::uint64_t> checksums(static_cast<std::size_t>(blocks));
    std::memcpy(checksums.data(), sums.bytes.data(), sums.bytes.size());
    if (digest_of(checksums) != text(file, "digest")) {
      throw Error(path + ": expected checksums with digest " + text(file, "digest") + ", got " +
                  digest_of(checksums) + ": the file was altered");
    }
    table.info_.generation = std::max(table.info_.generation, info.generation);
    table.chunks_.push_back({std::move(file), first, count, rows.bytes, std::move(checksums)});
  }
  if (table.chunks_.empty()) {
    throw Error(folder + ": expected files " + prefix + "*.safetensors, found none");
  }
  std::sort(table.chunks_.begin(), table.chunks_.end(),
            [](const Chunk& a, const Chunk& b) { return a.first < b.first; });
  std::int64_t next = 0;
  for (const Chunk& chunk : table.chunks_) {
    if (chunk.first != next) {
      throw Error(chunk.file.path() + ": expected a chunk that begins at row " +
                  std::to_string(next) + ", got one at row " + std::to_string(chunk.first) +
                  ": a chunk is missing or there twice");
    }
    next = chunk.first + chunk.rows;
  }
  if (next != table.info_.rows) {
    throw Error(folder + ": expected " + std::to_string(table.info_.rows) + " rows in " + prefix +
                "*.safetensors, got " + std::to_string(next) + ": a chunk is missing");
  }
  return table;
}

void ChunkedRows::check_block(const Chunk& chunk, std::size_t block) const {
  const std::size_t at = block * kBlockBytes;
  const auto data =
      chunk.data.subspan(at, std::min<std::size_t>(kBlockBytes, chunk.data.size() - at));
  if (io::xxh3(data) != chunk.checksums[block]) {
    throw Error(chunk.file.path() + ": expected the checksum of the block at byte " +
                std::to_string(at) + " of `rows` to hold, got another: the file was altered");
  }
}

template <class F>
void ChunkedRows::for_each_part(std::int64_t first, std::int64_t count, const F& f) const {
  auto chunk = std::upper_bound(chunks_.begin(), chunks_.end(), first,
                                [](std::int64_t row, const Chunk& c) { return row < c.first; });
  --chunk;
  for (std::int64_t done = 0; done < count; ++chunk) {
    const std::int64_t begin = first + done - chunk->first;
    const std::int64_t end = begin + std::min(count - done, chunk->rows - begin);
    f(*chunk, begin, end);
    done += end - begin;
  }
}

void ChunkedRows::read(std::int64_t first, std::span<std::byte> out) const {
  const std::int64_t row_bytes = row_format(info_.type, info_.width).bytes();
  const auto count = static_cast<std::int64_t>(out.size()) / row_bytes;
  if (first < 0 || count * row_bytes != static_cast<std::int64_t>(out.size()) ||
      count > info_.rows || first > info_.rows - count) {
    throw Error(chunks_.front().file.path() + ": expected whole rows inside [0, " +
                std::to_string(info_.rows) + "), got " + std::to_string(count) + " from row " +
                std::to_string(first));
  }
  for_each_part(first, count, [&](const Chunk& chunk, std::int64_t begin, std::int64_t end) {
    const std::int64_t at = begin * stride_;
    for (std::int64_t block = at / kBlockBytes; block * kBlockBytes < end * stride_; ++block) {
      check_block(chunk, static_cast<std::size_t>(block));
    }
    std::byte* to = out.data() + (chunk.first + begin - first) * row_bytes;
    const std::byte* from = chunk.data.data() + at;
    if (stride_ == row_bytes) {
      std::memcpy(to, from, static_cast<std::size_t>((end - begin) * row_bytes));
      return;
    }
    for (std::int64_t row = begin; row < end; ++row, to += row_bytes, from += stride_) {
      std::memcpy(to, from, static_cast<std::size_t>(row_bytes));
    }
  });
}

void ChunkedRows::release(std::int64_t first, std::int64_t count) const {
  for_each_part(first, count, [&](const Chunk& chunk, std::int64_t begin, std::int64_t end) {
    chunk.file.release(chunk.data.subspan(static_cast<std::size_t>(begin * stride_),
                                          static_cast<std::size_t>((end - begin) * stride_)));
  });
}

namespace {

// The exponent of NaN and infinity is all ones. Without a branch a number, so that it vectorises.
template <class Bits>
bool are_finite(const std::byte* data, std::size_t bytes, Bits exponent) {
  const auto* bits = reinterpret_cast<const Bits*>(data);
  bool is_finite = true;
  for (std::size_t i = 0; i < bytes / sizeof(Bits); ++i) {
    is_finite &= (bits[i] & exponent) != exponent;
  }
  return is_finite;
}

}  // namespace

bool all_finite(std::span<const std::byte> rows, RowType type, std::int64_t width) {
  constexpr std::uint32_t kFloat = 0x7f800000;
  constexpr std::uint16_t kBFloat16 = 0x7f80;
  if (type == RowType::kFloat32) return are_finite(rows.data(), rows.size(), kFloat);
  if (type == RowType::kBFloat16) return are_finite(rows.data(), rows.size(), kBFloat16);
  // Of rows of few bits the scales.
  const auto row_bytes = static_cast<std::size_t>(row_format(type, width).bytes());
  bool is_finite = true;
  for (std::size_t at = 0; at + row_bytes <= rows.size(); at += row_bytes) {
    const std::byte* row = rows.data() + at;
    is_finite &= type == RowType::kInt8
                     ? are_finite(row + kernels::scales_offset<kernels::Int8>(width), 4, kFloat)
                     : are_finite(row + kernels::scales_offset<kernels::Int4>(width),
                                  row_bytes - static_cast<std::size_t>(
                                                  kernels::scales_offset<kernels::Int4>(width)),
                                  kBFloat16);
  }
  return is_finite;
}

std::string digest(const RowsView& rows) {
  Digest digest;
  digest.start(rows.rows, rows.width, rows.type);
  std::span<const std::byte> rest{
      rows.data, static_cast<std::size_t>(rows.rows * row_format(rows.type, rows.width).bytes())};
  while (!rest.empty()) {
    const auto part = rest.first(std::min<std::size_t>(kChunkBytes, rest.size()));
    rest = rest.subspan(part.size());
    prefetch(part);
    digest.add(part.data(), part.size());
  }
  return digest.finish();
}

std::string digest(const ChunkedRows& rows) {
  const PoolInfo& info = rows.info();
  Digest digest;
  digest.start(info.rows, info.width, info.type);
  const std::int64_t row_bytes = row_format(info.type, info.width).bytes();
  const std::int64_t at_once = std::max<std::int64_t>(1, (8 << 20) / row_bytes);
  std::vector<std::byte> buffer;
  for (std::int64_t first = 0; first < info.rows; first += at_once) {
    buffer.resize(static_cast<std::size_t>(std::min(at_once, info.rows - first) * row_bytes));
    rows.read(first, buffer);
    rows.release(first, static_cast<std::int64_t>(buffer.size()) / row_bytes);
    digest.add(buffer.data(), buffer.size());
  }
  return digest.finish();
}

}  // namespace memlayers::pool
