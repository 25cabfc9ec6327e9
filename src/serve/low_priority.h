// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "ops/lookup/one_thread.h"

namespace memlayers::serve {

// This thread, and those that it starts, run when others do not want the processor; what torch
// computes in it takes one thread. To be made by the thread itself, and kept as long as it works.
class LowPriority {
 public:
  explicit LowPriority(int niceness);  // 19: the lowest

 private:
  ops::OneThreadProducts one_;
};

}  // namespace memlayers::serve
