// SPDX-License-Identifier: Apache-2.0
// Filters of lists and dicts.
#include <algorithm>
#include <array>

#include "jinja/characters.h"
#include "jinja/filters.h"
#include "jinja/operators.h"

namespace memlayers::jinja {
namespace {

using Names1 = std::array<std::string_view, 1>;
using Names2 = std::array<std::string_view, 2>;
using Names3 = std::array<std::string_view, 3>;

Value length(Run&, const Value& value, const Arguments&) { return Value(length_of(value)); }

Value as_list(Run& run, const Value& value, const Arguments&) {
  return make_list(items_of(run, value));
}

Value first(Run& run, const Value& value, const Arguments&) {
  Sequence* once = value.sequence();
  if (once != nullptr && once->kind == SequenceKind::kOnce && once->taken < once->items.size()) {
    return once->items[once->taken++];
  }
  const Items items = items_of(run, value);
  return items.empty() ? Value::undefined("there is no first item, the sequence is empty")
                       : items.front();
}

void expect_reversible(const Value& value) {
  if (value.sequence() != nullptr && value.sequence()->kind == SequenceKind::kOnce) {
    throw Problem("cannot go backwards through a generator; |list makes a list of it");
  }
}

Value last(Run& run, const Value& value, const Arguments&) {
  expect_reversible(value);
  const Items items = items_of(run, value);
  return items.empty() ? Value::undefined("there is no last item, the sequence is empty")
                       : items.back();
}

Value reverse(Run& run, const Value& value, const Arguments&) {
  const Text* text = value.text();
  Items items = items_of(run, value);
  std::ranges::reverse(items);
  if (text == nullptr) {
    const bool is_once =
        value.sequence() != nullptr && value.sequence()->kind == SequenceKind::kOnce;
    return make_sequence(is_once ? SequenceKind::kList : SequenceKind::kOnce, std::move(items));
  }
  Text result;
  for (const Value& item : items) result.append(*item.text());
  return Value(std::move(result));
}

// Case is of no matter where strings are compared.
Value lowered(Run& run, Value value) {
  if (value.text() == nullptr) return value;
  run.budget.spend(value.text()->size());
  return Value(with_case(*value.text(), Casing::kLower));
}

Value key_of(Run& run, const Value& item, const Value* path, bool is_case_sensitive) {
  Value key = path != nullptr ? looked_up(run, item, *path) : item;
  return is_case_sensitive ? key : lowered(run, std::move(key));
}

struct Keyed {
  Value key, item;
};

// A merge sort in which a comparison may throw.
void sort_stably(Run& run, std::vector<Keyed>& items, bool is_reversed) {
  std::vector<Keyed> other(items.size());
  for (std::size_t width = 1; width < items.size(); width *= 2) {
    for (std::size_t begin = 0; begin < items.size(); begin += 2 * width) {
      const std::size_t middle = std::min(begin + width, items.size());
      const std::size_t end = std::min(begin + 2 * width, items.size());
      std::size_t left = begin, right = middle;
      for (std::size_t at = begin; at < end; ++at) {
        const bool takes_right =
            left == middle ||
            (right < end && (is_reversed ? is_less(run, items[left].key, items[right].key)
                                         : is_less(run, items[right].key, items[left].key)));
        other[at] = takes_right ? items[right++] : items[left++];
      }
    }
    items.swap(other);
  }
}

Items without_keys(std::vector<Keyed> keyed) {
  Items items;
  for (Keyed& one : keyed) items.push_back(std::move(one.item));
  return items;
}

// The paths of attribute="a,b.c".
Items paths_of(const Value& attribute) {
  if (attribute.text() == nullptr) return {attribute};
  Items paths;
  std::string_view rest = attribute.text()->bytes();
  while (true) {
    const std::size_t comma = std::min(rest.find(','), rest.size());
    paths.push_back(Value::own_text(rest.substr(0, comma)));
    if (comma == rest.size()) return paths;
    rest.remove_prefix(comma + 1);
  }
}

Value sort(Run& run, const Value& value, const Arguments& arguments) {
  static constexpr Names3 kNames{"reverse", "case_sensitive", "attribute"};
  const Bound bound("sort", arguments, kNames);
  const bool is_case_sensitive = bound.truth(1, false);
  const Items paths = bound.is_given(2) ? paths_of(bound.at(2)) : Items{Value(None{})};
  std::vector<Keyed> keyed;
  for (const Value& item : items_of(run, value)) {
    Items keys;
    for (const Value& path : paths) keys.push_back(key_of(run, item, &path, is_case_sensitive));
    keyed.push_back({make_list(std::move(keys)), item});
  }
  sort_stably(run, keyed, bound.truth(0, false));
  return make_list(without_keys(std::move(keyed)));
}

Value dictsort(Run& run, const Value& value, const Arguments& arguments) {
  static constexpr Names3 kNames{"case_sensitive", "by", "reverse"};
  const Bound bound("dictsort", arguments, kNames);
  const std::string by = bound.find(1) != nullptr ? bound.text(1).bytes() : "key";
  if (by != "key" && by != "value")
    throw Problem("dictsort: by: expected key or value, got another one");
  if (value.is_undefined()) throw Problem(value.why_undefined());
  if (value.dict() == nullptr) {
    throw Problem("dictsort: expected a dict, got " + std::string(value.kind()));
  }
  std::vector<Keyed> keyed;
  for (const auto& [key, member] : value.dict()->entries()) {
    keyed.push_back({key_of(run, by == "key" ? key : member, nullptr, bound.truth(0, false)),
                     make_tuple({key, member})});
  }
  sort_stably(run, keyed, bound.truth(2, false));
  return make_list(without_keys(std::move(keyed)));
}

Value unique(Run& run, const Value& value, const Arguments& arguments) {
  static constexpr Names2 kNames{"case_sensitive", "attribute"};
  const Bound bound("unique", arguments, kNames);
  Dict seen;
  Items items;
  for (const Value& item : items_of(run, value)) {
    Value key =
        key_of(run, item, bound.is_given(1) ? bound.find(1) : nullptr, bound.truth(0, false));
    run.budget.spend(key.text() != nullptr ? 1 : seen.entries().size());
    if (!is_hashable(key))
      throw Problem("unique: expected what never changes, got " + std::string(key.kind()));
    if (seen.find(key) != nullptr) continue;
    seen.set(std::move(key), Value(None{}));
    items.push_back(item);
  }
  return make_sequence(SequenceKind::kOnce, std::move(items));
}

template <bool kMost>
Value extreme(Run& run, const Value& value, const Arguments& arguments) {
  static constexpr Names2 kNames{"case_sensitive", "attribute"};
  const Bound bound(kMost ? "max" : "min", arguments, kNames);
  std::optional<Keyed> best;
  for (const Value& item : items_of(run, value)) {
    Value key =
        key_of(run, item, bound.is_given(1) ? bound.find(1) : nullptr, bound.truth(0, false));
    const bool is_better =
        !best || (kMost ? is_less(run, best->key, key) : is_less(run, key, best->key));
    if (is_better) best = Keyed{std::move(key), item};
  }
  return best ? best->item : Value::undefined("there is no item to choose, the sequence is empty");
}

Value sum(Run& run, const Value& value, const Arguments& arguments) {
  static constexpr Names2 kNames{"attribute", "start"};
  const Bound bound("sum", arguments, kNames);
  Value total = bound.find(1) != nullptr ? *bound.find(1) : Value(std::int64_t{0});
  if (total.text() != nullptr) throw Problem("sum: expected a number to start with, got a string");
  for (const Value& item : items_of(run, value)) {
    total = apply(run, Arithmetic::kAdd, total,
                  bound.is_given(0) ? looked_up(run, item, bound.at(0)) : item);
  }
  return total;
}

Value items(Run& run, const Value& value, const Arguments&) {
  Items pairs;
  if (value.is_undefined()) return make_sequence(SequenceKind::kOnce, {});
  if (value.dict() == nullptr) {
    throw Problem("items: expected a dict, got " + std::string(value.kind()));
  }
  run.budget.spend(2 * value.dict()->entries().size());
  for (const auto& [key, member] : value.dict()->entries()) {
    pairs.push_back(make_tuple({key, member}));
  }
  return make_sequence(SequenceKind::kOnce, std::move(pairs));
}

void fill(Run& run, Items& part, std::size_t size, const Value& with) {
  run.budget.spend(size - std::min(size, part.size()));
  if (part.size() < size) part.resize(size, with);
}

Value batch(Run& run, const Value& value, const Arguments& arguments) {
  static constexpr Names2 kNames{"linecount", "fill_with"};
  const Bound bound("batch", arguments, kNames);
  const std::int64_t most = bound.integer(0);
  if (most < 1) throw Problem("batch: expected at least one item a part, got less");
  Items parts, part;
  for (const Value& item : items_of(run, value)) {
    if (static_cast<std::int64_t>(part.size()) == most) {
      parts.push_back(make_list(std::exchange(part, {})));
    }
    part.push_back(item);
  }
  if (!part.empty()) {
    if (bound.is_given(1)) fill(run, part, static_cast<std::size_t>(most), bound.at(1));
    parts.push_back(make_list(std::move(part)));
  }
  return make_sequence(SequenceKind::kOnce, std::move(parts));
}

Value slice(Run& run, const Value& value, const Arguments& arguments) {
  static constexpr Names2 kNames{"slices", "fill_with"};
  const Bound bound("slice", arguments, kNames);
  const std::int64_t count = bound.integer(0);
  if (count < 1) throw Problem("slice: expected at least one part, got less");
  const Items all = items_of(run, value);
  const std::size_t slices = static_cast<std::size_t>(count), each = all.size() / slices,
                    longer = all.size() % slices;
  run.budget.spend(slices);
  Items parts;
  std::size_t at = 0;
  for (std::size_t i = 0; i < slices; ++i) {
    const std::size_t end = at + each + (i < longer ? 1 : 0);
    Items part(all.begin() + static_cast<std::ptrdiff_t>(at),
               all.begin() + static_cast<std::ptrdiff_t>(end));
    if (bound.is_given(1) && i >= longer) part.push_back(bound.at(1));
    parts.push_back(make_list(std::move(part)));
    at = end;
  }
  return make_sequence(SequenceKind::kOnce, std::move(parts));
}

Value groupby(Run& run, const Value& value, const Arguments& arguments) {
  static constexpr Names3 kNames{"attribute", "default", "case_sensitive"};
  const Bound bound("groupby", arguments, kNames);
  std::vector<Keyed> keyed;
  const auto plain_key = [&](const Value& item) {
    Value key = looked_up(run, item, bound.at(0));
    return key.is_undefined() && bound.is_given(1) ? bound.at(1) : key;
  };
  for (const Value& item : items_of(run, value)) {
    Value key = plain_key(item);
    keyed.push_back({bound.truth(2, false) ? key : lowered(run, key), item});
  }
  sort_stably(run, keyed, false);
  Items groups;
  for (std::size_t begin = 0, end = 0; begin < keyed.size(); begin = end) {
    Items group;
    while (end < keyed.size() && is_equal(run, keyed[begin].key, keyed[end].key)) {
      group.push_back(keyed[end++].item);
    }
    const Value key = plain_key(group.front());
    groups.push_back(make_tuple({key, make_list(std::move(group))}));
  }
  return make_list(std::move(groups));
}

constexpr std::array kFilters{
    Filter{"length", length},      Filter{"count", length},      Filter{"list", as_list},
    Filter{"first", first},        Filter{"last", last},         Filter{"reverse", reverse},
    Filter{"sort", sort},          Filter{"dictsort", dictsort}, Filter{"unique", unique},
    Filter{"min", extreme<false>}, Filter{"max", extreme<true>}, Filter{"sum", sum},
    Filter{"items", items},        Filter{"batch", batch},       Filter{"slice", slice},
    Filter{"groupby", groupby}};

}  // namespace

std::span<const Filter> sequence_filters() { return kFilters; }

}  // namespace memlayers::jinja
