// SPDX-License-Identifier: Apache-2.0
#include "api/grammar/numbers.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace memlayers::api::grammar {
namespace {

// So many digits behind the point of a number with limits; with nine before it a double has all.
constexpr int kMostLimitedFraction = 6;
constexpr int kMostFraction = 16, kMostWhole = 16;

NodeId digits(Program& program, int count, NodeId next) {
  for (; count > 0; --count) next = program.range('0', '9', next);
  return next;
}

NodeId up_to(Program& program, int most, NodeId next) {
  NodeId begin = next;
  for (; most > 0; --most) begin = program.split(program.range('0', '9', begin), next);
  return begin;
}

// Texts of as many digits each, from one to the other.
NodeId between(Program& program, std::string_view low, std::string_view high, NodeId next) {
  if (low.find_first_not_of('0') == low.npos && high.find_first_not_of('9') == high.npos) {
    return digits(program, static_cast<int>(low.size()), next);
  }
  const auto a = static_cast<unsigned char>(low[0]), b = static_cast<unsigned char>(high[0]);
  const std::string_view low_rest = low.substr(1), high_rest = high.substr(1);
  if (a == b) return program.byte(a, between(program, low_rest, high_rest, next));
  const std::string zeros(low_rest.size(), '0'), nines(low_rest.size(), '9');
  std::vector<NodeId> ways = {program.byte(a, between(program, low_rest, nines, next)),
                              program.byte(b, between(program, zeros, high_rest, next))};
  if (b - a > 1) {
    ways.push_back(program.range(static_cast<unsigned char>(a + 1),
                                 static_cast<unsigned char>(b - 1),
                                 between(program, zeros, nines, next)));
  }
  return program.any_of(ways);
}

NodeId not_negative(Program& program, std::int64_t least, std::int64_t most, NodeId next) {
  std::vector<NodeId> ways;
  for (;;) {
    const std::string low = std::to_string(least);
    const std::string nines(low.size(), '9');
    const std::int64_t end = std::min<std::int64_t>(most, std::stoll(nines));
    ways.push_back(between(program, low, std::to_string(end), next));
    if (end == most) return program.any_of(ways);
    least = end + 1;
  }
}

// A point and digits, of which one is not 0 where the number must differ from its whole part.
NodeId fraction(Program& program, bool is_some, NodeId next) {
  if (!is_some) {
    return program.split(
        program.byte('.', program.range('0', '9', up_to(program, kMostLimitedFraction - 1, next))),
        next);
  }
  NodeId begin = program.nothing();
  for (int left = 0; left < kMostLimitedFraction; ++left) {
    begin = program.split(program.byte('0', begin),
                          program.range('1', '9', up_to(program, left, next)));
  }
  return program.byte('.', begin);
}

NodeId zeros_only(Program& program, NodeId next) {
  NodeId begin = next;
  for (int i = 1; i < kMostLimitedFraction; ++i) {
    begin = program.split(program.byte('0', begin), next);
  }
  return program.split(program.byte('.', program.byte('0', begin)), next);
}

// The numbers without a sign between limits that are not negative.
void add_not_negative(Program& program, NumberLimit least, NumberLimit most, NodeId next,
                      std::vector<NodeId>& ways) {
  const auto whole = [&](std::int64_t value, NodeId behind) {
    ways.push_back(program.text(std::to_string(value), behind));
  };
  if (least.value > most.value) return;
  if (least.value == most.value) {
    if (!least.is_excluded && !most.is_excluded) whole(least.value, zeros_only(program, next));
    return;
  }
  if (least.is_excluded) whole(least.value, fraction(program, true, next));
  const std::int64_t first = least.value + (least.is_excluded ? 1 : 0);
  if (first < most.value) {
    ways.push_back(not_negative(program, first, most.value - 1, fraction(program, false, next)));
  }
  if (!most.is_excluded) whole(most.value, zeros_only(program, next));
}

}  // namespace

NodeId integer(Program& program, std::int64_t least, std::int64_t most, NodeId next) {
  std::vector<NodeId> ways;
  if (most >= 0) {
    ways.push_back(not_negative(program, std::max<std::int64_t>(least, 0), most, next));
  }
  if (least < 0) {
    const std::int64_t smallest = std::max<std::int64_t>(-most, 1);
    ways.push_back(program.byte('-', not_negative(program, smallest, -least, next)));
  }
  return program.any_of(ways);
}

NodeId number(Program& program, NodeId next) {
  const NodeId exponent_digits = program.range('0', '9', up_to(program, 1, next));
  ByteSet e, sign;
  e.set('e').set('E');
  sign.set('+').set('-');
  const NodeId exponent = program.split(
      program.bytes(e, program.split(program.bytes(sign, exponent_digits), exponent_digits)), next);
  const NodeId point = program.split(
      program.byte('.', program.range('0', '9', up_to(program, kMostFraction - 1, exponent))),
      exponent);
  const NodeId whole = program.split(
      program.byte('0', point), program.range('1', '9', up_to(program, kMostWhole - 1, point)));
  return program.split(program.byte('-', whole), whole);
}

NodeId number_between(Program& program, std::optional<NumberLimit> least,
                      std::optional<NumberLimit> most, NodeId next) {
  const NumberLimit low = least.value_or(NumberLimit{-kMostNumberLimit});
  const NumberLimit high = most.value_or(NumberLimit{kMostNumberLimit});
  std::vector<NodeId> ways, negative;
  if (high.value >= 0) {
    add_not_negative(program, low.value >= 0 ? low : NumberLimit{}, high, next, ways);
  }
  if (low.value < 0) {
    const NumberLimit smallest = high.value >= 0
                                     ? NumberLimit{0, high.value == 0 && high.is_excluded}
                                     : NumberLimit{-high.value, high.is_excluded};
    add_not_negative(program, smallest, {-low.value, low.is_excluded}, next, negative);
  }
  if (!negative.empty()) ways.push_back(program.byte('-', program.any_of(negative)));
  return ways.empty() ? program.nothing() : program.any_of(ways);
}

}  // namespace memlayers::api::grammar
