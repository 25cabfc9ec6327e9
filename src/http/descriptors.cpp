// SPDX-License-Identifier: Apache-2.0
#include "http/descriptors.h"

#include <sys/resource.h>

#include <algorithm>
#include <cstdint>

namespace memlayers::http {

std::size_t descriptors_of(const Limits& limits) {
  // Each may send a body to a file. Beside them: those that are told why they are not served, and
  // what else the process has: logs, pools, a job's copy of the model.
  constexpr std::size_t kRefused = 128, kOthers = 384;
  constexpr std::size_t kMost = std::size_t{1} << 30U;  // more than any system has
  return std::min(2 * std::min(limits.connections, kMost) + kRefused + kOthers, kMost);
}

std::size_t allow_descriptors(std::size_t wanted) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return wanted;  // then nobody knows
  if (limit.rlim_cur < wanted) {
    rlimit raised = limit;
    raised.rlim_cur = std::min<rlim_t>(wanted, limit.rlim_max);
    if (::setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
  }
  return static_cast<std::size_t>(std::min<rlim_t>(limit.rlim_cur, SIZE_MAX));
}

}  // namespace memlayers::http
