// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace memlayers::testing {

// A path of the repository: `path` relative to its root. Only one file is compiled with the root,
// so that ccache knows the others in every clone.
std::string in_repository(const std::string& path);

}  // namespace memlayers::testing
