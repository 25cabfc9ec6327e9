// SPDX-License-Identifier: Apache-2.0
#include "serve/low_priority.h"

#include <ATen/Parallel.h>
#include <omp.h>
#include <sys/resource.h>
#include <unistd.h>

namespace memlayers::serve {

LowPriority::LowPriority(int niceness) {
  const auto thread = static_cast<id_t>(::gettid());
  if (niceness > ::getpriority(PRIO_PROCESS, thread)) {
    ::setpriority(PRIO_PROCESS, thread, niceness);  // where that fails, it goes on as the others
  }
  // torch sets the number of its threads in a thread's first parallel part; the number that counts
  // afterwards is OpenMP's, of this thread.
  at::internal::lazy_init_num_threads();
  ::omp_set_num_threads(1);
}

}  // namespace memlayers::serve
