// SPDX-License-Identifier: Apache-2.0
#include "jinja/value.h"

#include <algorithm>

#include "jinja/callable.h"
#include "jinja/limits.h"
#include "jinja/numbers.h"

namespace memlayers::jinja {
namespace {

int checked_depth(int depth) {
  if (depth > kMostNested) {
    throw Problem("expected lists and dicts nested at most " + std::to_string(kMostNested) +
                  " deep, got more");
  }
  return depth;
}

// Equality of what may be a key.
bool is_same_key(const Value& a, const Value& b) {
  if (a.text() != nullptr && b.text() != nullptr) return a.text()->bytes() == b.text()->bytes();
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == 0;
  if (a.is_tuple() && b.is_tuple()) {
    return std::ranges::equal(a.sequence()->items, b.sequence()->items, is_same_key);
  }
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined()) || a.is_same(b);
}

}  // namespace

Value Value::undefined(std::string why) {
  Value value;
  value.data_ = Undefined{std::make_shared<const std::string>(std::move(why))};
  return value;
}

const std::string& Value::why_undefined() const {
  static const std::string kUnnamed = "a value is undefined";
  const auto* undefined = std::get_if<Undefined>(&data_);
  return undefined != nullptr && undefined->why != nullptr ? *undefined->why : kUnnamed;
}

bool Value::is_list() const {
  return sequence() != nullptr && sequence()->kind == SequenceKind::kList;
}

bool Value::is_tuple() const {
  return sequence() != nullptr && sequence()->kind == SequenceKind::kTuple;
}

bool Value::is_same(const Value& other) const {
  if (data_.index() != other.data_.index()) return false;
  if (is_none()) return true;
  if (is_undefined()) return this == &other;
  // Small integers and texts of one value are one object in Python, or not: nobody can count on it.
  if (boolean() != nullptr) return *boolean() == *other.boolean();
  if (integer() != nullptr) return *integer() == *other.integer();
  if (real() != nullptr) return *real() == *other.real();
  if (text() != nullptr) return text()->bytes() == other.text()->bytes();
  return std::visit(
      [&](const auto& held) -> bool {
        using Held = std::decay_t<decltype(held)>;
        if constexpr (requires { held.get(); }) return held == std::get<Held>(other.data_);
        return false;
      },
      data_);
}

std::string_view Value::kind() const {
  if (is_undefined()) return "something undefined";
  if (is_none()) return "none";
  if (boolean() != nullptr) return "a boolean";
  if (integer() != nullptr) return "an integer";
  if (real() != nullptr) return "a float";
  if (text() != nullptr) return "a string";
  if (dict() != nullptr) return "a dict";
  if (space() != nullptr) return "a namespace";
  if (callable() != nullptr) return callable()->kind();
  if (loop() != nullptr) return "the loop";
  switch (sequence()->kind) {
    case SequenceKind::kList:
      return "a list";
    case SequenceKind::kTuple:
      return "a tuple";
    case SequenceKind::kRange:
      return "a range";
    case SequenceKind::kOnce:
      return "a generator";
    case SequenceKind::kKeys:
    case SequenceKind::kValues:
    case SequenceKind::kPairs:
      break;
  }
  return "a view of a dict";
}

int Value::depth() const {
  if (sequence() != nullptr) return sequence()->depth;
  return dict() != nullptr ? dict()->depth() : 0;
}

Value make_sequence(SequenceKind kind, Items items) {
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  return Value(std::make_shared<Sequence>(
      Sequence{.kind = kind, .items = std::move(items), .depth = checked_depth(depth + 1)}));
}

bool is_hashable(const Value& value) {
  if (value.dict() != nullptr) return false;
  const Sequence* sequence = value.sequence();
  if (sequence == nullptr) return true;
  if (sequence->kind == SequenceKind::kTuple)
    return std::ranges::all_of(sequence->items, is_hashable);
  return sequence->kind == SequenceKind::kRange || sequence->kind == SequenceKind::kOnce;
}

void Dict::set(Value key, Value value) {
  if (!is_hashable(key)) {
    throw Problem("expected a key that never changes, got " + std::string(key.kind()));
  }
  depth_ = std::max(depth_, checked_depth(1 + std::max(key.depth(), value.depth())));
  if (const auto known = place_of(key)) {
    entries_[*known].second = std::move(value);
    return;
  }
  entries_.emplace_back(std::move(key), std::move(value));
  const Value& kept = entries_.back().first;
  if (kept.text() != nullptr) {
    by_text_.emplace(kept.text()->bytes(), entries_.size() - 1);
  } else {
    others_.push_back(entries_.size() - 1);
  }
}

std::optional<std::size_t> Dict::place_of(const Value& key) const {
  if (key.text() != nullptr) return place_of(key.text()->bytes());
  const auto found = std::ranges::find_if(
      others_, [&](std::size_t place) { return is_same_key(entries_[place].first, key); });
  return found == others_.end() ? std::nullopt : std::optional(*found);
}

std::optional<std::size_t> Dict::place_of(std::string_view key) const {
  const auto found = by_text_.find(key);
  return found == by_text_.end() ? std::nullopt : std::optional(found->second);
}

const Value* Dict::find(const Value& key) const {
  const auto place = place_of(key);
  return place ? &entries_[*place].second : nullptr;
}

const Value* Dict::find(std::string_view key) const {
  const auto place = place_of(key);
  return place ? &entries_[*place].second : nullptr;
}

}  // namespace memlayers::jinja
