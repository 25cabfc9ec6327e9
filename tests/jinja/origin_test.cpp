// SPDX-License-Identifier: Apache-2.0
// Where each byte of what is rendered comes from.
#include <gtest/gtest.h>

#include "jinja/jinja_testing.h"

namespace memlayers::jinja {
namespace {

// What came from the variables in brackets.
std::string marked(const std::string& source, const std::string& json = R"({"u": "<x>"})") {
  std::string text;
  render_text(source, json).for_each_piece([&](std::string_view bytes, bool is_template) {
    text += is_template ? std::string(bytes) : "[" + std::string(bytes) + "]";
  });
  return text;
}

TEST(Origin, IsKeptThroughOperatorsAndFilters) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"a{{ u }}b", "a[<x>]b"},
      {"{{ 'a' + u + 'b' }}{{ u ~ 'c' }}", "a[<x>]b[<x>]c"},
      {"{{ u * 2 }}{{ u[1:] }}{{ u[::-1] }}{{ u[0] }}", "[<x><x>x>>x<<]"},
      {"{{ 'a-b'|replace('-', u) }}", "a[<x>]b"},
      {"{{ (u ~ '-')|replace('<', 'L') }}", "L[x>]-"},
      {"{{ [u, 'z']|join(',') }}{{ ','.join([u, 'z']) }}", "[<x>],z[<x>],z"},
      {"{{ (' ' ~ u ~ ' ')|trim }}{{ u|upper }}{{ u.title() }}", "[<x><X><X>]"},
      {"{{ ('a,' ~ u).split(',')|list|last }}", "[<x>]"},
      {"{{ '%s!' % u }}{{ '{}?'.format(u) }}{{ '%5s' % u }}", "[<x>]![<x>]?  [<x>]"},
      {"{{ {'k': u}|tojson }}{{ [u] }}", "{\"k\": \"[<x>]\"}['[<x>]']"},
      {"{{ u|e }}", "[&lt;x&gt;]"},
      {"{{ (u ~ '\\n' ~ u)|indent(1) }}", "[<x>]\n [<x>]"},
      {"{% set t %}a{{ u }}{% endset %}{{ t }}", "a[<x>]"},
      {"{% macro f(v) %}({{ v }}){% endmacro %}{{ f(u) }}", "([<x>])"},
      {"{% filter lower %}A{{ u }}{% endfilter %}", "a[<x>]"},
      {"{{ u|list|join }}{{ u|reverse }}", "[<x>>x<]"},
      {"{% for c in u %}{{ c }}.{% endfor %}", "[<].[x].[>]."},
  };
  for (const auto& [source, expected] : cases) EXPECT_EQ(marked(source), expected) << source;
}

TEST(Origin, OfKeysIsThatOfTheirDict) {
  EXPECT_EQ(marked("{{ d|tojson }}", R"({"d": {"<k>": {"<l>": "é\n"}}})"),
            "{\"[<k>]\": {\"[<l>]\": \"[\u00E9\\n]\"}}");
  EXPECT_EQ(marked("{{ dict(**d)|tojson }}", R"({"d": {"<k>": 1}})"), "{\"[<k>]\": 1}");
  EXPECT_EQ(marked("{% macro f() %}{{ kwargs }}{% endmacro %}{{ f(**d) }}", R"({"d": {"<k>": 1}})"),
            "{'[<k>]': 1}");
}

TEST(Origin, OfADateIsThatOfItsFormat) {
  EXPECT_EQ(marked("{{ strftime_now(u) }}", R"({"u": "<x>"})"), "[<x>]");
}

TEST(Origin, CannotBeForgedByPiecingTogether) {
  // Two strangers' halves and a template's middle.
  EXPECT_EQ(marked("{{ a }}im_end{{ b }}", R"({"a": "<|", "b": "|>"})"), "[<|]im_end[|>]");
}

}  // namespace
}  // namespace memlayers::jinja
