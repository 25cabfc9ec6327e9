// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "api/json_schema_testing.h"

namespace memlayers::api {
namespace {

using ::testing::HasSubstr;

struct Case {
  const char* schema;
  std::vector<const char*> right, wrong;
};

TEST_F(JsonSchema, AllowsWhatTheSchemaAllowsAndNothingElse) {
  const std::vector<Case> cases = {
      {R"({"type":"boolean"})", {"true", "false"}, {"null", "True", "tru", " true", "true "}},
      {R"({"type":["string","null"]})", {"null", R"("")", R"("a")"}, {"1", "[]"}},
      {R"({"type":"string"})",
       {R"("\u00e9\n\/")", R"("é漢😀")", R"("\ud83d\ude00")", "\"\x7f\""},
       {"\"\n\"", "\"\x14\"", R"("\x")", R"("\ud83d")", R"("\ude00")", "\"\xC3\"",
        "\"\xED\xA0\x80\"", "\"\xC0\x80\"", "\"\xF4\x90\x80\x80\"", R"("a)"}},
      {R"({"type":"string","minLength":2,"maxLength":3})",
       {R"("ab")", R"("é漢😀")", R"("\n\u0041b")", R"("\ud83d\ude00a")"},
       {R"("a")", R"("abcd")", R"("\ud83d\ude00")"}},
      {R"({"type":"string","pattern":"^[a-c]{2,3}(x|yy)?$"})",
       {R"("ab")", R"("abcyy")", R"("aax")"},
       {R"("a")", R"("abcd")", R"("abxx")"}},
      {R"({"type":"string","pattern":"b\\d"})",
       {R"("ab1c")", R"("b2")", R"("\"b3")"},
       {R"("b")", R"("ab c")"}},
      {R"({"type":"string","pattern":"^.[^a\"].$"})",
       {R"("xyz")", R"("\"é\\")"},
       {R"("xaz")", R"("x\"z")", R"("xy")", R"("\nyz")"}},
      {R"({"type":"string","format":"date"})",
       {R"("2024-02-29")", R"("2023-12-31")", R"("2000-02-29")"},
       {R"("2023-02-29")", R"("1900-02-29")", R"("2023-04-31")", R"("0000-01-01")",
        R"("2023-13-01")"}},
      {R"({"type":"string","format":"date-time"})",
       {R"("2024-02-29T23:59:59Z")", R"("2024-01-01T00:00:00.5+02:00")"},
       {R"("2024-01-01 00:00:00Z")", R"("2024-01-01T24:00:00Z")", R"("2024-01-01T00:00:00")"}},
      {R"({"type":"string","format":"uuid"})",
       {R"("123e4567-e89b-12d3-a456-426614174000")"},
       {R"("123e4567e89b12d3a456426614174000")"}},
      {R"({"type":"integer"})", {"0", "-7", "123"}, {"01", "-0", "1.0", "+1", "-", "1e3"}},
      {R"({"type":"integer","minimum":-12,"exclusiveMaximum":105})",
       {"-12", "-1", "0", "9", "10", "99", "104"},
       {"-13", "105", "1000", "-20"}},
      {R"({"type":"integer","exclusiveMinimum":1.5,"maximum":20.5})",
       {"2", "19", "20"},
       {"1", "21", "0", "-2"}},
      {R"({"type":"number"})",
       {"0", "-0.5", "1e5", "12.25E-3"},
       {"1.", ".5", "01", "1e", "1e999", "NaN"}},
      {R"({"type":"number","minimum":0,"exclusiveMaximum":2})",
       {"0", "0.0", "1.999", "1"},
       {"2", "2.0", "-0.5", "1e0", "-0"}},
      {R"({"type":"number","exclusiveMinimum":-3,"maximum":-1})",
       {"-2.5", "-1", "-1.0", "-2"},
       {"-3", "-3.0", "-0.5", "0"}},
      {R"({"enum":["a","ab","é",1,null,[1,{"x":2}]]})",
       {R"("a")", R"("ab")", R"("é")", R"("\u00e9")", "1", "null", R"([1, {"x": 2}])"},
       {R"("b")", R"("abc")", R"("")", "2", "[1]"}},
      {R"({"type":"string","enum":["a",1]})", {R"("a")"}, {"1"}},
      {R"({"const":{"a":[],"b":"\"q"}})",
       {R"({"a":[],"b":"\"q"})"},
       {"{}", R"({"b":"\"q","a":[]})"}},
      {R"({"type":"array","items":{"type":"integer"},"minItems":1,"maxItems":3})",
       {"[1]", "[1,2]", "[1, 2, 3]", "[\n  1,\n  2\n]"},
       {"[]", "[1,2,3,4]", "[1,]", R"(["a"])"}},
      {R"({"type":"array","maxItems":0})", {"[]"}, {"[1]"}},
      {R"({"type":"array","prefixItems":[{"type":"integer"},{"type":"boolean"}],"items":false})",
       {"[]", "[1]", "[1,true]"},
       {"[true]", "[1,true,1]"}},
      {R"({"type":"array","prefixItems":[{"type":"integer"}],"items":{"type":"null"},"minItems":2,
           "maxItems":3})",
       {"[1,null]", "[1,null,null]"},
       {"[1]", "[1,1]", "[1,null,null,null]"}},
      {R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}},
           "required":["a"],"additionalProperties":false})",
       {R"({"a":1})", R"({"a": 1, "b": "x"})", "{\n  \"a\": 1\n}"},
       {"{}", R"({"b":"x","a":1})", R"({"a":1,})", R"({"a":1,"c":2})", R"({"a":1,"a":1})"}},
      {R"({"type":"object","properties":{"ab":{"type":"integer"}},
           "additionalProperties":{"type":"null"}})",
       {"{}", R"({"ab":1})", R"({"x":null,"y":null})", R"({"ab":1,"a":null,"abc":null})"},
       {R"({"ab":null})", R"({"x":1})", "{\"x\x14\":null}", R"({"\u0061b":null})"}},
      {R"({"type":"object","required":["z"],"additionalProperties":{"type":"integer"}})",
       {R"({"z":1})", R"({"z":1,"a":2})"},
       {"{}", R"({"a":2})"}},
      {R"({"type":"object","properties":{"a":false,"b":true}})",
       {"{}", R"({"b":[{}]})"},
       {R"({"a":1})"}},
      {R"({"anyOf":[{"type":"integer"},{"$ref":"#/$defs/s~1t"}],"$defs":{"s/t":{"const":"x"}}})",
       {"1", R"("x")"},
       {R"("y")", "true"}},
      {R"({"oneOf":[{"type":"object","properties":{"k":{"const":"a"},"v":{"type":"integer"}},
           "required":["k","v"],"additionalProperties":false},
          {"type":"object","properties":{"k":{"const":"b"}},"required":["k"],
           "additionalProperties":false}]})",
       {R"({"k":"a","v":1})", R"({"k":"b"})"},
       {R"({"k":"a"})", R"({"k":"b","v":1})"}},
      {R"({"allOf":[{"$ref":"#/$defs/n"}],"description":"d","default":1,
           "$defs":{"n":{"type":"integer"}}})",
       {"5"},
       {"true"}},
      {R"({"type":"object","properties":{"value":{"type":"integer"},
           "next":{"anyOf":[{"$ref":"#"},{"type":"null"}]}},"required":["value","next"],
           "additionalProperties":false})",
       {R"({"value":1,"next":null})", R"({"value":1,"next":{"value":2,"next":null}})"},
       {R"({"value":1})", R"({"value":1,"next":{}})"}},
      {"true", {R"([1,"a",{"b":[]}])", "-1.5", "{}"}, {"", "[", "}"}},
      {R"({"properties":{"a":{"type":"integer"}}})", {"{}", R"({"a":1})"}, {"1", R"({"a":"x"})"}},
  };
  for (const Case& one : cases) {
    for (const char* text : one.right) EXPECT_TRUE(allows(one.schema, text)) << one.schema << text;
    for (const char* text : one.wrong) EXPECT_FALSE(allows(one.schema, text)) << one.schema << text;
  }
}

