// SPDX-License-Identifier: Apache-2.0
#include "generate/text_cutter.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace memlayers::generate {
namespace {

struct Result {
  std::string text;
  bool is_stopped;
};

Result cut(const std::vector<std::string>& stop, const std::vector<std::string>& pieces) {
  TextCutter cutter(stop);
  std::string text;
  for (const std::string& piece : pieces) text += cutter.push(piece);
  text += cutter.finish();
  return {text, cutter.is_stopped()};
}

TEST(TextCutter, WithoutStopStringsAllIsCertainAtOnce) {
  TextCutter cutter({});
  EXPECT_EQ(cutter.push("abc"), "abc");
  EXPECT_EQ(cutter.push(""), "");
  EXPECT_EQ(cutter.finish(), "");
}

TEST(TextCutter, HoldsBackOnlyWhatMayBecomeAStopString) {
  TextCutter cutter({"\n\n"});
  EXPECT_EQ(cutter.push("one\n"), "one");
  EXPECT_EQ(cutter.push("two\n"), "\ntwo");
  EXPECT_EQ(cutter.push("\nthree"), "");
  EXPECT_TRUE(cutter.is_stopped());
  EXPECT_EQ(cutter.push("more"), "");
  EXPECT_EQ(cutter.finish(), "");
}

TEST(TextCutter, GivesAtTheEndWhatWasHeldBack) {
  TextCutter cutter({"stop"});
  EXPECT_EQ(cutter.push("a sto"), "a ");
  EXPECT_EQ(cutter.finish(), "sto");
  EXPECT_FALSE(cutter.is_stopped());
}

TEST(TextCutter, CutsAtTheEarliestOfSeveral) {
  const Result result = cut({"zz", "b", "cd"}, {"aacdbzz"});
  EXPECT_EQ(result.text, "aa");
  EXPECT_TRUE(result.is_stopped);
}

// All texts of six letters over {a, b}, all ways to cut them into pieces, against a plain search.
TEST(TextCutter, PiecesChangeNothing) {
  const std::vector<std::vector<std::string>> stops{
      {"aab"}, {"abab"}, {"ba", "aaa"}, {"b"}, {"aabb", "ab"}, {"bbbbbbb"}, {"abba", "bb"}};
  for (const auto& stop : stops) {
    for (unsigned letters = 0; letters < 64; ++letters) {
      std::string text;
      for (unsigned i = 0; i < 6; ++i) text += (letters >> i & 1U) != 0 ? 'b' : 'a';
      for (unsigned cuts = 0; cuts < 32; ++cuts) {
        std::vector<std::string> pieces(1);
        for (unsigned i = 0; i < 6; ++i) {
          pieces.back() += text[i];
          if (i < 5 && (cuts >> i & 1U) != 0) pieces.emplace_back();
        }
        const Result result = cut(stop, pieces);
        // The stream stops with the letter that makes a stop string whole; of those whole by then
        // the earliest begin counts.
        std::string seen, expected = text;
        for (const char letter : text) {
          seen += letter;
          std::size_t at = std::string::npos;
          for (const std::string& s : stop) at = std::min(at, seen.find(s));
          if (at != std::string::npos) {
            expected = seen.substr(0, at);
            break;
          }
        }
        ASSERT_EQ(result.text, expected) << text << " in " << pieces.size() << " pieces";
        ASSERT_EQ(result.is_stopped, expected.size() < text.size());
      }
    }
  }
}

}  // namespace
}  // namespace memlayers::generate
