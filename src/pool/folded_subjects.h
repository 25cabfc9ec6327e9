// SPDX-License-Identifier: Apache-2.0
// What patches taught whose rows a new pool has as its own.
#pragma once

#include <string>
#include <vector>

#include "io/file_system.h"
#include "memlayers/subjects.h"

namespace memlayers::pool {

// Lets the pool of the folder, which nobody has edited yet, say that its rows were taught these:
// Snapshot::subjects() then has them. Durable on return. Throws Error, and for a pool that was
// edited.
void keep_subjects(io::FileSystem& fs, const std::string& folder,
                   std::vector<PatchSubjects> subjects);

}  // namespace memlayers::pool
