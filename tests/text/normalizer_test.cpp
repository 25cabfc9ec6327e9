// SPDX-License-Identifier: Apache-2.0
// What each normalizer makes of a text; tests/python/test_tokenizers.py compares every character
// with the original.
#include "text/normalizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "text/testing.h"

namespace memlayers::text {
namespace {

constexpr std::size_t kPlenty = 1 << 20;

std::string normal(const nlohmann::json& json, const std::string& text,
                   std::size_t most = kPlenty) {
  return Normalizer(JsonField(json, "normalizer"))(text, true, most);
}

std::string error(const nlohmann::json& json) {
  return error_of([&] { Normalizer(JsonField(json, "normalizer")); });
}

// A map of characters: units of a double array that is made here, and its targets.
class MapMaker {
 public:
  MapMaker() : units_(kBlocks * kBlock, 0x80000000U) { units_[0] = 0; }  // others: nobody's child
  void put(const std::string& source, const std::string& target) {
    std::uint32_t node = 0;
    for (const char byte : source) {
      const auto label = static_cast<std::uint32_t>(static_cast<unsigned char>(byte));
      const std::uint32_t child = block_of(node) ^ label;
      if ((units_[child] & 0xFF) != label) units_[child] = label;
      node = child;
    }
    units_[block_of(node)] = 0x80000000U | static_cast<std::uint32_t>(targets_.size());
    units_[node] |= 1U << 8;
    targets_ += target + '\0';
  }
  std::string bytes() const {
    const auto size = static_cast<std::uint32_t>(4 * units_.size());
    std::string all(reinterpret_cast<const char*>(&size), 4);
    all.append(reinterpret_cast<const char*>(units_.data()), size);
    return all + targets_;
  }

