// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "serve/scheduler.h"

namespace memlayers::serve {

// The text of a greedy answer, through the queue that all requests take: waits for it. None where
// it is not answered: the queue is full, the server ends, the sequence fails, or `is_over` became
// true.
std::optional<std::string> ask(Scheduler& scheduler, std::vector<std::int32_t> prompt,
                               std::int64_t max_tokens, const api::MemoryView& memory,
                               const std::atomic<bool>& is_over);

}  // namespace memlayers::serve
