// SPDX-License-Identifier: Apache-2.0
// How many files and sockets this process may have open.
#pragma once

#include <cstddef>

#include "http/server.h"

namespace memlayers::http {

// What a server of these limits has open at most: its connections, the bodies that go to files, and
// some for what stands beside it in the process.
std::size_t descriptors_of(const Limits& limits);
// Raises the process' own limit to `wanted`, as far as the system lets it; how many it may have
// then.
std::size_t allow_descriptors(std::size_t wanted);

}  // namespace memlayers::http
