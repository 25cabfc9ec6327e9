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
#include "io/shown.h"
#include "memlayers/error.h"
#include "pool/prefetch.h"
#include "pool/row_format.h"

namespace memlayers::pool {
namespace {

constexpr std::int64_t kChunkBytes = 64 << 20;
constexpr const char* kChunkFormat = "memlayers-chunk";

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
  const std::int64_t rows_a_chunk = rows_of_a_chunk(info.width, info.type);
  ask_for_rows(fs, folder, info.rows, info.width, info.type);
  for (std::int64_t first = 0, i = 0; first < info.rows; first += rows_a_chunk, ++i) {
    write_chunk(fs, io::join(folder, chunk_name(stem, i, info.generation)), info, first,
                rows_of(first, std::min(rows_a_chunk, info.rows - first)));
  }
}

}  // namespace

void ask_for_rows(io::FileSystem& fs, const std::string& folder, std::int64_t rows,
                  std::int64_t width, RowType type, std::uint64_t besides) {
  constexpr std::int64_t kMost = std::int64_t{1} << 60;
  const std::int64_t stride = stride_bytes(width, type);
  if (rows > kMost / stride) {
    throw Error(folder + ": expected less than 2^60 bytes of rows, got " + std::to_string(rows) +
                " rows of " + std::to_string(stride) + " bytes");
  }
  io::ask_for_room(fs, folder, static_cast<std::uint64_t>(rows * stride) + besides);
}

std::string chunk_name(std::string_view stem, std::int64_t index, std::uint64_t generation) {
  return std::string(stem) + "-" + std::to_string(index) + "-" + std::to_string(generation) +
         ".safetensors";
}

std::int64_t rows_of_a_chunk(std::int64_t width, RowType type) {
  return std::max<std::int64_t>(1, kChunkBytes / stride_bytes(width, type));
}

void write_chunk(io::FileSystem& fs, const std::string& path, const PoolInfo& info,
                 std::int64_t first, std::span<const std::byte> rows) {
  write_rows_file(fs, path, kChunkFormat, info, rows, {{"first_row", std::to_string(first)}});
}

Chunk open_chunk(io::FileSystem& fs, const std::string& path) {
  RowsFile file = RowsFile::open(fs, path, kChunkFormat);
  const std::int64_t first = file.number("first_row"), total = file.pool().rows;
  if (file.rows() < 1 || file.rows() > total || first > total - file.rows()) {
    throw Error(path + ": metadata first_row, rows: expected rows inside [0, " +
                std::to_string(total) + "), got " + std::to_string(file.rows()) + " from row " +
                std::to_string(first));
  }
  return {std::move(file), first};
}

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
  if (fs.exists(io::join(folder, "CURRENT"))) {
    throw Error(folder + ": expected a pool without edits, found CURRENT: open it as a store");
  }
  const std::string prefix = std::string(stem) + "-";
  for (const std::string& name : fs.list(folder)) {
    if (!name.starts_with(prefix) || !name.ends_with(".safetensors")) continue;
    Chunk chunk = open_chunk(fs, io::join(folder, name));
    const PoolInfo& info = chunk.file.pool();
    if (table.chunks_.empty()) {
      table.info_ = info;
      table.stride_ = chunk.file.stride();
    } else if (info.id != table.info_.id || info.rows != table.info_.rows ||
               info.width != table.info_.width || info.type != table.info_.type) {
      throw Error(chunk.file.path() + ": expected a chunk of pool " + io::shown(table.info_.id) +
                  " with " + std::to_string(table.info_.rows) + " rows of " +
                  std::to_string(table.info_.width) + ", got pool " + io::shown(info.id) +
                  " with " + std::to_string(info.rows) + " of " + std::to_string(info.width));
    }
    if (chunk.file.stride() != table.stride_) {
      throw Error(chunk.file.path() + ": expected rows " + std::to_string(table.stride_) +
                  " bytes apart, got " + std::to_string(chunk.file.stride()));
    }
    table.info_.generation = std::max(table.info_.generation, info.generation);
    table.chunks_.push_back(std::move(chunk));
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
    next = chunk.first + chunk.file.rows();
  }
  if (next != table.info_.rows) {
    throw Error(folder + ": expected " + std::to_string(table.info_.rows) + " rows in " + prefix +
                "*.safetensors, got " + std::to_string(next) + ": a chunk is missing");
  }
  return table;
}

template <class F>
void ChunkedRows::for_each_part(std::int64_t first, std::int64_t count, const F& f) const {
  auto chunk = std::upper_bound(chunks_.begin(), chunks_.end(), first,
                                [](std::int64_t row, const Chunk& c) { return row < c.first; });
  --chunk;
  for (std::int64_t done = 0; done < count; ++chunk) {
    const std::int64_t begin = first + done - chunk->first;
    const std::int64_t end = begin + std::min(count - done, chunk->file.rows() - begin);
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
    chunk.file.check(begin, end - begin);
    std::byte* to = out.data() + (chunk.first + begin - first) * row_bytes;
    if (stride_ == row_bytes) {
      io::copy_mapped(to,
                      {chunk.file.row(begin), static_cast<std::size_t>(row_bytes * (end - begin))});
      return;
    }
    copy_rows(end - begin, row_bytes, to,
              [&](std::int64_t i) { return chunk.file.row(begin + i); });
  });
}

void ChunkedRows::release(std::int64_t first, std::int64_t count) const {
  for_each_part(first, count, [&](const Chunk& chunk, std::int64_t begin, std::int64_t end) {
    chunk.file.release(begin, end - begin);
  });
}

void check_generation(const ChunkedRows& rows, std::uint64_t generation) {
  for (const Chunk& chunk : rows.chunks()) {
    const std::uint64_t found = chunk.file.pool().generation;
    if (found == generation) continue;
    throw Error(chunk.file.path() + ": expected generation " + std::to_string(generation) +
                " as in all that was written with it, got " + std::to_string(found) +
                ": a file of another step");
  }
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

std::string digest(const RowsSource& source) {
  Digest digest;
  digest.start(source.rows, source.width, source.type);
  const std::int64_t row_bytes = row_format(source.type, source.width).bytes();
  const std::int64_t at_once = std::max<std::int64_t>(1, (8 << 20) / row_bytes);
  std::vector<std::byte> buffer;
  for (std::int64_t first = 0; first < source.rows; first += at_once) {
    buffer.resize(static_cast<std::size_t>(std::min(at_once, source.rows - first) * row_bytes));
    source.read(first, buffer);
    digest.add(buffer.data(), buffer.size());
  }
  return digest.finish();
}

std::string digest(const ChunkedRows& rows) {
  const PoolInfo& info = rows.info();
  return digest(RowsSource{[&](std::int64_t first, std::span<std::byte> out) {
                             rows.read(first, out);
                             rows.release(first, static_cast<std::int64_t>(out.size()) /
                                                     row_format(info.type, info.width).bytes());
                           },
                           info.rows, info.width, info.type});
}

}  // namespace memlayers::pool
