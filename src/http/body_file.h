// SPDX-License-Identifier: Apache-2.0
// A request's body on the disk.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "io/file_system.h"
#include "io/temporary.h"

namespace memlayers::http {

// A file of a name of its own in a folder, removed on destruction. It is locked, so that
// remove_left_bodies() of another process lets it be. Functions throw Error.
class BodyFile {
 public:
  // `bytes`: its size, where that is known: there is room for them now.
  BodyFile(io::FileSystem& fs, const std::string& folder, std::optional<std::uint64_t> bytes);
  ~BodyFile();
  BodyFile(const BodyFile&) = delete;
  BodyFile& operator=(const BodyFile&) = delete;

  void append(std::string_view bytes);
  const std::string& path() const { return name_.path(); }

 private:
  io::TemporaryName name_;
  std::unique_ptr<io::Lock> lock_;
  std::unique_ptr<io::File> file_;
  std::uint64_t size_ = 0;
};

// Those that a process which was killed has left in the folder. Throws Error where it is none.
void remove_left_bodies(io::FileSystem& fs, const std::string& folder);

}  // namespace memlayers::http
