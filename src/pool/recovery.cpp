// SPDX-License-Identifier: Apache-2.0
#include "pool/recovery.h"

#include <charconv>

#include "io/folder.h"
#include "memlayers/error.h"
#include "pool/chunks.h"

namespace memlayers::pool {
namespace {

constexpr std::string_view kLogStem = "log-";

std::string current_text(const std::string& log) {
  return log + " " + io::xxh3_hex(std::as_bytes(std::span(log))) + "\n";
}

// The state of a folder of chunks that has no log.
State state_of_chunks(io::FileSystem& fs, const std::string& folder) {
  for (const std::string& name : fs.list(folder)) {
    if (log_number(name) == 0) continue;
    // The first edit makes a log, then CURRENT, then writes: a log without edits may be left.
    const std::string path = io::join(folder, name);
    LogCursor cursor(fs.open(path, io::OpenMode::kRead), path);
    if (cursor.next_group() && (cursor.next_group() || log_number(name) > 1)) {
      throw Corruption(io::join(folder, kCurrent) +
                       ": expected the name of the live log, found no "
                       "file although " +
                       name + " holds edits");
    }
  }
  const ChunkedRows rows = ChunkedRows::open(fs, folder, "chunk");
  State state;
  state.pool = rows.info();
  for (const Chunk& chunk : rows.chunks()) {
    const std::string& path = chunk.file.path();
    state.base.push_back({path.substr(path.find_last_of('/') + 1), chunk.first, chunk.file.rows(),
                          chunk.file.digest()});
  }
  return state;
}

}  // namespace

std::string log_name(std::uint64_t number) {
  return std::string(kLogStem) + std::to_string(number);
}

std::uint64_t log_number(const std::string& name) {
  std::uint64_t number = 0;
  if (!name.starts_with(kLogStem)) return 0;
  const char* end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data() + kLogStem.size(), end, number);
  return parsed.ec == std::errc() && parsed.ptr == end ? number : 0;
}

std::optional<std::string> read_current(io::FileSystem& fs, const std::string& folder) {
  const std::string path = io::join(folder, kCurrent);
  std::string text;
  try {
    text = io::read_text(fs, path);
  } catch (const io::NotFound&) {
    return std::nullopt;
  }
  std::string name = text.substr(0, text.find(' '));
  if (log_number(name) == 0 || text != current_text(name)) {
    throw Corruption(path + ": at byte 0: expected the name of a log and its checksum, got others");
  }
  return name;
}

void write_current(io::FileSystem& fs, const std::string& folder, const std::string& log) {
  io::write_atomic(fs, io::join(folder, kCurrent), current_text(log));
}

Recovered recover(io::FileSystem& fs, const std::string& folder, io::OpenMode mode,
                  bool to_point_in_time) {
  Recovered recovered;
  const auto current = read_current(fs, folder);
  if (!current) {
    recovered.state = state_of_chunks(fs, folder);
    return recovered;
  }
  recovered.log = *current;
  const std::string path = io::join(folder, recovered.log);
  const std::shared_ptr<io::File> file = fs.open(path, mode);
  // A writer that was killed may have left in memory what is not on the disk, and after a failed
  // sync memory may hold what never will be.
  file->sync();
  file->drop_cache();
  LogCursor& cursor = recovered.cursor.emplace(file, path);
  const auto first = cursor.next_group();
  if (!first) throw Corruption(path + ": expected the state of the pool at byte 4096, got zeros");
  recovered.state = state_of(first->front(), path);
  State good;
  try {
    for (std::size_t i = 1; i < first->size(); ++i) advance(recovered.state, (*first)[i], path);
    while (true) {
      if (to_point_in_time) good = recovered.state;
      const auto records = cursor.next_group();
      if (!records) break;
      for (const Record& record : *records) advance(recovered.state, record, path);
    }
    recovered.is_torn = cursor.is_torn();
  } catch (const Corruption&) {
    if (!to_point_in_time) throw;
    recovered.state = good;
    recovered.is_torn = true;
  }
  return recovered;
}

}  // namespace memlayers::pool
