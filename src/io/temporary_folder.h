// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace memlayers::io {

// A new folder where the system keeps what is temporary, which goes with all that is in it.
class TemporaryFolder {
 public:
  // `purpose` is part of its name. Throws Error where it cannot be made.
  explicit TemporaryFolder(const std::string& purpose);
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace memlayers::io
