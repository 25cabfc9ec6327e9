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
extern const Kernels avx512vnni;
#endif

namespace {

constexpr std::int64_t kWidest = 16;  // floats of a vector

// Survivors of a bound (values and index, and a vector behind), or 64-bit numbers to sort.
std::size_t survivors_bytes(std::int64_t n) {
  return static_cast<std::size_t>(n + 2 * kWidest) * sizeof(std::uint64_t);
}

std::vector<const Kernels*> find_supported() {
  std::vector<const Kernels*> found{&portable};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c")) {
    found.push_back(&avx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
      found.push_back(&avx512);
      if (__builtin_cpu_supports("avx512vnni")) found.push_back(&avx512vnni);
    }
  }
#endif
  return found;
}

}  // namespace

std::size_t top_k_scratch_bytes(std::int64_t n, std::int64_t /*k*/) { return survivors_bytes(n); }

std::size_t combine_scratch_bytes(std::int64_t k) {
  std::int64_t pairs = 0;
  for (std::int64_t a = 1; a <= k; ++a) pairs += k / a;
  return static_cast<std::size_t>(round_up(pairs, 64) + 64) * sizeof(float) +
         survivors_bytes(pairs);
}

std::vector<std::uint32_t> combine_plan(std::int64_t k) {
  std::vector<std::uint32_t> plan;
  for (std::int64_t a = 0; a < k; ++a) {
    for (std::int64_t b = 0; (a + 1) * (b + 1) <= k; ++b) {
      plan.push_back(static_cast<std::uint32_t>(a << 16 | b));
    }
  }
  return plan;
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
