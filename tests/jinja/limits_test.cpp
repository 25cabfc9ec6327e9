// SPDX-License-Identifier: Apache-2.0
// A template is a program of somebody else's: it ends, and what is wrong with it is one sentence.
#include <gtest/gtest.h>

#include "jinja/jinja_testing.h"

namespace memlayers::jinja {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

TEST(Limits, EndWhatWouldNotEnd) {
  RenderOptions options;  // the usual limits are as sure, and take seconds
  options.limits = {.steps = 100'000, .bytes = 1 << 16};
  const auto error = [&](const std::string& source) { return error_of(source, "{}", options); };
  const std::string loop =
      "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}";
  EXPECT_THAT(error(loop), HasSubstr("expected a template that ends within 100000 steps"));
  EXPECT_THAT(error("{% macro f() %}{{ f() }}{% endmacro %}\n{{ f() }}"),
              HasSubstr("nests at most 1000 deep"));
  EXPECT_THAT(error("{{ 'abcdefghijklmnop' * 100000000 }}"), HasSubstr("at most 65536 bytes"));
  EXPECT_THAT(error("{{ [0] * 1000000000 }}"), HasSubstr("100000 steps"));
  EXPECT_THAT(error("{{ '%1000000000d' % 1 }}"), HasSubstr("at most 65536 bytes"));
  EXPECT_THAT(error("{{ 'a'.center(1000000000) }}"), HasSubstr("at most 65536 bytes"));
  EXPECT_THAT(error("{{ range(1000000) }}"), HasSubstr("at most 100000 numbers"));
  EXPECT_THAT(error("{% set n = namespace(x=[]) %}{% for i in range(1000) %}"
                    "{% set n.x = [n.x] %}{% endfor %}"),
              HasSubstr("lists and dicts nested at most 100 deep"));
  EXPECT_THAT(error("{% set n = namespace(x='ab') %}{% for i in range(100) %}"
                    "{% set n.x = n.x + n.x %}{% endfor %}"),
              HasSubstr("at most 65536 bytes"));
}

TEST(Limits, GrowWithWhatATemplateIsGiven) {
  const std::string source = "{% for c in u %}{% endfor %}";
  const std::string json = "{\"u\": \"" + std::string(1000, 'a') + "\"}";
  RenderOptions options;
  options.limits.steps = 100;
  EXPECT_THAT(error_of(source, json, options), HasSubstr("within 100 steps"));
  options.given_bytes = 1000;
  EXPECT_EQ(error_of(source, json, options), "");
}

TEST(Limits, OfWhatAParserTakes) {
  const std::string deep = repeated("(", 5000) + "1" + repeated(")", 5000);
  EXPECT_THAT(error_of("{{ " + deep + " }}"), HasSubstr("nested at most 100 deep"));
  EXPECT_THAT(error_of("{{ " + repeated("not ", 5000) + "1 }}"), HasSubstr("at most 100 deep"));
  EXPECT_THAT(error_of("{{ " + repeated("- ", 5000) + "1 }}"), HasSubstr("at most 100 deep"));
  EXPECT_THAT(error_of("{{ 1" + repeated("+1", 5000) + " }}"), HasSubstr("at most 250 parts"));
  EXPECT_THAT(error_of("{{ a" + repeated(".a", 5000) + " }}"), HasSubstr("at most 250 parts"));
  EXPECT_THAT(error_of(repeated("{% if 1 %}", 5000)), HasSubstr("nested at most 100 deep"));
  EXPECT_THAT(error_of(std::string(2 << 20, 'a')), HasSubstr("at most 1048576 bytes"));
}

TEST(Limits, HoldNothingThatHoldsItself) {  // which the leak checker would see
  EXPECT_EQ(render("{% set n = namespace() %}{% set n.me = n %}{% macro f() %}{% endmacro %}"
                   "{% set n.f = f %}{% set l = [n, f] %}{% set n.l = l %}"
                   "{% for i in [1] %}{% set m = loop.changed(loop) %}{% endfor %}ok"),
            "ok");
}

TEST(Mistakes, NameTheTemplateTheLineAndWhatWasFound) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"a\n{{ 1 + }}", "chat.jinja: line 2: expected an expression, got \"}}\""},
      {"{% if x %}\n", "chat.jinja: line 1: expected \"{% endif %}\", got the end of the template"},
      {"{{ 'a", "line 1: expected the end of a string, got none"},
      {"{# a", "expected the end of the comment"},
      {"{{ (1] }}", "expected \")\", got \"]\""},
      {"{{ $ }}", "expected an expression, got \"$"},
      {"{% include 'x' %}", "expected a statement that chat templates have, got \"include\""},
      {"{% import 'os' as o %}", "got \"import\""},
      {"{% break %}", "expected this only inside a loop"},
      {"{% for x in y recursive %}{% endfor %}", "a loop that does not call itself"},
      {"\n\n{{ x.y }}", "line 3: \"x\" is undefined"},
      {"{{ 'a' + 1 }}", "cannot add a string and an integer"},
      {"{{ 1 / 0 }}", "expected a divisor, got zero"},
      {"{{ 9223372036854775807 + 1 }}", "64 bits"},
      {"{{ x() }}", "\"x\" is undefined"},
      {"{{ 'a'() }}", "expected something to call, got a string"},
      {"{{ [].append(1) }}", "would change a list"},
      {"{{ {}.update({}) }}", "would change a dict"},
      {"{{ ''.encode() }}", "\"encode\" of a string is none of those that we have"},
      {"{{ 'a'|nothing }}", "unknown filter \"nothing\""},
      {"{{ 1 is nothing }}", "unknown test \"nothing\""},
      {"{{ none|tojson(indnt=1) }}", "tojson: unknown argument \"indnt\""},
      {"{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}", "f: expected at most 1 arguments, got 2"},
      {"{% set n = 1 %}{% set n.a = 2 %}", "expected a namespace \"n\""},
      {"{% set n = namespace() %}{% set n._a = 2 %}", "without an underscore"},
      {"{% set a, b = [1] %}", "expected 2 values to unpack, got 1"},
      {"{{ 'x' < 1 }}", "cannot put in order a string and an integer"},
      {"{{ [1]|map('upper')|last }}", "cannot go backwards through a generator"},
      {"{{ \"\\ud800\" }}", "the number of a character"},
  };
  for (const auto& [source, expected] : cases) {
    EXPECT_THAT(error_of(source), HasSubstr(expected)) << source;
  }
}

