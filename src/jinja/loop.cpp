// SPDX-License-Identifier: Apache-2.0
#include "jinja/loop.h"

#include <algorithm>

#include "jinja/callable.h"
#include "jinja/operators.h"

namespace memlayers::jinja {
namespace {

class LoopMethod : public Callable {
 public:
  LoopMethod(Value loop, bool cycles) : loop_(std::move(loop)), cycles_(cycles) {}
  std::string_view kind() const override { return "a method"; }
  Value call(Run& run, const Arguments& arguments) const override {
    if (!arguments.named.empty()) throw Problem("loop: expected no named arguments, got one");
    LoopState& loop = *loop_.loop();
    const Items& values = arguments.positional;
    if (!cycles_) {
      run.kept_loops.push_back(loop_);
      return Value(loop.changed(run, values));
    }
    if (values.empty()) throw Problem("loop.cycle: expected something to cycle through, got none");
    return values[loop.index0() % values.size()];
  }

 private:
  const Value loop_;
  const bool cycles_;
};

}  // namespace

bool LoopState::changed(Run& run, const Items& values) {
  const bool is_same =
      last_changed_ && last_changed_->size() == values.size() &&
      std::ranges::equal(*last_changed_, values,
                         [&](const auto& a, const auto& b) { return is_equal(run, a, b); });
  if (!is_same) last_changed_ = values;
  return !is_same;
}

std::optional<Value> LoopState::attribute(Run&, const Value& self, std::string_view name) const {
  const std::size_t index0 = next_ - 1, count = items_.size();
  if (name == "index") return Value(index0 + 1);
  if (name == "index0") return Value(index0);
  if (name == "first") return Value(index0 == 0);
  if (name == "last") return Value(index0 + 1 == count);
  if (name == "length") return Value(count);
  if (name == "revindex") return Value(count - index0);
  if (name == "revindex0") return Value(count - index0 - 1);
  // Of loops that call themselves, which we refuse, it would be more.
  if (name == "depth") return Value(std::int64_t{1});
  if (name == "depth0") return Value(std::int64_t{0});
  if (name == "previtem") {
    return index0 == 0 ? Value::undefined("there is no previous item") : items_[index0 - 1];
  }
  if (name == "nextitem") {
    return index0 + 1 == count ? Value::undefined("there is no next item") : items_[index0 + 1];
  }
  if (name == "cycle" || name == "changed") {
    return Value(
        std::shared_ptr<const Callable>(std::make_shared<LoopMethod>(self, name == "cycle")));
  }
  return std::nullopt;
}

}  // namespace memlayers::jinja
