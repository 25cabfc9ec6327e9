// SPDX-License-Identifier: Apache-2.0
// Names of what is not finished yet.
#pragma once

#include <string>
#include <string_view>

#include "io/file_system.h"

namespace memlayers::io {

// A name beside `path` that nobody has: "<path>.tmp-<process>-<8 hex digits>". What is written
// gets it first, by a call that takes no name which is there, and is renamed when it is whole.
//
// What an earlier process left under such a name of `path` is removed: of one with this process's
// number, as no living one has that too; with kOfAll of any, where the caller holds a lock that
// keeps others from writing `path`.
class TemporaryName {
 public:
  enum class Left { kOfThisNumber, kOfAll };
  TemporaryName(FileSystem& fs, const std::string& path, Left left = Left::kOfThisNumber,
                std::string_view marker = ".tmp-");
  ~TemporaryName();
  TemporaryName(const TemporaryName&) = delete;
  TemporaryName& operator=(const TemporaryName&) = delete;

  const std::string& path() const { return path_; }
  // What lies under the name and is no longer wanted; a failure leaves it to the next one who takes
  // a name of the same path. Not to be called unless the caller made it.
  void remove(const std::string& first = "") const noexcept;

 private:
  FileSystem& fs_;
  std::string path_;
};

// The process in the temporary name `name` of `stem`; "" for every other name.
std::string process_of_temporary(std::string_view name, std::string_view stem,
                                 std::string_view marker = ".tmp-");

}  // namespace memlayers::io
