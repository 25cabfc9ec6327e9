// SPDX-License-Identifier: Apache-2.0
// Values in patterns: '%s' % x, '{}'.format(x), HTML's escapes.
#pragma once

#include <string_view>

#include "jinja/callable.h"
#include "jinja/run.h"
#include "jinja/value.h"

namespace memlayers::jinja {

// `pattern % values`: a tuple is several values, a dict is for %(name)s.
Text printf_text(Run& run, const Text& pattern, const Value& values);
// pattern.format(...), with elements and attributes of arguments, without nested fields.
Text format_text(Run& run, const Text& pattern, const Arguments& arguments);
// "&", "<", ">", "'" and '"' as entities.
Text escaped(Run& run, const Text& text);

// What stands behind ":" in a field, or between "%" and its letter.
struct Layout {
  std::string fill = " ";
  char align = 0;  // '<', '>', '^', '=', or 0: as it is usual for the value
  char sign = '-';
  bool is_alternate = false, groups = false, is_zero_filled = false;
  std::size_t width = 0;
  std::optional<int> precision = {};
  char type = 0;
};
// A value laid out; of numbers only plain types.
Text laid_out(Run& run, const Value& value, const Layout& layout);

}  // namespace memlayers::jinja
