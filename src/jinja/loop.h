// SPDX-License-Identifier: Apache-2.0
// The `loop` of a for statement.
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "jinja/run.h"
#include "jinja/value.h"

namespace memlayers::jinja {

class LoopState {
 public:
  explicit LoopState(Items items) : items_(std::move(items)) {}

  std::size_t length() const { return items_.size(); }
  bool has_next() const { return next_ < items_.size(); }
  const Value& next() { return items_[next_++]; }
  std::optional<Value> attribute(Run& run, const Value& self, std::string_view name) const;
  bool changed(Run& run, const Items& values);
  void forget() { last_changed_.reset(); }  // what may hold this loop
  std::size_t index0() const { return next_ - 1; }

 private:
  const Items items_;
  std::size_t next_ = 0;
  std::optional<Items> last_changed_;
};

}  // namespace memlayers::jinja
