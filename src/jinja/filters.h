// SPDX-License-Identifier: Apache-2.0
// Jinja's filters and tests, and the functions that transformers adds to them.
#pragma once

#include <span>
#include <string_view>

#include "jinja/callable.h"
#include "jinja/run.h"
#include "jinja/value.h"

namespace memlayers::jinja {

struct Filter {
  std::string_view name;
  Value (*run)(Run& run, const Value& value, const Arguments& arguments);
};

std::span<const Filter> text_filters();
std::span<const Filter> number_filters();
std::span<const Filter> sequence_filters();
std::span<const Filter> choice_filters();

bool has_filter(std::string_view name);
bool has_test(std::string_view name);
// Throw Problem for a name that there is not.
Value apply_filter(Run& run, std::string_view name, const Value& value, const Arguments& arguments);
bool apply_test(Run& run, std::string_view name, const Value& value, const Arguments& arguments);

// `range`, `namespace`, `raise_exception` and so on; null where there is none of that name.
const Value* global_function(std::string_view name);

// Throws Problem for a member that a namespace may not have: `_name`.
void check_member_name(std::string_view name);

// What attribute="a.b.0" of filters looks up.
Value looked_up(Run& run, Value value, const Value& path);

}  // namespace memlayers::jinja
