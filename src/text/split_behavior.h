// SPDX-License-Identifier: Apache-2.0
// What becomes of the matches by which a text is cut.
#pragma once

#include <cstddef>
#include <functional>

#include "text/json_field.h"

namespace memlayers::text {

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

SplitBehavior read_split_behavior(const JsonField& field);  // "Removed", "Isolated", ...

// Takes the stretches of a text in order, matches and what lies between them, and gives the parts.
class PartJoiner {
 public:
  using Give = std::function<void(std::size_t begin, std::size_t end)>;
  PartJoiner(SplitBehavior behavior, Give give) : behavior_(behavior), give_(std::move(give)) {}
  void take(std::size_t begin, std::size_t end, bool is_match);  // nothing where it is empty
  void finish();

 private:
  bool joins(bool is_match) const;
  const SplitBehavior behavior_;
  const Give give_;
  bool has_part_ = false, ends_in_match_ = false;
  std::size_t begin_ = 0, end_ = 0;  // of the part that may still grow
};

}  // namespace memlayers::text
