// SPDX-License-Identifier: Apache-2.0
#include "io/temporary_folder.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "io/file_system.h"
#include "memlayers/error.h"

namespace memlayers::io {

TemporaryFolder::TemporaryFolder(const std::string& purpose)
    : path_(std::filesystem::temp_directory_path() / ("memlayers-" + purpose + "-XXXXXX")) {
  if (::mkdtemp(path_.data()) == nullptr) {
    throw Error(path_ + ": cannot make the folder: " + std::strerror(errno));
  }
}

TemporaryFolder::~TemporaryFolder() {
  try {
    remove_all(posix(), path_);
  } catch (const Error&) {  // the system clears it away
  }
}

}  // namespace memlayers::io
