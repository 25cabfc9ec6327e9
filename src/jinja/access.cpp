// SPDX-License-Identifier: Apache-2.0
// Parts of values: a.name, a[key], a[start:stop:step].
#include <algorithm>

#include "io/shown.h"
#include "jinja/callable.h"
#include "jinja/characters.h"
#include "jinja/loop.h"
#include "jinja/methods.h"
#include "jinja/operators.h"

namespace memlayers::jinja {
namespace {

Value none_such(const Value& value, std::string_view name) {
  return Value::undefined(std::string(value.kind()) + " has no attribute " + io::quote(name));
}

// An element by Python's index, from the end where it is negative.
std::optional<std::size_t> place(std::int64_t index, std::size_t size) {
  const auto count = static_cast<std::int64_t>(size);
  if (index < -count || index >= count) return std::nullopt;
  return static_cast<std::size_t>(index < 0 ? index + count : index);
}

bool has_places(const Value& value) {
  return value.sequence() != nullptr &&
         (value.is_list() || value.is_tuple() || value.sequence()->kind == SequenceKind::kRange);
}

// What `value[key]` finds by itself, without looking at attributes.
std::optional<Value> element(Run& run, const Value& value, const Value& key) {
  if (const Dict* dict = value.dict()) {
    const Value* found = is_hashable(key) ? dict->find(key) : nullptr;
    return found == nullptr ? std::nullopt : std::optional(*found);
  }
  const auto index = to_integer(key);
  if (!index) return std::nullopt;
  if (has_places(value)) {
    const Items& items = value.sequence()->items;
    const auto at = place(*index, items.size());
    return at ? std::optional(items[*at]) : std::nullopt;
  }
  if (const Text* text = value.text()) {
    run.budget.spend(text->size() / 16 + 1);
    const auto at = place(*index, count_characters(text->bytes()));
    if (!at) return std::nullopt;
    const std::size_t begin = byte_of(text->bytes(), *at);
    const auto next = io::decode_utf8(std::string_view(text->bytes()).substr(begin));
    return Value(text->part(begin, begin + next.bytes));
  }
  return std::nullopt;
}

std::optional<Value> own_attribute(Run& run, const Value& value, std::string_view name) {
  if (const Namespace* space = value.space()) {
    const auto found = space->members.find(name);
    return found == space->members.end() ? std::nullopt : std::optional(found->second);
  }
  if (value.loop() != nullptr) return value.loop()->attribute(run, value, name);
  return method_of(value, name);
}

std::optional<std::int64_t> bound_of(const Value& value) {
  if (value.is_none()) return std::nullopt;
  const auto number = to_integer(value);
  if (!number) {
    throw Problem("expected integers in a slice, got " + std::string(value.kind()));
  }
  return number;
}

struct Steps {
  std::int64_t first, end, by;

  std::vector<std::size_t> places() const {
    std::vector<std::size_t> taken;
    for (std::int64_t at = first; by < 0 ? at > end : at < end;) {
      taken.push_back(static_cast<std::size_t>(at));
      if (__builtin_add_overflow(at, by, &at)) break;
    }
    return taken;
  }
};

// What a slice takes, as Python's slice.indices().
Steps steps(std::size_t size, const Value& start, const Value& stop, const Value& step) {
  const std::int64_t by = bound_of(step).value_or(1);
  if (by == 0) throw Problem("expected a slice with a step, got zero");
  const auto count = static_cast<std::int64_t>(size);
  const auto clipped = [&](const Value& value, std::int64_t otherwise) {
    const auto bound = bound_of(value);
    if (!bound) return otherwise;
    const std::int64_t at =
        *bound < 0 ? std::max<std::int64_t>(*bound + count, by < 0 ? -1 : 0) : *bound;
    return std::min(at, by < 0 ? count - 1 : count);
  };
  const std::int64_t first = clipped(start, by < 0 ? count - 1 : 0);
  const std::int64_t last = clipped(stop, by < 0 ? -1 : count);
  return {first, last, by};
}

// A range of a range, which shows only where it is written as text.
Value range_of(const Sequence& range, const Steps& steps, Items items) {
  Value made = make_sequence(SequenceKind::kRange, std::move(items));
  const auto [start, stop, step] = range.range;
  made.sequence()->range = {start + steps.first * step, start + steps.end * step, step * steps.by};
  return made;
}

}  // namespace

Value attribute(Run& run, const Value& value, std::string_view name) {
  if (value.is_undefined()) throw Problem(value.why_undefined());
  if (auto found = own_attribute(run, value, name)) return *std::move(found);
  if (value.dict() != nullptr) {
    if (const Value* found = value.dict()->find(name)) return *found;
  }
  return none_such(value, name);
}

Value subscript(Run& run, const Value& value, const Value& key) {
  if (value.is_undefined()) throw Problem(value.why_undefined());
  if (auto found = element(run, value, key)) return *std::move(found);
  if (key.text() == nullptr) {
    return Value::undefined(std::string(value.kind()) + " has no such element");
  }
  if (auto found = own_attribute(run, value, key.text()->bytes())) return *std::move(found);
  return none_such(value, key.text()->bytes());
}

Value sliced(Run& run, const Value& value, const Value& start, const Value& stop,
             const Value& step) {
  if (value.is_undefined()) throw Problem(value.why_undefined());
  if (const Text* text = value.text()) {
    run.budget.spend_text(text->size());
    std::vector<std::size_t> begins;
    for_each_character(text->bytes(),
                       [&](char32_t, std::size_t begin, std::size_t) { begins.push_back(begin); });
    const auto taken = steps(begins.size(), start, stop, step).places();
    begins.push_back(text->size());
    Text result;
    for (std::size_t i = 0; i < taken.size();) {  // runs of neighbours at once
      std::size_t end = i + 1;
      while (end < taken.size() && taken[end] == taken[end - 1] + 1) ++end;
      result.append(*text, begins[taken[i]], begins[taken[end - 1] + 1]);
      i = end;
    }
    return Value(std::move(result));
  }
  if (!has_places(value)) throw Problem("cannot take a slice of " + std::string(value.kind()));
  Items items;
  const Steps taken = steps(value.sequence()->items.size(), start, stop, step);
  for (const std::size_t at : taken.places()) {
    items.push_back(value.sequence()->items[at]);
  }
  run.budget.spend(items.size());
  if (value.sequence()->kind == SequenceKind::kRange) {
    return range_of(*value.sequence(), taken, std::move(items));
  }
  return make_sequence(value.is_tuple() ? SequenceKind::kTuple : SequenceKind::kList,
                       std::move(items));
}

}  // namespace memlayers::jinja
