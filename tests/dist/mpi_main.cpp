// SPDX-License-Identifier: Apache-2.0
// main() of the tests that mpirun starts: every process runs all of them, in step.
#include <gtest/gtest.h>

#include "memlayers/parallel.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const auto world = memlayers::world();
  if (world->rank() > 0) GTEST_FLAG_SET(brief, true);  // says what failed, nothing else
  if (RUN_ALL_TESTS() != 0) {
    memlayers::abort_world(1);  // the others may wait for this one
    return 1;
  }
  memlayers::leave_world();
  return 0;
}
