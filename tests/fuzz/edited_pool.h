// SPDX-License-Identifier: Apache-2.0
// The small pool after some edits: patches in the log and in a segment, with sub-keys in both, one
// rolled back.
#pragma once

#include "fuzz/fuzz.h"
#include "pool/store_parts.h"

namespace memlayers::fuzz {

inline testing::MemoryFileSystem edited_pool() {
  testing::MemoryFileSystem fs;
  fs.make_folder(kPool);
  kSmall.write(fs, kPool);
  Store store = pool::open_store(fs, kPool, small_steps());
  store.apply(kSmall.patch(1, {2, 30}, {7}));
  store.apply(testing::with_sub_keys(kSmall.patch(2, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}), 2,
                                     {{1, 0, 0, 2}, {3, 1, 1, 0}}));
  store.apply(testing::with_sub_keys(kSmall.patch(3, {39}), 3, {{3, 1, 1, 0}}));
  store.rollback("p1");
  store.keep("p2");
  return fs;
}

}  // namespace memlayers::fuzz
