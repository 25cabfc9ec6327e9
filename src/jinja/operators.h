// SPDX-License-Identifier: Apache-2.0
// What Python's operators and protocols do with values. All of them throw Problem for what Python
// raises an exception for, and for what runs into the limits.
#pragma once

#include <optional>

#include "jinja/numbers.h"
#include "jinja/run.h"
#include "jinja/value.h"

namespace memlayers::jinja {

bool is_true(const Value& value);
bool is_equal(Run& run, const Value& a, const Value& b);
// Whether a < b: numbers, strings, lists or tuples of such.
bool is_less(Run& run, const Value& a, const Value& b);
bool is_in(Run& run, const Value& value, const Value& container);

Value apply(Run& run, Arithmetic operation, const Value& a, const Value& b);
Value multiplied(Run& run, const Value& sequence, std::int64_t times);

Text str_of(Run& run, const Value& value);   // str()
Text repr_of(Run& run, const Value& value);  // repr()

bool is_iterable(const Value& value);
// The elements that iteration gives; a generator has none left then.
Items items_of(Run& run, const Value& value);
std::size_t length_of(const Value& value);  // len()

// a.name, a[key] and a[start:stop:step] as the sandbox gives them: undefined where there is none.
Value attribute(Run& run, const Value& value, std::string_view name);
Value subscript(Run& run, const Value& value, const Value& key);
Value sliced(Run& run, const Value& value, const Value& start, const Value& stop,
             const Value& step);

}  // namespace memlayers::jinja