TEST(Mistakes, OfATemplateAreNoAttributesOfPython) {
  for (const std::string name : {"__class__", "__init__", "__globals__", "mro"}) {
    EXPECT_EQ(render("{{ x." + name + " is defined }}{{ x['" + name + "'] is defined }}",
                     R"({"x": "a"})"),
              "FalseFalse");
  }
}

TEST(Mistakes, ThatATemplateRaisesKeepItsWords) {
  const Template refusing("chat.jinja", "\n{{ raise_exception('Roles must alternate') }}");
  try {
    refusing.render({});
    FAIL() << "expected a refusal";
  } catch (const TemplateRefusal& refusal) {
    EXPECT_EQ(refusal.message(), "Roles must alternate");
    EXPECT_THAT(refusal.what(), StartsWith("chat.jinja: line 2: "));
  }
}

TEST(Mistakes, AreFoundInTemplatesThatAreCutAnywhere) {
  const std::string whole =
      "{%- set n = namespace(c=0) -%}{% for m in ms if m.a %}{{ m['a'][1:]|trim ~ '\\n' }}"
      "{% else %}{# no #}{% endfor %}{% macro f(a, b=1) %}{{ a if b else none }}{% endmacro %}"
      "{% raw %}{{{% endraw %}{{ {'k': [1, 2.5]}|tojson(indent=2) }}";
  for (std::size_t size = 0; size <= whole.size(); ++size) {
    error_of(whole.substr(0, size), R"({"ms": [{"a": "xyz"}]})");  // an Error or nothing
  }
}

}  // namespace
}  // namespace memlayers::jinja