TEST_F(JsonSchema, NamesWhatItDoesNotSupportAndWhereItStands) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"{", "response_format: schema"},
      {"3", "expected a schema: an object or a boolean, got 3"},
      {R"({"type":"object","properties":{"a":{"not":{}}}})",
       R"(schema.properties.a: the keyword "not" is not supported)"},
      {R"({"type":"object","patternProperties":{}})", R"("patternProperties" is not supported)"},
      {R"({"type":"object","minProperties":1})", R"("minProperties")"},
      {R"({"type":"array","uniqueItems":true})", "schema.uniqueItems: expected false"},
      {R"({"type":"array","items":[{}]})", "prefixItems"},
      {R"({"type":"text"})", "expected object, array, string, number, integer, boolean or null"},
      {R"({"type":"number","multipleOf":2})", R"("multipleOf")"},
      {R"({"type":"number","minimum":0.5})", "schema.minimum: expected a whole number"},
      {R"({"type":"integer","minimum":"1"})", "schema.minimum: expected a number, got \"1\""},
      {R"({"type":"string","format":"email"})", "schema.format: expected date, time, date-time"},
      {R"j({"type":"string","pattern":"(?=a)"})j",
       "schema.pattern: expected a pattern without look"},
      {R"({"type":"string","pattern":"(a)\\1"})", R"(the escape "\1")"},
      {R"({"type":"string","pattern":"a\\b"})", R"(the escape "\b")"},
      {R"({"type":"string","pattern":"(a"})", "an end inside a group"},
      {R"j({"type":"string","pattern":"a)"})j", "a ')' without"},
      {R"j({"type":"string","pattern":"(^a)"})j", "an anchor inside"},
      {R"({"type":"string","pattern":"a**"})", "a repetition of a repetition"},
      {R"({"type":"string","pattern":"a{2,1}"})", "no number of times"},
      {R"({"type":"string","pattern":"[z-a]"})", "a range that is none"},
      {R"({"type":"string","pattern":"a","minLength":1})", "schema.minLength: expected no such"},
      {R"({"type":"string","minLength":-1})", "schema.minLength: expected a count"},
      {R"({"$ref":"other.json"})", "schema.$ref: expected \"#\" or a place"},
      {R"({"$ref":"#/$defs/x"})", "schema.$ref: expected a place that this schema has"},
      {R"({"$ref":"#"})", "says more than that it is itself"},
      {R"({"anyOf":[{"$ref":"#"},{"type":"null"}]})", "says more than that it is itself"},
      {R"({"anyOf":[]})", "schema.anyOf: expected a schema or more"},
      {R"({"type":"object","anyOf":[{}]})", R"("type" is not supported beside "anyOf")"},
      {R"({"allOf":[{},{}]})", "schema.allOf: expected one schema"},
      {R"({"oneOf":[{"type":"integer"},{"type":"number"}]})", "that no value satisfies together"},
      {R"({"type":"object","properties":{"a":{"$id":"x"}}})", R"("$id" is not supported)"},
      {R"({"type":"object","properties":[]})", "schema.properties: expected an object"},
      {R"({"type":"object","required":"a"})", "schema.required: expected a list"},
      {"false", "that some JSON of at most 64 levels satisfies"},
      {R"({"enum":[]})", "that some JSON of at most 64 levels satisfies"},
      {R"({"type":"string","minLength":3,"maxLength":2})", "satisfies"},
      {R"({"type":"object","required":["a"],"additionalProperties":false})", "satisfies"},
      {R"({"type":"array","minItems":1,"items":false})", "satisfies"},
      {R"({"type":"object","properties":{"n":{"$ref":"#"}},"required":["n"]})", "satisfies"},
  };
  for (const auto& [schema, sentence] : cases) {
    EXPECT_THAT(refusal(schema), HasSubstr(sentence)) << schema;
  }
}

TEST_F(JsonSchema, AJsonObjectMayBeAnyButIsOne) {
  const auto grammar = grammars_.object();
  for (const std::string text : {"{}", R"({"a":[1,{"b":null}],"":"x"})"}) {
    EXPECT_TRUE(taken(*grammar, text).is_whole) << text;
  }
  EXPECT_EQ(taken(*grammar, "[]").bytes, 0U);
  EXPECT_EQ(taken(*grammar, "{a").bytes, 1U);
}

TEST_F(JsonSchema, BlanksComeToAnEnd) {
  const auto grammar = grammars_.schema(R"({"type":"array","items":{"type":"integer"}})");
  const std::string lines = "[\n" + std::string(100, ' ');
  EXPECT_EQ(taken(*grammar, lines).bytes, 2U + 32);
  EXPECT_EQ(taken(*grammar, "[\n\n").bytes, 2U);
  EXPECT_EQ(taken(*grammar, "[  ").bytes, 2U);
  EXPECT_EQ(taken(*grammar, "[1,  ").bytes, 4U);
}

TEST_F(JsonSchema, AnAnswerIsAtMostSixtyFourLevelsDeepAndCanAlwaysBeEnded) {
  const auto grammar = grammars_.schema(R"({"type":"array","items":{"$ref":"#"},"minItems":0})");
  const std::string open(100, '[');
  const std::size_t depth = taken(*grammar, open).bytes;
  EXPECT_EQ(depth, 64U);
  EXPECT_TRUE(taken(*grammar, std::string(depth, '[') + std::string(depth, ']')).is_whole);
  // What must be closed by more levels may not be opened so late that these have no room.
  const auto deep = grammars_.schema(
      R"({"type":"array","items":{"anyOf":[{"$ref":"#"},
          {"type":"object","properties":{"a":{"type":"array","items":{"type":"null"},
           "minItems":1}},"required":["a"],"additionalProperties":false}]},"minItems":1})");
  std::string text;
  for (std::size_t i = 0; i < 100 && taken(*deep, text + "[").bytes > text.size(); ++i) text += "[";
  EXPECT_FALSE(taken(*deep, text + "]").is_whole);
  EXPECT_EQ(taken(*deep, text + R"({"a":[null]})").bytes, text.size() + 12);
}

TEST_F(JsonSchema, TheLastGrammarsAreKept) {
  EXPECT_EQ(grammars_.schema("true"), grammars_.schema("true"));
  EXPECT_EQ(grammars_.object(), grammars_.object());
}

TEST(JsonGrammars, NeedATokenForEachCharacterOfAscii) {
  class Few : public text::LetterTokenizer {
   public:
    std::int64_t vocab_size() const override { return 100; }
    std::optional<std::int32_t> bos() const override { return std::nullopt; }
    std::optional<std::int32_t> eos() const override { return std::nullopt; }
  };
  EXPECT_THAT(testing::error_of([] { JsonGrammars(Few(), {1}); }),
              HasSubstr("expected a token for each ASCII character, to write JSON with, got none "
                        "for d"));
}

}  // namespace
}  // namespace memlayers::api
