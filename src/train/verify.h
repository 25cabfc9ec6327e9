// SPDX-License-Identifier: Apache-2.0
// What a checkpoint keeps beside its model, read again.
#pragma once

#include <string>

#include "io/file_system.h"

namespace memlayers::train {

// Reads usage.safetensors and all of optimizer/, where they are. Throws Error naming file and
// tensor of a number that cannot be: NaN, infinity, a count or mean of squares below 0; and of rows
// whose checksum does not hold.
void verify_run_files(io::FileSystem& files, const std::string& checkpoint);

}  // namespace memlayers::train
