// SPDX-License-Identifier: Apache-2.0
// From the files of a pool's folder to its state. Changes nothing.
#pragma once

#include <optional>
#include <string>

#include "io/file_system.h"
#include "pool/log.h"
#include "pool/state.h"

namespace memlayers::pool {

constexpr const char* kCurrent = "CURRENT";  // the file that names the live log

std::string log_name(std::uint64_t number);
std::uint64_t log_number(const std::string& name);  // 0 for what is no log's name

// The name of the live log; none where the pool was never edited.
std::optional<std::string> read_current(io::FileSystem& fs, const std::string& folder);
void write_current(io::FileSystem& fs, const std::string& folder, const std::string& log);

struct Recovered {
  State state;
  std::string log;                  // name of the live log; empty: never edited
  std::optional<LogCursor> cursor;  // of that log, at its end
  bool is_torn = false;             // nothing may be written behind its end
};
// `mode`: kReadWrite for the writer. All that is read of the log is on the disk on return: it was
// synced, and read after memory had forgotten it. Throws Corruption where something acknowledged is
// lost, unless it is in the log and `to_point_in_time` is set, and NotFound where a file that was
// just named is gone.
Recovered recover(io::FileSystem& fs, const std::string& folder, io::OpenMode mode,
                  bool to_point_in_time);

}  // namespace memlayers::pool
