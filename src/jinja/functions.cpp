// SPDX-License-Identifier: Apache-2.0
// The functions that every template has.
#include <algorithm>
#include <array>
#include <map>

#include "io/shown.h"
#include "jinja/filters.h"
#include "jinja/operators.h"

namespace memlayers::jinja {
namespace {

using Call = Value (*)(Run& run, const Arguments& arguments);

class Function : public Callable {
 public:
  explicit Function(Call what) : call_(what) {}
  std::string_view kind() const override { return "a function"; }
  Value call(Run& run, const Arguments& arguments) const override { return call_(run, arguments); }

 private:
  const Call call_;
};

Value raise_exception(Run& run, const Arguments& arguments) {
  static constexpr std::array<std::string_view, 1> kNames{"message"};
  const Bound bound("raise_exception", arguments, kNames);
  throw Raised(str_of(run, bound.at(0)).bytes());
}

Value strftime_now(Run& run, const Arguments& arguments) {
  static constexpr std::array<std::string_view, 1> kNames{"format"};
  const Bound bound("strftime_now", arguments, kNames);
  const Text& format = bound.text(0);
  constexpr std::size_t kMostFormat = 1000, kMostGrowth = 200;
  if (format.size() > kMostFormat) {
    throw Problem("strftime_now: expected a format of at most " + std::to_string(kMostFormat) +
                  " bytes, got " + std::to_string(format.size()));
  }
  bool is_template = true;
  format.for_each_piece(
      [&](std::string_view, bool is_own) { is_template = is_template && is_own; });
  const std::tm now = run.now();
  // strftime() gives 0 for what does not fit and for what is empty: a letter keeps it from being
  // so.
  const std::string pattern = "x" + format.bytes();
  std::string text(pattern.size() * kMostGrowth, '\0');
  const std::size_t size = std::strftime(text.data(), text.size(), pattern.c_str(), &now);
  if (size == 0)
    throw Problem("strftime_now: expected a format of a date, got " + io::quote(format.bytes()));
  return Value(Text(std::string_view(text).substr(1, size - 1), is_template));
}

Value range(Run& run, const Arguments& arguments) {
  static constexpr std::array<std::string_view, 3> kNames{"start", "stop", "step"};
  if (!arguments.named.empty()) throw Problem("range: expected no named arguments, got one");
  const Bound bound("range", arguments, kNames);
  const bool has_start = bound.find(1) != nullptr;
  const std::int64_t start = has_start ? bound.integer(0) : 0;
  const std::int64_t stop = bound.integer(has_start ? 1 : 0);
  const std::int64_t step = bound.integer(2, 1);
  if (step == 0) throw Problem("range: expected a step, got zero");
  constexpr std::size_t kMost = 100'000;  // as Jinja's sandbox
  Items items;
  for (std::int64_t at = start; step > 0 ? at < stop : at > stop;) {
    if (items.size() == kMost) {
      throw Problem("range: expected at most " + std::to_string(kMost) + " numbers, got more");
    }
    items.emplace_back(at);
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  run.budget.spend(items.size());
  Value value = make_sequence(SequenceKind::kRange, std::move(items));
  value.sequence()->range = {start, stop, step};
  return value;
}

// dict(mapping or pairs, name=value ...)
Dict dict_of(Run& run, std::string_view function, const Arguments& arguments) {
  Dict dict;
  if (arguments.positional.size() > 1) {
    throw Problem(std::string(function) + ": expected at most one argument without a name, got " +
                  std::to_string(arguments.positional.size()));
  }
  for (const Value& from : arguments.positional) {
    if (from.dict() != nullptr) {
      run.budget.spend(from.dict()->entries().size());
      for (const auto& [key, value] : from.dict()->entries()) dict.set(key, value);
      continue;
    }
    for (const Value& pair : items_of(run, from)) {
      const Items both = items_of(run, pair);
      if (both.size() != 2) {
        throw Problem(std::string(function) + ": expected pairs of a key and a value, got " +
                      std::to_string(both.size()) + " values");
      }
      dict.set(both[0], both[1]);
    }
  }
  for (const auto& [name, value] : arguments.named) dict.set(Value(name), value);
  return dict;
}

Value make_namespace(Run& run, const Arguments& arguments) {
  auto space = std::make_shared<Namespace>();
  const Dict dict = dict_of(run, "namespace", arguments);
  run.budget.spend(16 + 4 * dict.entries().size());
  for (const auto& [key, value] : dict.entries()) {
    if (key.text() == nullptr) {
      throw Problem("namespace: expected names, got " + std::string(key.kind()));
    }
    check_member_name(key.text()->bytes());
    space->members.emplace(key.text()->bytes(), value);
  }
  run.namespaces.push_back(space);
  return Value(std::move(space));
}

Value as_dict(Run& run, const Arguments& arguments) {
  return make_dict(dict_of(run, "dict", arguments));
}

// What `cycler` and `joiner` give changes with each call: a namespace that nobody else sees.
class Cycler : public Callable {
 public:
  explicit Cycler(Items items, std::shared_ptr<std::size_t> next, bool resets)
      : items_(std::move(items)), next_(std::move(next)), resets_(resets) {}
  std::string_view kind() const override { return "a method"; }
  Value call(Run&, const Arguments&) const override {
    if (resets_) {
      *next_ = 0;
      return Value(None{});
    }
    const std::size_t at = *next_;
    *next_ = (at + 1) % items_.size();
    return items_[at];
  }

 private:
  const Items items_;
  const std::shared_ptr<std::size_t> next_;
  const bool resets_;
};

Value cycler(Run& run, const Arguments& arguments) {
  if (arguments.positional.empty() || !arguments.named.empty()) {
    throw Problem("cycler: expected something to cycle through, got nothing");
  }
  const auto next = std::make_shared<std::size_t>(0);
  auto space = std::make_shared<Namespace>();
  for (const bool resets : {false, true}) {
    space->members.emplace(resets ? "reset" : "next",
                           Value(std::shared_ptr<const Callable>(
                               std::make_shared<Cycler>(arguments.positional, next, resets))));
  }
  run.budget.spend(16 + arguments.positional.size());
  run.namespaces.push_back(space);
  return Value(std::move(space));
}

class Joiner : public Callable {
 public:
  explicit Joiner(Text separator) : separator_(std::move(separator)) {}
  std::string_view kind() const override { return "a joiner"; }
  Value call(Run&, const Arguments&) const override {
    return Value(std::exchange(is_used_, true) ? separator_ : Text());
  }

 private:
  const Text separator_;
  mutable bool is_used_ = false;
};

Value joiner(Run& run, const Arguments& arguments) {
  static constexpr std::array<std::string_view, 1> kNames{"sep"};
  const Bound bound("joiner", arguments, kNames);
  run.budget.spend(1);
  return Value(std::shared_ptr<const Callable>(
      std::make_shared<Joiner>(bound.find(0) != nullptr ? bound.text(0) : Text(", ", true))));
}

Value function(Call call) {
  return Value(std::shared_ptr<const Callable>(std::make_shared<Function>(call)));
}

}  // namespace

void check_member_name(std::string_view name) {
  if (name.starts_with('_')) {
    throw Problem("expected members of a namespace without an underscore before them, got " +
                  io::quote(name));
  }
}

const Value* global_function(std::string_view name) {
  static const std::map<std::string, Value, std::less<>> kFunctions{
      {"raise_exception", function(raise_exception)},
      {"strftime_now", function(strftime_now)},
      {"range", function(range)},
      {"namespace", function(make_namespace)},
      {"dict", function(as_dict)},
      {"cycler", function(cycler)},
      {"joiner", function(joiner)}};
  const auto found = kFunctions.find(name);
  return found == kFunctions.end() ? nullptr : &found->second;
}

}  // namespace memlayers::jinja
