// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace memlayers::ops {

// Asks for memory that will be used soon, into the second level of caches. By force: to g++ what
// does nothing else has no effect, and it leaves out a call (docs/performance.md).
[[gnu::always_inline]] inline void prefetch(const void* data, std::int64_t bytes) {
  constexpr std::int64_t kCacheLine = 64;
  const auto* byte = static_cast<const char*>(data);
  for (std::int64_t at = 0; at < bytes; at += kCacheLine) __builtin_prefetch(byte + at, 0, 2);
}

}  // namespace memlayers::ops
