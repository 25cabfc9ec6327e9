// SPDX-License-Identifier: Apache-2.0
#include "text/split_behavior.h"

#include <string>

namespace memlayers::text {

SplitBehavior read_split_behavior(const JsonField& field) {
  const std::string& name = field.string();
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  field.fail("Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

// Whether the next stretch belongs to the part before it. Of several matches in a row one merges.
bool PartJoiner::joins(bool is_match) const {
  switch (behavior_) {
    case SplitBehavior::kMergedWithPrevious:
      return is_match && !ends_in_match_;
    case SplitBehavior::kMergedWithNext:
      return !is_match && ends_in_match_;
    case SplitBehavior::kContiguous:
      return is_match == ends_in_match_;
    default:
      return false;
  }
}

void PartJoiner::take(std::size_t begin, std::size_t end, bool is_match) {
  if (begin == end || (is_match && behavior_ == SplitBehavior::kRemoved)) return;
  if (has_part_ && joins(is_match)) {
    end_ = end;
  } else {
    finish();
    begin_ = begin;
    end_ = end;
    has_part_ = true;
  }
  ends_in_match_ = is_match;
}

void PartJoiner::finish() {
  if (has_part_) give_(begin_, end_);
  has_part_ = false;
}

}  // namespace memlayers::text
