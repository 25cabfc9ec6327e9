// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

// MKL's, where torch has it: sets how many threads it takes for this thread, and returns how many
// those were before (0: as many as for all). torch comes without MKL's headers.
// NOLINTNEXTLINE(readability-identifier-naming)
extern "C" [[gnu::weak]] int MKL_Set_Num_Threads_Local(int num_threads);

namespace memlayers::ops {

// While one lives, torch's products in this thread are those of one thread. In a parallel part they
// run on one in any case, but torch forbids MKL to notice: it divides them for as many threads as
// there are, which sums some of them in another order.
class OneThreadProducts {
 public:
  OneThreadProducts() {
    if (MKL_Set_Num_Threads_Local != nullptr) before_ = MKL_Set_Num_Threads_Local(1);
  }
  ~OneThreadProducts() {
    if (before_) MKL_Set_Num_Threads_Local(*before_);
  }
  OneThreadProducts(const OneThreadProducts&) = delete;
  OneThreadProducts& operator=(const OneThreadProducts&) = delete;

 private:
  std::optional<int> before_;
};

}  // namespace memlayers::ops
