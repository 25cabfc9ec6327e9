// SPDX-License-Identifier: Apache-2.0
// What the language does; tests/python/test_chat_templates.py compares much more with Jinja itself.
#include <gtest/gtest.h>

#include "jinja/jinja_testing.h"

namespace memlayers::jinja {
namespace {

struct Case {
  const char *source, *expected;
};

void expect_all(const std::vector<Case>& cases, const std::string& json = "{}") {
  for (const Case& one : cases) EXPECT_EQ(render(one.source, json), one.expected) << one.source;
}

TEST(Template, TakesWhitespaceAwayAsTransformersAsks) {
  expect_all({{"a\n  {% if true %}\nb\n  {% endif %}\nc\n", "a\nb\nc"},
              {"a {%- if true -%} b {%- endif -%} c", "abc"},
              {"a\n  {%+ if true +%}\nb{% endif %}", "a\n  \nb"},
              {"x {# note #}\ny", "x y"},
              {"{{ 1 }}\n{{ 2 -}}\n 3", "1\n23"},
              {"{% raw %}{{ x }}{% endraw %}\n!", "{{ x }}!"},
              {"a\r\nb\rc", "a\nb\nc"},
              {"{ {", "{ {"}});
}

TEST(Template, CalculatesAsPython) {
  expect_all(
      {{"{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }}", "3 -4 2 3.5 1024"},
       {"{{ 1e16 }} {{ 1e-5 }} {{ 100.0 }} {{ 0.1 + 0.2 }}",
        "1e+16 1e-05 100.0 0.30000000000000004"},
       {"{{ true + 1 }} {{ 1 == 1.0 }} {{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }}", "2 True True False"},
       {"{{ 'a' ~ 1 ~ none }} {{ 'ab' * 2 }} {{ [1] + [2] }} {{ (1,) }}",
        "a1None abab [1, 2] (1,)"},
       {"{{ 'x' if false }}|{{ 1 and 0 or 5 }}|{{ not 1 }}", "|5|False"},
       {"{{ -2 ** 2 }} {{ 2 ** 3 ** 2 }} {{ 'a' in 'cab' }} {{ 3 not in [1] }}", "4 64 True True"},
       {"{{ 0x1F + 0b11 + 0o7 + 1_000 }}", "1041"}});
}

TEST(Template, TakesPartsOfValues) {
  expect_all(
      {{"{{ m.a.b }} {{ m['a']['b'] }} {{ m.none.x is defined }}", "1 1 False"},
       {"{{ l[0] }} {{ l[-1] }} {{ l[1:] }} {{ l[::-1] }} {{ l[9] is undefined }}",
        "1 3 [2, 3] [3, 2, 1] True"},
       {"{{ s[1] }} {{ s[-2:] }} {{ s[::2] }} {{ s|length }}",
        "\xC3\xA9 \xE6\x97\xA5! a\xE6\x97\xA5 4"},
       {"{{ m.get('x', 7) }} {{ m.keys()|list }} {{ m.items()|length }}", "7 ['a', 'none'] 2"},
       {"{% for k, v in m.items() %}{{ k }};{% endfor %}", "a;none;"}},
      R"({"m": {"a": {"b": 1}, "none": {}}, "l": [1, 2, 3], "s": "aé日!"})");
}

TEST(Template, LoopsWithFiltersElseBreakAndContinue) {
  expect_all({{"{% for x in l if x > 1 %}{{ loop.index }}/{{ loop.length }}={{ x }} {% endfor %}",
               "1/2=2 2/2=3 "},
              {"{% for x in [] %}a{% else %}none{% endfor %}", "none"},
              {"{% for x in l %}{% continue %}{% else %}none{% endfor %}", "none"},
              {"{% for x in l %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "13"},
              {"{% for x in l %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}", "1"},
              {"{% for x in l %}{{ loop.first }}{{ loop.last }}{{ loop.previtem }}{{ loop.nextitem "
               "}} {% endfor %}",
               "TrueFalse2 FalseFalse13 FalseTrue2 "},
              {"{% for x in l %}{% for y in l %}{{ loop.index0 }}{% endfor %}{{ loop.revindex }} "
               "{% endfor %}",
               "0123 0122 0121 "},
              {"{% for x in l %}{{ loop.cycle('a', 'b') }}{% if loop.changed(x > 1) %}!{% endif "
               "%}{% endfor %}",
               "a!b!a"}},
             R"({"l": [1, 2, 3]})");
}

TEST(Template, NamesLiveInTheirScopes) {
  expect_all(
      {{"{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}", "21"},
       {"{% set n = namespace(c=0) %}{% for i in [1, 2] %}{% set n.c = n.c + i %}{% endfor %}{{ "
        "n.c }}",
        "3"},
       {"{% if true %}{% set x = 4 %}{% endif %}{{ x }}", "4"},
       {"{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}", "3False"},
       {"{% set x %}a{% set y = 1 %}b{% endset %}{{ x }}{{ y is defined }}", "abFalse"},
       {"{% set x | upper | replace('A', 'c') %}ab{% endset %}{{ x }}", "cB"},
       {"{% set a, b = [1, 2] %}{{ b }}{{ a }}", "21"},
       {"{% filter upper %}ab{% endfilter %}", "AB"},
       {"{% generation %}{% set z = 1 %}hi{% endgeneration %}{{ z is defined }}", "hiFalse"}});
}

TEST(Template, MacrosTakeArgumentsDefaultsAndCallers) {
  expect_all(
      {{"{% macro f(a, b=2) %}{{ a }}-{{ b }};{% endmacro %}{{ f(1) }}{{ f(1, b=3) }}{{ f() }}",
        "1-2;1-3;-2;"},
       {"{% macro f() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, x=2) }}", "(1,){'x': 2}"},
       {"{% macro f() %}[{{ caller(1) }}]{% endmacro %}{% call(x) f() %}{{ x }}!{% endcall %}",
        "[1!]"},
       {"{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
        "3210"},
       {"{% macro f() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ f() }}{% set x = 2 %}{{ f() }}",
        "12"},
       {"{% macro f(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ f(*[1], **{'b': 2}) }}", "12"}});
}

TEST(Template, WritesJsonAsPythonDoes) {
  const std::string json = R"({"x": {"b": [1, 2.5, null, true], "a": "é\"\n<", "e": {}}})";
  expect_all({{"{{ x|tojson }}", R"({"b": [1, 2.5, null, true], "a": "é\"\n<", "e": {}})"},
              {"{{ x|tojson(ensure_ascii=true) }}",
               R"({"b": [1, 2.5, null, true], "a": "\u00e9\"\n<", "e": {}})"},
              {"{{ x|tojson(separators=(',', ':'), sort_keys=true) }}",
               R"({"a":"é\"\n<","b":[1,2.5,null,true],"e":{}})"},
              {"{{ {'a': [1], 'b': []}|tojson(indent=2) }}",
               "{\n  \"a\": [\n    1\n  ],\n  \"b\": []\n}"}},
             json);
}

