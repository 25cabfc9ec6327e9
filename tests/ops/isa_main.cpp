// SPDX-License-Identifier: Apache-2.0
// ctest runs every op test once per instruction set; one that this CPU lacks is skipped, not
// passed.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "kernels/kernels.h"

int main(int argc, char** argv) {
  constexpr int kSkip = 77;
  if (const char* isa = std::getenv("MEMLAYERS_ISA"); isa != nullptr) {
    const auto supported = memlayers::kernels::supported();
    const bool is_here = std::any_of(supported.begin(), supported.end(), [&](const auto* kernels) {
      return std::string_view(kernels->isa) == isa;
    });
    if (!is_here) return kSkip;
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
