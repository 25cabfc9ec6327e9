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

namespace memlayers::pool {
namespace {

constexpr std::int64_t kChunkBytes = 64 << 20;
constexpr std::int64_t kBlockBytes = 64 << 10;
constexpr std::int64_t kPage = 4096;

std::int64_t element_size(RowType type) { return type == RowType::kFloat32 ? 4 : 2; }
io::ElementType element_type(RowType type) {
  return type == RowType::kFloat32 ? io::ElementType::kF32 : io::ElementType::kBF16;
}
const char* type_name(RowType type) { return type == RowType::kFloat32 ? "float32" : "bfloat16"; }

// A multiple of 64 bytes and, where that wastes at most a quarter, a divisor or multiple of a page,
// so that a row costs at most one fault.
std::int64_t stride_bytes(std::int64_t width, RowType type) {
  const std::int64_t bytes = width * element_size(type);
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
    const std::string head = std::to_string(rows) + "x" + std::to_string(width) + type_name(type);
    XXH3_128bits_update(state, head.data(), head.size());
  }
  void add(const std::byte* data, std::size_t size) { XXH3_128bits_update(state, data, size); }
  std::string finish() { return hex128(XXH3_128bits_digest(state)); }
  XXH3_state_t* state;
};

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
  const std::int64_t row_bytes = rows.width * element_size(rows.type);
  const std::int64_t stride = stride_bytes(rows.width, rows.type);
  const std::int64_t rows_a_chunk = std::max<std::int64_t>(1, kChunkBytes / stride);
  std::vector<std::byte> padded;
  for (std::int64_t first = 0, i = 0; first < rows.rows; first += rows_a_chunk, ++i) {
    const std::int64_t count = std::min(rows_a_chunk, rows.rows - first);
    const auto chunk_bytes = static_cast<std::size_t>(count * stride);
    const auto rows_of = [&](std::int64_t begin) {
      const std::int64_t end = std::min(begin + rows_a_chunk, rows.rows);
      return begin < end ? std::span{rows.data + begin * row_bytes,
                                     static_cast<std::size_t>((end - begin) * row_bytes)}
                         : std::span<const std::byte>();
    };
    if (first == 0) prefetch(rows_of(0));
    prefetch(rows_of(first + rows_a_chunk));
    std::span<const std::byte> data = rows_of(first);
    if (stride != row_bytes) {
      padded.assign(chunk_bytes, std::byte{0});
      for (std::int64_t row = 0; row < count; ++row) {
        std::memcpy(padded.data() + row * stride, rows.data + (first + row) * row_bytes,
                    static_cast<std::size_t>(row_bytes));
      }
      data = padded;
    }
    std::vector<std::uint64_t> checksums;
    for (std::size_t at = 0; at < chunk_bytes; at += kBlockBytes) {
      checksums.push_back(
          io::xxh3(data.subspan(at, std::min<std::size_t>(kBlockBytes, chunk_bytes - at))));
    }
    std::map<std::string, std::string> metadata{{"format", "memlayers-chunk"},
                                                {"version", "1"},
                                                {"features", "0"},
                                                {"byte_order", "little"},
                                                {"pool", pool_id},
                                                {"generation", std::to_string(generation)},
                                                {"first_row", std::to_string(first)},
                                                {"rows", std::to_string(count)},
                                                {"total_rows", std::to_string(rows.rows)},
                                                {"width", std::to_string(rows.width)},
                                                {"dtype", type_name(rows.type)},
                                                {"digest", digest_of(checksums)}};
    const std::string header = header_text(metadata);
    metadata["header_xxh3"] = io::xxh3_hex(std::as_bytes(std::span(header)));
    const std::string name = std::string(stem) + "-" + std::to_string(i) + "-" +
                             std::to_string(generation) + ".safetensors";
    io::write_safetensors(
        fs, io::join(folder, name),
        {{"rows", element_type(rows.type), {count, stride / element_size(rows.type)}, data},
         {"xxh3",
          io::ElementType::kU64,
          {static_cast<std::int64_t>(checksums.size())},
          std::as_bytes(std::span(checksums))}},
        metadata, kPage);
  }
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
    if (dtype != "float32" && dtype != "bfloat16") {
      throw Error(path + ": metadata dtype: expected float32 or bfloat16, got \"" + dtype + "\"");
    }
    PoolInfo info{text(file, "pool"), number(file, "total_rows"), number(file, "width"),
                  dtype == "float32" ? RowType::kFloat32 : RowType::kBFloat16,
                  static_cast<std::uint64_t>(number(file, "generation"))};
    if (table.chunks_.empty()) {
      table.info_ = info;
    } else if (info.id != table.info_.id || info.rows != table.info_.rows ||
               info.width != table.info_.width || info.type != table.info_.type) {
      throw Error(path + ": expected a chunk of pool " + table.info_.id + " with " +
                  std::to_string(table.info_.rows) + " rows of " +
                  std::to_string(table.info_.width) + ", got pool " + info.id + " with " +
                  std::to_string(info.rows) + " of " + std::to_string(info.width));
    }
    const io::TensorView rows = file.at("rows"), sums = file.at("xxh3");
    const std::int64_t first = number(file, "first_row"), count = number(file, "rows");
    const std::int64_t stride =
        rows.shape.size() == 2 ? rows.shape[1] * element_size(info.type) : 0;
    const std::int64_t data_bytes = static_cast<std::int64_t>(rows.bytes.size());
    const std::int64_t blocks = (data_bytes + kBlockBytes - 1) / kBlockBytes;
    if (rows.type != element_type(info.type) || rows.shape.size() != 2 || rows.shape[0] != count ||
        info.width < 1 || info.width > rows.shape[1] || count < 1 || count > info.rows ||
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
  const std::int64_t row_bytes = info_.width * element_size(info_.type);
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

bool all_finite(std::span<const std::byte> rows, RowType type) {
  // The exponent of NaN and infinity is all ones. Without a branch a number, so that it vectorises.
  bool is_finite = true;
  const auto check = [&]<class Bits>(Bits exponent) {
    const auto* bits = reinterpret_cast<const Bits*>(rows.data());
    for (std::size_t i = 0; i < rows.size() / sizeof(Bits); ++i) {
      is_finite &= (bits[i] & exponent) != exponent;
    }
  };
  if (type == RowType::kFloat32) {
    check(std::uint32_t{0x7f800000});
  } else {
    check(std::uint16_t{0x7f80});
  }
  return is_finite;
}

std::string digest(const RowsView& rows) {
  Digest digest;
  digest.start(rows.rows, rows.width, rows.type);
  std::span<const std::byte> rest{
      rows.data, static_cast<std::size_t>(rows.rows * rows.width * element_size(rows.type))};
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
  const std::int64_t row_bytes = info.width * element_size(info.type);
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
