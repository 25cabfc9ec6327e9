// SPDX-License-Identifier: Apache-2.0
// What a user may name where text is wanted: a file, or a stream that is already open.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "io/file_system.h"

namespace memlayers::io {

// The descriptor that a path names: "-" and /dev/stdin, and /dev/fd/N or /proc/self/fd/N, which is
// what a shell puts for <(...); none for every other path.
std::optional<int> stream_of(const std::string& path);

constexpr std::uint64_t kMostText = std::uint64_t{1} << 32;

// All bytes of a regular file, or what comes out of a stream (see stream_of) from now to its end.
// Throws Error, naming the path, for more than `most` bytes, and for what is neither: a FIFO in a
// folder would be waited for.
std::string read_stream_or_file(FileSystem& fs, const std::string& path,
                                std::uint64_t most = kMostText);

}  // namespace memlayers::io
