// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace memlayers::kernels {

extern const Kernels portable;
#if defined(__x86_64__)
extern const Kernels avx2;
extern const Kernels avx512;
#endif

namespace {

// The scratch of top_k also holds its group maxima: at most 16 vectors of the widest kind.
constexpr std::int64_t kMostGroups = 256;

std::vector<const Kernels*> find_supported() {
  std::vector<const Kernels*> found{&portable};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c")) {
    found.push_back(&avx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
      found.push_back(&avx512);
    }
  }
#endif
  return found;
}

}  // namespace

std::size_t top_k_scratch_bytes(std::int64_t n, std::int64_t /*k*/) {
  return static_cast<std::size_t>(std::max(n, kMostGroups)) * sizeof(std::uint64_t);
}

std::size_t combine_scratch_bytes(std::int64_t k) {
  std::int64_t pairs = 0;
  for (std::int64_t a = 1; a <= k; ++a) pairs += k / a;
  return static_cast<std::size_t>(pairs) * sizeof(std::uint64_t);
}

std::span<const Kernels* const> supported() {
  static const std::vector<const Kernels*> found = find_supported();
  return found;
}

const Kernels& named(std::string_view isa) {
  std::string names;
  for (const Kernels* kernels : supported()) {
    if (isa == kernels->isa) return *kernels;
    names += (names.empty() ? "" : ", ") + std::string(kernels->isa);
  }
  throw std::invalid_argument("MEMLAYERS_ISA: expected one of " + names + ", got \"" +
                              std::string(isa) + "\"");
}

const Kernels& active() {
  static const Kernels& chosen = [&]() -> const Kernels& {
    const char* isa = std::getenv("MEMLAYERS_ISA");
    return isa == nullptr || *isa == '\0' ? *supported().back() : named(isa);
  }();
  return chosen;
}

}  // namespace memlayers::kernels