 private:
  static constexpr std::uint32_t kBlock = 256, kBlocks = 12;
  std::uint32_t block_of(std::uint32_t node) {
    if (units_[node] >> 10 == 0) units_[node] |= (node ^ (kBlock * next_++)) << 10;
    return node ^ (units_[node] >> 10);
  }
  std::vector<std::uint32_t> units_;
  std::uint32_t next_ = 1;
  std::string targets_;
};

std::string base64(const std::string& bytes) {
  constexpr const char* kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t bits = 0;
    for (std::size_t j = i; j < i + 3; ++j) {
      bits = bits << 8 | (j < bytes.size() ? static_cast<unsigned char>(bytes[j]) : 0U);
    }
    for (std::size_t j = 0; j < 4; ++j) {
      text += i + j > bytes.size() ? '=' : kDigits[bits >> (18 - 6 * j) & 63];
    }
  }
  return text;
}

nlohmann::json precompiled(const std::string& bytes) {
  return {{"type", "Precompiled"}, {"precompiled_charsmap", base64(bytes)}};
}

TEST(Normalizer, NormalFormsAreThoseOfUnicode) {
  EXPECT_EQ(normal({{"type", "NFC"}}, "e\u0301 \u212B ﬁ"), "\u00E9 \u00C5 ﬁ");
  EXPECT_EQ(normal({{"type", "NFD"}}, "\u00E9"), "e\u0301");
  EXPECT_EQ(normal({{"type", "NFKC"}}, "ﬁ① \uFF21"), "fi1 A");
  EXPECT_EQ(normal({{"type", "NFKD"}}, "\uAC00½"), "\u1100\u11611\u20442");
  // Marks are put in order, however many there are.
  std::string marks, ordered;
  for (int i = 0; i < 1000; ++i) marks += "\u0301\u0323";
  for (int i = 0; i < 1000; ++i) ordered += "\u0323";
  for (int i = 0; i < 1000; ++i) ordered += "\u0301";
  EXPECT_EQ(normal({{"type", "NFD"}}, "q" + marks), "q" + ordered);
  // Behind the reference's version of Unicode nothing has a form.
  EXPECT_EQ(normal({{"type", "NFKC"}}, "\u32FF"), "\u32FF");
}

TEST(Normalizer, CharactersByThemselves) {
  EXPECT_EQ(normal({{"type", "Lowercase"}}, "ÀŞİΣ"), "àşi\u0307σ");
  EXPECT_EQ(normal({{"type", "StripAccents"}}, "e\u0301a"), "ea");
  EXPECT_EQ(normal({{"type", "Nmt"}}, "a\x01\t\u200Bb"), "a  b");
  EXPECT_EQ(normal({{"type", "ByteLevel"}}, "a é"), "aĠÃ©");
  EXPECT_EQ(normal({{"type", "Strip"}, {"strip_left", true}, {"strip_right", false}}, "\u3000 a "),
            "a ");
  EXPECT_EQ(normal({{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}}, " \n"), "");
}

TEST(Normalizer, BertCleansPartsIdeographsAndLowers) {
  nlohmann::json bert = {{"type", "BertNormalizer"},
                         {"clean_text", true},
                         {"handle_chinese_chars", true},
                         {"strip_accents", nullptr},
                         {"lowercase", true}};
  EXPECT_EQ(normal(bert, "É\x01\u00A0中文"), "e  中  文 ");
  bert["strip_accents"] = false;
  EXPECT_EQ(normal(bert, "É"), "é");
  bert.erase("clean_text");
  EXPECT_NE(error(bert).find("clean_text"), std::string::npos);
}

TEST(Normalizer, PrecompiledTakesAGraphemeOrItsCharacters) {
  MapMaker map;
  map.put("\u2460", "1");
  map.put("e\u0301", "\u00E9");
  map.put("\u00AD", "");
  map.put("A", "a");
  const nlohmann::json json = precompiled(map.bytes());
  EXPECT_EQ(normal(json, "Ab\u2460e\u0301e"), "ab1\u00E9e");
  EXPECT_EQ(normal(json, "x\u00ADy"), "xy");
  // Of a short grapheme its first source decides for all of it, as in the original.
  EXPECT_EQ(normal(json, "A\u0301"), "a");
  EXPECT_EQ(normal(json, "A\u0301\u0323\u0301"), "a\u0301\u0323\u0301");
  EXPECT_EQ(normal(json, std::string("A\0A", 3)), std::string("a\0a", 3));
}

TEST(Normalizer, AMapOfCharactersIsCheckedBeforeItIsUsed) {
  MapMaker map;
  map.put("\u2460", "1");
  const std::string whole = map.bytes();
  for (std::size_t size = 0; size < whole.size(); size += 997) {
    EXPECT_NE(error(precompiled(whole.substr(0, size))), "") << size;
  }
  EXPECT_NE(error(precompiled(whole.substr(0, whole.size() - 2))), "");
  nlohmann::json bad = precompiled(whole);
  bad["precompiled_charsmap"] = "AB*=";
  EXPECT_NE(error(bad).find("expected base64"), std::string::npos);
  const std::string texts = "\u2460 \u00E9 text \u0301";
  for (std::size_t at = 0; at < whole.size(); at += 61) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ (1 << (at % 8)));
    try {
      normal(precompiled(changed), texts);
    } catch (const Error&) {
    }
  }
  MapMaker invalid;
  invalid.put("a", "\xFF");
  EXPECT_NE(error(precompiled(invalid.bytes())).find("that is not UTF-8"), std::string::npos);
}

TEST(Normalizer, WhatItMakesOfATextHasABound) {
  for (const char* type : {"NFKD", "ByteLevel"}) {
    std::string text;
    for (int i = 0; i < 100; ++i) text += "\uFDFA";  // 18 characters in NFKD
    EXPECT_NE(error_of([&] { normal({{"type", type}}, text, 400); }).find("at most 400 bytes"),
              std::string::npos);
  }
}

}  // namespace
}  // namespace memlayers::text
