// SPDX-License-Identifier: Apache-2.0
// Canaries on the disk, so that they outlive the process that asks them (docs/formats.md).
#pragma once

#include <map>
#include <string>

#include "api/engine.h"
#include "io/file_system.h"

namespace memlayers::serve {

using CanariesById = std::map<std::string, api::Canary>;

inline constexpr const char* kCanaryFile = "canaries.json";  // in the model's folder

// What they ask and want, and not how they were; none where there is no file. Throws Error naming
// file and field for what is no such file.
CanariesById read_canaries(io::FileSystem& files, const std::string& path);
// Replaces the file whole or not at all; on the disk when it returns. Throws Error naming it.
void write_canaries(io::FileSystem& files, const std::string& path, const CanariesById& canaries);

}  // namespace memlayers::serve
