// SPDX-License-Identifier: Apache-2.0
#include "io/shown.h"

#include <gtest/gtest.h>

namespace memlayers::io {
namespace {

TEST(Shown, LeavesPlainTextAsItIs) {
  for (const char* text :
       {"", "model.layers.0.weight", "Grüße, 世界 \"x\" \\p{L}", "👩‍👩‍👧"}) {
    EXPECT_EQ(shown(text), text);
  }
}

TEST(Shown, EscapesWhatActsOnATerminal) {
  EXPECT_EQ(shown("a\nb\tc\r"), R"(a\nb\tc\r)");
  EXPECT_EQ(shown("\x1b[2J\x7f\x01"), R"(\x1b[2J\x7f\x01)");
  EXPECT_EQ(shown(std::string_view("\0x", 2)), R"(\x00x)");
  EXPECT_EQ(shown("\xc2\x9b"
                  "2J"),
            R"(\u009b2J)");  // a control sequence of 8 bits
  EXPECT_EQ(shown("\xe2\x80\xae"
                  "gpj.exe"),
            R"(\u202egpj.exe)");  // from right to left
}

TEST(Shown, EscapesBytesThatAreNotUtf8) {
  EXPECT_EQ(shown("\xff\xfe"), R"(\xff\xfe)");
  EXPECT_EQ(shown("\xe4\xb8"), R"(\xe4\xb8)");  // the beginning of a character
}

TEST(Shown, CutsBetweenCharacters) {
  EXPECT_EQ(shown(std::string(200, 'x')), std::string(200, 'x'));
  EXPECT_EQ(shown(std::string(1'000'000, 'x')), std::string(200, 'x') + "...");
  EXPECT_EQ(shown("äöü", 2), "äö...");
  EXPECT_EQ(quote("abc", 2), "\"ab...\"");
}

TEST(Shown, IsTheSameShownAgain) {
  const std::string once = shown("\x1b[31m\xff\n\xe2\x80\xae\\");
  EXPECT_EQ(shown(once), once);
}

}  // namespace
}  // namespace memlayers::io
