// SPDX-License-Identifier: Apache-2.0
// The versions of a folder that another process, or a Store in this one, writes.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "memlayers/store.h"
#include "pool/log.h"
#include "pool/version.h"

namespace memlayers::pool {

class LogFollower {
 public:
  LogFollower(io::FileSystem& fs, std::string folder, const StoreOptions& options);
  std::shared_ptr<const Version> published() const { return version_.load(); }
  bool refresh();  // StoreReader::refresh()

 private:
  void open();
  bool follow();

  io::FileSystem& fs_;
  const std::string folder_;
  const bool to_point_in_time_;
  RowsLoader loader_;
  CurrentVersion version_;
  std::string log_;  // name of the log that cursor_ reads; empty: never edited
  std::optional<LogCursor> cursor_;
};

}  // namespace memlayers::pool
