// SPDX-License-Identifier: Apache-2.0
#include "text/token_bytes.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "support/temp_dir.h"
#include "support/testing.h"
#include "text/byte_characters.h"
#include "text/letter_tokenizer.h"

namespace memlayers::text {
namespace {

const std::vector<std::string> kTexts = {"a b", " a", "größe 漢字\xF0\x9F\x8E\x89", "\n\t  x",
                                         "\xEF\xBF\xBD"};

void expect_bytes_make_text(const Tokenizer& tokenizer) {
  const auto bytes = token_bytes(tokenizer);
  ASSERT_EQ(static_cast<std::int64_t>(bytes.size()), tokenizer.vocab_size());
  for (const std::string& text : kTexts) {
    std::string together;
    for (const std::int32_t token : tokenizer.encode_continuation(text)) {
      ASSERT_TRUE(bytes[static_cast<std::size_t>(token)]) << tokenizer.token(token);
      together += *bytes[static_cast<std::size_t>(token)];
    }
    EXPECT_EQ(together, " " + text);
  }
}

TEST(TokenBytes, AreTheTextAlsoOfPartsOfCharacters) {
  // SentencePiece with bytes for what no piece spells.
  const auto trained = train_tokenizer({"a b größe a b größe", "a a b x"}, 275);
  expect_bytes_make_text(*trained);
  EXPECT_FALSE(token_bytes(*trained)[static_cast<std::size_t>(trained->eos().value())]);
  EXPECT_EQ(token_bytes(*trained)[3 + 0xE6], "\xE6");

  // A vocabulary of bytes as GPT-2 writes them.
  testing::TempDir folder;
  std::string vocab;
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const std::string& character = byte_characters()[byte];
    vocab += (character == "\"" || character == "\\" ? "\"\\" : "\"") + character +
             "\":" + std::to_string(byte) + ",";
  }
  testing::write_file(
      folder / "tokenizer.json",
      R"({"added_tokens":[{"id":257,"content":"<end>","special":true,"single_word":false,"lstrip":false,
          "rstrip":false,"normalized":false}],"normalizer":null,"post_processor":null,
          "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true},
          "decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{)" +
          vocab + R"("Ġa":256},"merges":["Ġ a"]}})");
  const auto bytes = load_tokenizer(folder.path());
  expect_bytes_make_text(*bytes);
  EXPECT_EQ(token_bytes(*bytes)[256], " a");
  EXPECT_EQ(token_bytes(*bytes)[0xE6], "\xE6");
  EXPECT_FALSE(token_bytes(*bytes)[257]);
}

TEST(TokenBytes, AreNoneOfSpecialTokens) {
  const LetterTokenizer tokenizer;
  const auto bytes = token_bytes(tokenizer);
  EXPECT_EQ(bytes['x'], "x");
  EXPECT_EQ(bytes[0xFF], "\xFF");
  EXPECT_FALSE(bytes[LetterTokenizer::kBos]);
}

}  // namespace
}  // namespace memlayers::text
