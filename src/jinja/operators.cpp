// SPDX-License-Identifier: Apache-2.0
#include "jinja/operators.h"

#include <algorithm>
#include <cstring>

#include "io/shown.h"
#include "jinja/callable.h"
#include "jinja/characters.h"
#include "jinja/format.h"
#include "jinja/loop.h"
#include "jinja/methods.h"

namespace memlayers::jinja {
namespace {

std::string both(const Value& a, const Value& b) {
  return std::string(a.kind()) + " and " + std::string(b.kind());
}

[[noreturn]] void fail_undefined(const Value& value) { throw Problem(value.why_undefined()); }

// "&", "<", ">" and quotes as HTML writes them.
Text joined_safely(Run& run, const Text& a, const Text& b) {
  Text result = a.is_safe ? a : escaped(run, a);
  result.append(b.is_safe ? b : escaped(run, b));
  result.is_safe = true;
  return result;
}

Value added(Run& run, const Value& a, const Value& b) {
  if (a.text() != nullptr && b.text() != nullptr) {
    run.budget.spend_text(b.text()->size(), a.text()->size());
    run.budget.spend_text(a.text()->size());
    if (a.text()->is_safe || b.text()->is_safe) {
      return Value(joined_safely(run, *a.text(), *b.text()));
    }
    Text text = *a.text();
    text.append(*b.text());
    return Value(std::move(text));
  }
  if ((a.is_list() && b.is_list()) || (a.is_tuple() && b.is_tuple())) {
    Items items = a.sequence()->items;
    run.budget.spend(items.size() + b.sequence()->items.size());
    items.insert(items.end(), b.sequence()->items.begin(), b.sequence()->items.end());
    return make_sequence(a.sequence()->kind, std::move(items));
  }
  throw Problem("cannot add " + both(a, b));
}

// Lists and tuples, element by element; none where all of the shorter one are equal.
std::optional<bool> first_less(Run& run, const Items& a, const Items& b) {
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (!is_equal(run, a[i], b[i])) return is_less(run, a[i], b[i]);
  }
  return std::nullopt;
}

bool are_equal(Run& run, const Dict& a, const Dict& b) {
  if (a.entries().size() != b.entries().size()) return false;
  return std::ranges::all_of(a.entries(), [&](const Dict::Entry& entry) {
    const Value* other = b.find(entry.first);
    return other != nullptr && is_equal(run, entry.second, *other);
  });
}

}  // namespace

bool is_true(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (value.is_number()) return to_real(value) != 0;
  if (value.text() != nullptr) return !value.text()->empty();
  if (value.dict() != nullptr) return !value.dict()->entries().empty();
  if (value.sequence() == nullptr) return true;
  return value.sequence()->kind == SequenceKind::kOnce || !value.sequence()->items.empty();
}

bool is_equal(Run& run, const Value& a, const Value& b) {
  run.budget.spend(1);
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == 0;
  if (a.text() != nullptr && b.text() != nullptr) {
    run.budget.spend(std::min(a.text()->size(), b.text()->size()) / 16);
    return a.text()->bytes() == b.text()->bytes();
  }
  if (a.dict() != nullptr && b.dict() != nullptr) return are_equal(run, *a.dict(), *b.dict());
  if (a.is_undefined() || b.is_undefined()) return a.is_undefined() && b.is_undefined();
  const Sequence *x = a.sequence(), *y = b.sequence();
  if (x != nullptr && y != nullptr && x->kind == y->kind && x->kind != SequenceKind::kOnce) {
    return x->items.size() == y->items.size() &&
           std::ranges::equal(x->items, y->items, [&](const Value& one, const Value& other) {
             return is_equal(run, one, other);
           });
  }
  return a.is_same(b);
}

bool is_less(Run& run, const Value& a, const Value& b) {
  run.budget.spend(1);
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == -1;
  if (a.text() != nullptr && b.text() != nullptr) {
    run.budget.spend(std::min(a.text()->size(), b.text()->size()) / 16);
    return a.text()->bytes() < b.text()->bytes();  // in UTF-8 the order of the characters
  }
  if ((a.is_list() && b.is_list()) || (a.is_tuple() && b.is_tuple())) {
    const Items &x = a.sequence()->items, &y = b.sequence()->items;
    return first_less(run, x, y).value_or(x.size() < y.size());
  }
  if (a.is_undefined()) fail_undefined(a);
  if (b.is_undefined()) fail_undefined(b);
  throw Problem("cannot put in order " + both(a, b));
}

