// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace memlayers::bench {

struct Machine {
  std::string cpu;               // its name
  std::string isa;               // the kernels in use
  int threads = 1;               // of torch, now
  std::int64_t cache_bytes = 0;  // of the last-level cache that this process can use
};
Machine describe_machine();

// Bytes that can be had without swapping; all of the memory where the system does not say.
std::int64_t available_memory();
// Throws Error where `bytes` for `what` are more than there are.
void check_memory(const std::string& what, std::int64_t bytes);

}  // namespace memlayers::bench
