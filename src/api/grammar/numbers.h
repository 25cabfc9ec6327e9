// SPDX-License-Identifier: Apache-2.0
// JSON numbers as nodes of a Program.
#pragma once

#include <cstdint>
#include <optional>

#include "api/grammar/program.h"

namespace memlayers::api::grammar {

// Integers have at most so many digits.
constexpr int kMostDigits = 18;
constexpr std::int64_t kMostInteger = 999'999'999'999'999'999;

// An integer of [least, most], both of at most kMostDigits digits; least <= most.
NodeId integer(Program& program, std::int64_t least, std::int64_t most, NodeId next);

// A number of at most 16 digits before and 16 behind its point, with an exponent of up to two.
NodeId number(Program& program, NodeId next);

struct NumberLimit {
  std::int64_t value = 0;
  bool is_excluded = false;
};
// The largest limit of a number: so that all digits count where it becomes a double.
constexpr std::int64_t kMostNumberLimit = 999'999'999;
// A number between these limits, without an exponent. An absent one: kMostNumberLimit.
NodeId number_between(Program& program, std::optional<NumberLimit> least,
                      std::optional<NumberLimit> most, NodeId next);

}  // namespace memlayers::api::grammar
