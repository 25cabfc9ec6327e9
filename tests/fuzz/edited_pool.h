// SPDX-License-Identifier: Apache-2.0
// The small pool after some edits: two patches in the log, one in a segment, one rolled back.
#pragma once

#include "fuzz/fuzz.h"

namespace memlayers::fuzz {

inline testing::MemoryFileSystem edited_pool() {
  testing::MemoryFileSystem fs;
  fs.make_folder(kPool);
  kSmall.write(fs, kPool);
  Store store = Store::open(fs, kPool, small_steps());
  store.apply(kSmall.patch(1, {2, 30}, {7}));
  store.apply(kSmall.patch(2, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
  store.apply(kSmall.patch(3, {39}));
  store.rollback("p1");
  store.keep("p2");
  return fs;
}

}  // namespace memlayers::fuzz
