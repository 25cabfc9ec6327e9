// SPDX-License-Identifier: Apache-2.0
#include "text/utf8.h"

#include <gtest/gtest.h>

#include "memlayers/error.h"

namespace memlayers::text {
namespace {

TEST(Utf8, AcceptsTheFirstAndLastCharacterOfEachLength) {
  for (const char32_t code :
       {0x1u, 0x7Fu, 0x80u, 0x7FFu, 0x800u, 0xD7FFu, 0xE000u, 0xFFFFu, 0x10000u, 0x10FFFFu}) {
    std::string text;
    append_utf8(text, code);
    const Utf8Character character = decode_utf8(text);
    EXPECT_TRUE(character.valid);
    EXPECT_EQ(character.code, code);
    EXPECT_EQ(character.bytes, text.size());
  }
}

TEST(Utf8, RejectsOverlongSurrogateTooLargeAndTruncatedCharacters) {
  for (const std::string bytes :
       {"\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\x80", "\xE2\x96", "\xC3"}) {
    EXPECT_EQ(valid_utf8_bytes("ok" + bytes), 2u) << testing::PrintToString(bytes);
  }
}

TEST(Utf8, NamesTheOffsetOfTheFirstWrongByte) {
  try {
    check_utf8("h\xC3\xA9llo \xFFx", "notes.txt:7", 100);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "notes.txt:7: expected UTF-8, got byte 0xff at offset 107");
  }
}

TEST(Utf8, ReplacesEachByteOrEachBeginningOfACharacter) {
  const std::string bytes = "a\xE2\x96z\xF0\x9F\x98";  // two characters that lack their last byte
  const std::string r(kReplacement);
  EXPECT_EQ(replace_invalid_utf8(bytes, Replace::kEachByte), "a" + r + r + "z" + r + r + r);
  EXPECT_EQ(replace_invalid_utf8(bytes, Replace::kEachPart), "a" + r + "z" + r);
  EXPECT_EQ(replace_invalid_utf8("\xE2\x96\x81", Replace::kEachByte), "\xE2\x96\x81");
}

}  // namespace
}  // namespace memlayers::text