TEST(Template, FiltersAndTestsOfAllKinds) {
  expect_all(
      {{"{{ l|map(attribute='n')|join(', ') }}", "2, 1"},
       {"{{ l|selectattr('n', 'gt', 1)|list|length }} {{ l|rejectattr('n', '==', "
        "1)|map(attribute='n')|first }}",
        "1 2"},
       {"{{ l|sort(attribute='n')|map(attribute='n')|list }} {{ {'b': 1, 'A': 2}|dictsort }}",
        "[1, 2] [('A', 2), ('b', 1)]"},
       {"{% if [] | select %}yes{% endif %}", "yes"},  // a generator, though it gives nothing
       {"{{ ' a b '|trim }}|{{ 'ab'|upper }}|{{ 'x'|default('y') }}|{{ z|default('y') }}|{{ "
        "''|default('y', true) }}",
        "a b|AB|x|y|y"},
       {"{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a b c'.split(' ', 1) }}",
        "['a', 'b', '', 'c'] ['a', 'b'] ['a', 'b c']"},
       {"{{ 'x\ny\n\nz'|indent(2) }}", "x\n  y\n\n  z"},
       {"{{ '%s-%03d-%.2f' % ('a', 7, 1.005) }} {{ '{} {x:>4}'.format(1, x='b') }}",
        "a-007-1.00 1    b"},
       {"{{ 3 is odd }} {{ l is iterable }} {{ l is mapping }} {{ 'a' is string }} {{ none is none "
        "}} "
        "{{ 1 is sameas 1 }} {{ 4 is divisibleby 2 }} {{ q is defined }}",
        "True True False True True True True False"},
       {"{{ '<a>'|e }} {{ ('<'|safe) + '<' }}", "&lt;a&gt; <&lt;"}},
      R"({"l": [{"n": 2}, {"n": 1}]})");
}

TEST(Template, TellsTheDateThatItIsGiven) {
  RenderOptions options;
  options.now = [] {
    std::tm parts = {};
    parts.tm_year = 126;
    parts.tm_mon = 10;
    parts.tm_mday = 30;
    return parts;
  };
  EXPECT_EQ(render("{{ strftime_now('%d %b %Y') }}", "{}", options), "30 Nov 2026");
}

}  // namespace
}  // namespace memlayers::jinja
