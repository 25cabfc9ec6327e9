// SPDX-License-Identifier: Apache-2.0
#include "support/source_folder.h"

namespace memlayers::testing {

std::string in_repository(const std::string& path) {
  return std::string(MEMLAYERS_SOURCE_FOLDER) + "/" + path;
}

}  // namespace memlayers::testing