bool is_in(Run& run, const Value& value, const Value& container) {
  if (const Text* text = container.text()) {
    if (value.text() == nullptr) {
      throw Problem("expected a string to look for in a string, got " + std::string(value.kind()));
    }
    const std::string& part = value.text()->bytes();
    run.budget.spend((text->size() + part.size()) / 16 + 1);
    return ::memmem(text->bytes().data(), text->size(), part.data(), part.size()) != nullptr;
  }
  if (container.dict() != nullptr) {
    if (!is_hashable(value)) {
      throw Problem("expected a key that never changes, got " + std::string(value.kind()));
    }
    return container.dict()->find(value) != nullptr;
  }
  if (container.sequence() != nullptr && container.sequence()->kind == SequenceKind::kOnce) {
    Sequence& once = *container.sequence();
    while (once.taken < once.items.size()) {
      if (is_equal(run, once.items[once.taken++], value)) return true;
    }
    return false;
  }
  if (container.sequence() != nullptr) {
    return std::ranges::any_of(container.sequence()->items,
                               [&](const Value& item) { return is_equal(run, item, value); });
  }
  if (container.is_undefined()) return false;
  throw Problem("cannot look for something in " + std::string(container.kind()));
}

Value multiplied(Run& run, const Value& sequence, std::int64_t times) {
  const auto count = static_cast<std::size_t>(std::max<std::int64_t>(0, times));
  if (const Text* text = sequence.text()) {
    Text result;
    result.is_safe = text->is_safe;
    for (std::size_t i = 0; i < count && !text->empty(); ++i) {
      run.budget.spend_text(text->size(), result.size());
      result.append(*text);
    }
    return Value(std::move(result));
  }
  Items items;
  const Items& one = sequence.sequence()->items;
  for (std::size_t i = 0; i < count && !one.empty(); ++i) {
    run.budget.spend(one.size());
    items.insert(items.end(), one.begin(), one.end());
  }
  return make_sequence(sequence.sequence()->kind, std::move(items));
}

Value apply(Run& run, Arithmetic operation, const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return calculate(operation, a, b);
  if (operation == Arithmetic::kModulo && a.text() != nullptr) {
    return Value(printf_text(run, *a.text(), b));
  }
  if (a.is_undefined()) fail_undefined(a);
  if (b.is_undefined()) fail_undefined(b);
  if (operation == Arithmetic::kAdd) return added(run, a, b);
  if (operation == Arithmetic::kMultiply) {
    const auto repeats = [](const Value& value) {
      return value.text() != nullptr || value.is_list() || value.is_tuple();
    };
    if (repeats(a) && to_integer(b)) return multiplied(run, a, *to_integer(b));
    if (repeats(b) && to_integer(a)) return multiplied(run, b, *to_integer(a));
  }
  throw Problem("expected two numbers, got " + both(a, b));
}

bool is_iterable(const Value& value) {
  return value.is_undefined() || value.text() != nullptr || value.dict() != nullptr ||
         value.sequence() != nullptr || value.loop() != nullptr;
}

Items items_of(Run& run, const Value& value) {
  Items items;
  if (value.is_undefined()) return items;
  if (const Text* text = value.text()) {
    run.budget.spend(2 * text->size());
    for_each_character(text->bytes(), [&](char32_t, std::size_t begin, std::size_t end) {
      items.emplace_back(text->part(begin, end));
    });
    return items;
  }
  if (const Dict* dict = value.dict()) {
    run.budget.spend(dict->entries().size());
    for (const Dict::Entry& entry : dict->entries()) items.push_back(entry.first);
    return items;
  }
  Sequence* sequence = value.sequence();
  if (sequence == nullptr) throw Problem("cannot go through " + std::string(value.kind()));
  run.budget.spend(sequence->items.size() - sequence->taken);
  items.assign(sequence->items.begin() + static_cast<std::ptrdiff_t>(sequence->taken),
               sequence->items.end());
  if (sequence->kind == SequenceKind::kOnce) sequence->taken = sequence->items.size();
  return items;
}

std::size_t length_of(const Value& value) {
  if (value.is_undefined()) return 0;
  if (value.text() != nullptr) return count_characters(value.text()->bytes());
  if (value.dict() != nullptr) return value.dict()->entries().size();
  if (value.loop() != nullptr) return value.loop()->length();
  if (value.sequence() != nullptr && value.sequence()->kind != SequenceKind::kOnce) {
    return value.sequence()->items.size();
  }
  throw Problem("expected something that has a length, got " + std::string(value.kind()));
}

}  // namespace memlayers::jinja
