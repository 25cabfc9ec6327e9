// SPDX-License-Identifier: Apache-2.0
#include "io/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "io/json_field.h"
#include "support/expect_error.h"

namespace memlayers::io {
namespace {

using memlayers::testing::expect_error;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

void refused(std::string_view text, const ::testing::Matcher<std::string>& what) {
  expect_error([&] { parse_json(text, "f.json"); },
               AllOf(::testing::StartsWith("f.json: "), what, Not(HasSubstr("json.exception"))));
}

TEST(Json, IsReadAsItIsWritten) {
  const nlohmann::json value = parse_json(
      R"( {"a": [1, -2, 2.5, true, null, {"b": "\u00e9\n", "c": {}}], "d": [], "e": 18446744073709551615} )",
      "f.json");
  EXPECT_EQ(
      value,
      nlohmann::json::parse(
          R"({"a":[1,-2,2.5,true,null,{"b":"é\n","c":{}}],"d":[],"e":18446744073709551615})"));
  for (const char* text : {"7", "\"x\"", "null", "[]", "[[],[[]]]"}) {
    EXPECT_EQ(parse_json(text, "f.json"), nlohmann::json::parse(text)) << text;
  }
}

TEST(Json, SaysWhereAMistakeIs) {
  refused("", HasSubstr("expected JSON, got one that ends too early, after 0 bytes"));
  refused(R"({"a": [1, "x)", HasSubstr("ends too early, after 12 bytes"));
  refused(R"({"a": NaN})", HasSubstr("expected JSON, got \"NaN}\" at column 7"));
  refused("{\"a\": 1,\n \"b\" 2}", HasSubstr("got \"2}\" at line 2, column 6"));
  refused("{\"a\": 1,}", HasSubstr("got \"}\" at column 9"));
  refused("[\"a\x01\"]", HasSubstr(R"(got "\x01"]" at column 4)"));
  refused(R"(["\q"])", HasSubstr("at column 4"));
}

TEST(Json, EndsWhereItsTextEnds) {
  refused("{} {}", HasSubstr("got \"{}\" at column 4"));
  refused("[1]x", HasSubstr("got \"x\" at column 4"));
  refused(std::string_view("{}\0", 3), HasSubstr("got a zero byte at column 3"));
  refused(std::string_view("{\"a\":1}\0{\"a\":2}", 15), HasSubstr("got a zero byte at column 8"));
  refused(std::string_view("[\"\0\"]", 5), HasSubstr("got a zero byte at column 3"));
}

TEST(Json, HasEachNameOnce) {
  refused(R"({"a": 1, "b": {"a": 1}, "a": 1})", HasSubstr("each name once, got \"a\" twice"));
  refused(R"([{"x": {"b": 1, "\u0062": 1}}])", HasSubstr("got \"b\" twice"));
  refused("{\"\x1b[2J\":1,\"\x1b[2J\":1}", HasSubstr("at column"));
  refused(R"({"\u001b[2J":1,"\u001b[2J":1})", HasSubstr(R"("\x1b[2J" twice)"));
}

TEST(Json, IsUtf8) {
  refused("[\"\xff\"]", HasSubstr("expected UTF-8, got byte 0xff at offset 2"));
  refused("\xff", HasSubstr("expected UTF-8"));
  refused("[\"\xed\xa0\x80\"]", HasSubstr("expected UTF-8"));
  refused(R"(["\ud800"])", HasSubstr("expected JSON, got"));  // half of a pair
}

TEST(Json, NestsAtMost64Deep) {
  const auto nested = [](std::size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  EXPECT_NO_THROW(parse_json(nested(64), "f.json"));
  refused(nested(65), HasSubstr("nested at most 64 deep"));
  refused(std::string(1'000'000, '['), HasSubstr("nested at most 64 deep"));
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  refused(objects, HasSubstr("nested at most 64 deep"));
}

TEST(Json, HoldsNumbersThatADoubleHolds) {
  refused("[1e999]", HasSubstr("numbers that a double holds, got \"1e999\""));
  EXPECT_EQ(parse_json("[1e-999]", "f.json")[0].get<double>(), 0);
}

TEST(Json, IsNoPointerToAFile) {
  refused("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
          HasSubstr("expected JSON, got a Git LFS pointer"));
}

TEST(Json,
     ManySiblingsTakeTimeInProportion) {  // looking at all of them for each would take minutes
  std::string text = "{";
  for (int i = 0; i < 300'000; ++i) {
    text += (i == 0 ? "\"" : ",\"") + std::to_string(i) + R"(":{"a":[0,1]})";
  }
  EXPECT_EQ(parse_json(text + "}", "f.json").size(), 300'000);
}

TEST(JsonMembers, ComeInTheOrderOfTheText) {
  std::vector<std::string> seen;
  parse_json_members(R"({"z": {"a": 1, "b": [2]}, "a": [], "m": 3})", "f.json",
                     [&](const std::string& name, const nlohmann::json& value) {
                       seen.push_back(name + value.dump());
                     });
  EXPECT_THAT(seen, ::testing::ElementsAre(R"(z{"a":1,"b":[2]})", "a[]", "m3"));
  const auto ignore = [](const std::string&, const nlohmann::json&) {};
  expect_error([&] { parse_json_members(R"({"a": 1, "a": 2})", "f.json", ignore); },
               HasSubstr("got \"a\" twice"));
  expect_error([&] { parse_json_members("[1]", "f.json", ignore); },
               HasSubstr("f.json: expected a JSON object, got [1]"));
}

TEST(Brief, IsOneShortLine) {
  EXPECT_EQ(brief(nlohmann::json::parse(R"({"a":[1,null],"b":"x\ny"})")),
            R"({"a":[1,null],"b":"x\ny"})");
  const std::string text = brief(nlohmann::json(std::vector<int>(1'000'000, 7)));
  EXPECT_LT(text.size(), 100);
  EXPECT_THAT(text, ::testing::EndsWith("..."));
}

TEST(JsonField, NamesFileAndField) {
  const nlohmann::json json = parse_json(
      R"({"n": 1.5, "big": 9223372036854775808, "low": -1, "list": [{"x": "s"}], "none": null})",
      "f.json");
  const JsonField root(json, "f.json");
  expect_error([&] { root.at("n").count(); },
               HasSubstr("f.json: n: expected a whole number >= 0, got 1.5"));
  expect_error([&] { root.at("big").count(); }, HasSubstr("f.json: big: expected"));
  expect_error([&] { root.at("low").count(); }, HasSubstr("f.json: low: expected"));
  expect_error([&] { root.at("low").bits(); }, HasSubstr("f.json: low: expected"));
  EXPECT_EQ(root.at("big").bits(), 9223372036854775808U);
  EXPECT_EQ(root.at("low").integer(-1, 1), -1);
  expect_error([&] { root.at("low").integer(0, 9); }, HasSubstr("from 0 to 9, got -1"));
  expect_error([&] { root.at("list").elements()[0].at("x").boolean(); },
               HasSubstr("f.json: list[0].x: expected true or false, got \"s\""));
  expect_error([&] { root.at("none"); }, HasSubstr("f.json: expected a field \"none\""));
  expect_error([&] { root.expect_only({"n", "big", "low", "lists", "none"}); },
               HasSubstr("f.json: unknown field \"list\"; did you mean \"lists\"?"));
}

}  // namespace
}  // namespace memlayers::io
