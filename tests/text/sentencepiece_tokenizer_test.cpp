// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "memlayers/tokenizer.h"
#include "support/temp_dir.h"
#include "text/shuffle.h"
#include "text/testing.h"
#include "text/tokenizer_file.h"
#include "text/utf8.h"

namespace memlayers::text {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;
using Ids = std::vector<std::int32_t>;

std::vector<std::string> corpus() {
  std::vector<std::string> texts;
  const std::vector<std::string> subjects = {"the heron", "a lantern", "the old harbour",
                                             "the été"};
  const std::vector<std::string> verbs = {"stands in", "shines over", "is near",
                                          "was built beside"};
  const std::vector<std::string> places = {"the marsh", "the long wall", "two houses", "the river"};
  for (const auto& subject : subjects) {
    for (const auto& verb : verbs) {
      for (const auto& place : places) {
        texts.push_back(subject + " " + verb + " " + place + ".\n  Year 1234, day 56\n\n");
      }
    }
  }
  return texts;
}

std::shared_ptr<const Tokenizer> tokenizer() {
  static const auto trained = train_tokenizer(corpus(), 320);
  return trained;
}

const std::vector<std::string>& awkward_texts() {
  static const std::vector<std::string> texts = {
      "",
      " ",
      "   ",
      "\n",
      "\n\n \n",
      "a",
      " a",
      "  a  b ",
      "the heron stands in the marsh.",
      "tabs\tand\r\nline ends",
      "</s> <s> <unk> <0x41>",
      "日本語、한국어 и русский",
      "e\xCC\x81 combining, \xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x94\xAC joined",
      "don't 12345 3.14159",
      std::string("a zero \0 byte", 13),
      "\xEF\xBF\xBD replacement",
      "\xC2\xA0no-break\xE3\x80\x80ideographic space",
  };
  return texts;
}

TEST(SentencePieceTokenizer, DecodesWhatItEncoded) {
  for (const std::string& text : awkward_texts()) {
    EXPECT_EQ(tokenizer()->decode(tokenizer()->encode(text)), text);
  }
}

TEST(SentencePieceTokenizer, EncodesAContinuationAsStandingBehindASpace) {
  for (const std::string& prompt : awkward_texts()) {
    if (prompt.empty()) continue;
    for (const std::string& answer : awkward_texts()) {
      Ids tokens = tokenizer()->encode(prompt);
      const Ids more = tokenizer()->encode_continuation(answer);
      tokens.insert(tokens.end(), more.begin(), more.end());
      EXPECT_EQ(tokenizer()->decode(tokens), prompt + " " + answer);
    }
  }
}

TEST(SentencePieceTokenizer, HasTheSpecialTokensOfLlama) {
  EXPECT_EQ(tokenizer()->vocab_size(), 320);
  EXPECT_EQ(tokenizer()->bos(), 1);
  EXPECT_EQ(tokenizer()->eos(), 2);
  EXPECT_EQ(tokenizer()->pad(), std::nullopt);
  EXPECT_EQ(tokenizer()->decode(Ids{1, 2}), "");
  for (const std::int32_t id : tokenizer()->encode("<s> </s> <unk>")) EXPECT_GT(id, 2);
}

TEST(SentencePieceTokenizer, EncodesALongTextAsItsParts) {
  // Above the size at which encode() goes piece by piece, with spaces at the cuts.
  std::string text;
  while (text.size() < 300'000) text += "the heron   stands in the marsh.\nYear 1234  ";
  const Ids whole = tokenizer()->encode(text);
  EXPECT_EQ(tokenizer()->decode(whole), text);
  // One sentence at a time gives the same: no piece spans a space.
  Ids parts;
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t end = begin + 1;
    while (end < text.size() && !(text[end] == ' ' && text[end - 1] != ' ')) ++end;
    const Ids part =
        begin == 0 ? tokenizer()->encode(text.substr(0, end))
                   : tokenizer()->encode_continuation(text.substr(begin + 1, end - begin - 1));
    parts.insert(parts.end(), part.begin(), part.end());
    begin = end;
  }
  EXPECT_EQ(whole, parts);
}

TEST(SentencePieceTokenizer, RejectsTextThatIsNotUtf8AndTokensOutsideTheVocabulary) {
  EXPECT_EQ(error_of([] { tokenizer()->encode("ab\xFF"); }),
            "text to encode: expected UTF-8, got byte 0xff at offset 2");
  for (const std::int32_t id : {-1, 320, INT32_MAX}) {
    EXPECT_THAT(error_of([&] { tokenizer()->decode(Ids{5, id}); }),
                HasSubstr("expected ids below 320, got " + std::to_string(id)));
  }
}

TEST(SentencePieceTokenizer, DecodesBytesThatAreNotUtf8AsReplacements) {
  const std::int32_t byte0 = 3;  // <0x00>
  EXPECT_EQ(tokenizer()->decode(Ids{byte0 + 0xE2, byte0 + 0x96, byte0 + 'a'}),
            std::string(kReplacement) + std::string(kReplacement) + "a");
  EXPECT_EQ(tokenizer()->decode(Ids{byte0 + 0xC3, byte0 + 0xA9}), "é");
}

TEST(TrainTokenizer, IsDeterministic) {
  EXPECT_EQ(train_tokenizer(corpus(), 300)->file_bytes(),
            train_tokenizer(corpus(), 300)->file_bytes());
}

TEST(TrainTokenizer, SaysHowManyPiecesTheTextsCanFill) {
  const std::string message = error_of([] { train_tokenizer(corpus(), 5000); });
  EXPECT_THAT(message, StartsWith("[model] vocab_size: expected at most "));
  EXPECT_THAT(message, HasSubstr(" for these texts, got 5000"));
  std::int64_t most = 0;
  ASSERT_EQ(std::sscanf(message.c_str(), "[model] vocab_size: expected at most %ld", &most), 1);
  EXPECT_EQ(train_tokenizer(corpus(), most)->vocab_size(), most);
}

TEST(TrainTokenizer, RejectsTextsAndSizesThatCannotBe) {
  EXPECT_THAT(error_of([] { train_tokenizer(corpus(), 259); }),
              HasSubstr("vocab_size: expected 261"));
  EXPECT_THAT(error_of([] { train_tokenizer(corpus(), -1); }), HasSubstr("got -1"));
  EXPECT_THAT(error_of([] { train_tokenizer({}, 300); }), HasSubstr("expected text, got none"));
  EXPECT_THAT(error_of([] { train_tokenizer({"", ""}, 300); }),
              HasSubstr("expected text, got none"));
  EXPECT_THAT(error_of([] { train_tokenizer({"good", "b\xFF"}, 300); }),
              HasSubstr("text 1 to train a tokenizer on: expected UTF-8"));
}

TEST(TrainTokenizer, SpellsRareCharactersInBytesWhereTheVocabularyIsSmall) {
  std::string many;
  for (char32_t code = 0x4E00; code < 0x4F00; ++code) append_utf8(many, code);
  std::vector<std::string> texts = corpus();
  texts.push_back(many);
  const auto small = train_tokenizer(texts, 300);
  EXPECT_EQ(small->vocab_size(), 300);
  EXPECT_EQ(small->decode(small->encode(many + " x")), many + " x");
}

TEST(TrainTokenizer, LearnsFromTextsOfAnyLengthWithoutSpaces) {
  std::string long_word, long_cjk;
  for (int i = 0; i < 20'000; ++i) {
    long_word += static_cast<char>('a' + (i * i) % 23);
    append_utf8(long_cjk, 0x4E00 + static_cast<char32_t>((i * 7) % 13));
  }
  const auto trained = train_tokenizer({long_word, long_cjk, std::string(9000, ' ')}, 330);
  EXPECT_LT(trained->encode(long_word).size(), long_word.size());
  EXPECT_EQ(trained->decode(trained->encode(long_cjk)), long_cjk);
}

TEST(SentencePieceFile, LoadsFromAFileOrAFolderWithTheSameBytes) {
  const memlayers::testing::TempDir dir;
  write_file(dir / "tokenizer.model", tokenizer()->file_bytes());
  for (const std::string& path : {dir / "tokenizer.model", dir.path()}) {
    const auto loaded = load_tokenizer(path);
    EXPECT_EQ(loaded->file_name(), "tokenizer.model");
    EXPECT_EQ(loaded->file_bytes(), tokenizer()->file_bytes());
    EXPECT_EQ(loaded->encode("the heron"), tokenizer()->encode("the heron"));
  }
}

TEST(SentencePieceFile, TakesBosAndEosFromTokenizerConfig) {
  const memlayers::testing::TempDir dir;
  write_file(dir / "tokenizer.model", tokenizer()->file_bytes());
  write_file(dir / "tokenizer_config.json",
             R"({"bos_token": null, "eos_token": {"content": "<s>"}, "pad_token": "</s>"})");
  const auto loaded = load_tokenizer(dir.path());
  EXPECT_EQ(loaded->bos(), std::nullopt);
  EXPECT_EQ(loaded->eos(), 1);
  EXPECT_EQ(loaded->pad(), 2);

  const auto message = [&](const std::string& config) {
    write_file(dir / "tokenizer_config.json", config);
    return error_of([&] { load_tokenizer(dir.path()); });
  };
  EXPECT_THAT(
      message(R"({"eos_token": "<end>"})"),
      HasSubstr(
          "tokenizer_config.json: eos_token: expected a piece of tokenizer.model, got \"<end>\""));
  EXPECT_THAT(message(R"({"eos_token": 3})"), HasSubstr("eos_token: expected a string"));
  EXPECT_THAT(message("[]"), HasSubstr("expected an object, got []"));
  EXPECT_THAT(message("{"), HasSubstr("tokenizer_config.json: expected JSON"));
}

TEST(SentencePieceFile, RejectsFilesThatAreNoModel) {
  const memlayers::testing::TempDir dir;
  EXPECT_THAT(error_of([&] { load_tokenizer(dir.path()); }),
              HasSubstr("expected tokenizer.json or tokenizer.model in this folder"));
  EXPECT_THAT(error_of([&] { load_tokenizer(dir / "none.model"); }), HasSubstr("none.model"));
  for (const std::string bytes : {"", "hello, world", "\x0A\xFF\xFF\xFF\xFF\x0F", "\x0A\x02\x0A"}) {
    EXPECT_THAT(error_of([&] { parse_sentencepiece("x.model", bytes); }),
                StartsWith("x.model: expected a SentencePiece model, got "));
  }
}

// A field of a protobuf message.
std::string field(int number, const std::string& bytes) {
  std::string out;
  const auto varint = [&](std::size_t value) {
    for (; value >= 128; value >>= 7) out += static_cast<char>(value | 128);
    out += static_cast<char>(value);
  };
  varint(static_cast<std::size_t>(number) << 3 | 2);
  varint(bytes.size());
  return out + bytes;
}
std::string flag(int number, char value) { return {static_cast<char>(number << 3), value}; }

TEST(SentencePieceFile, RejectsWhatItCannotDoExactly) {
  const std::string good = tokenizer()->file_bytes();
  const auto message = [&](const std::string& more) {
    return error_of([&] { parse_sentencepiece("x.model", good + more); });
  };
  EXPECT_THAT(message(field(2, flag(3, 3))), HasSubstr("trainer_spec.model_type 3"));
  EXPECT_THAT(message(field(2, std::string("\xC0\x01\x01", 3))),
              HasSubstr("treat_whitespace_as_suffix"));
  EXPECT_THAT(message(field(3, flag(5, 0))), HasSubstr("normalizer_spec.escape_whitespaces"));
  EXPECT_THAT(message(field(3, flag(3, 0) + flag(4, 1))), HasSubstr("remove_extra_whitespaces"));
  EXPECT_THAT(message(field(3, field(2, "abc"))), HasSubstr("precompiled_charsmap of 3 bytes"));
  EXPECT_THAT(message(field(3, field(2, std::string("\x04\0\0\0abcdefgh", 12)))),
              HasSubstr("trie of 4 bytes"));
  // A trie whose root leads past its end, and one whose first child is a target past the end.
  std::string outside = std::string("\0\x04\0\0", 4) + std::string(1025, '\0');
  outside[6] = '\xFF';
  EXPECT_THAT(message(field(3, field(2, outside))), HasSubstr("leads past its end"));
  std::string empty = std::string("\0\x04\0\0", 4);  // units that are nobody's children
  empty += std::string("\0\x04\0\0", 4);
  for (int unit = 1; unit < 256; ++unit) empty += std::string("\0\0\0\x80", 4);
  empty += '\0';
  std::string target = empty;
  target.replace(4 + 4 * ('a' ^ 1), 4, std::string("a\x05\0\0", 4));
  target.replace(4 + 4 * 'a', 4, "\xFF\xFF\xFF\x80");
  EXPECT_THAT(message(field(3, field(2, target))), HasSubstr("target past its end"));
  std::string endless = empty;
  endless.replace(4 + 4 * ('a' ^ 1), 4, std::string("a\x84\x01\0", 4));
  EXPECT_THAT(message(field(3, field(2, endless))), HasSubstr("a source that does not end"));
  EXPECT_THAT(message(field(5, field(2, empty))), HasSubstr("denormalizer_spec"));
  EXPECT_THAT(message(field(1, "")), HasSubstr("pieces[320] without text"));
  EXPECT_THAT(message(field(1, field(1, std::string(5000, 'x')))), HasSubstr("of 5000 bytes"));
  EXPECT_THAT(message(field(1, field(1, "\xFF"))), HasSubstr("pieces[320]: expected UTF-8"));
  EXPECT_THAT(message(field(1, field(1, std::string(1, '\0')))), HasSubstr("zero byte"));
  EXPECT_THAT(message(field(1, field(1, "zz") + flag(3, 9))), HasSubstr("of type 9"));
  EXPECT_THAT(message(field(1, field(1, "zz") + flag(3, 6))),
              HasSubstr("of type byte named \"zz\""));
  EXPECT_THAT(message(field(1, field(1, "zz") + std::string("\x15\0\0\xC0\x7F", 5))),
              HasSubstr("not finite"));
  EXPECT_THAT(message(field(1, field(1, "\xE2\x96\x81"))), HasSubstr("cannot be loaded"));  // twice
  EXPECT_THAT(message(flag(2, 1)), HasSubstr("field 2 that is not a message"));
  EXPECT_THAT(message("\x0B"), HasSubstr("wire type 3"));
}

TEST(SentencePieceFile, LivesThroughFlippedAndMissingBytes) {
  const std::string good = tokenizer()->file_bytes();
  SplitMix64 random(11);
  int rejected = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string bytes = good;
    if (i % 10 == 0) bytes.resize(random.below(bytes.size()));
    for (std::uint64_t flips = random.below(3) + (i % 10 != 0); flips > 0 && !bytes.empty();
         --flips) {
      bytes[random.below(bytes.size())] = static_cast<char>(random.next());
    }
    try {
      const auto loaded = parse_sentencepiece("x.model", bytes);
      const Ids ids = loaded->encode("the heron  stands é 日本 12");
      (void)loaded->encode_continuation("");
      (void)loaded->decode(ids);
    } catch (const Error&) {
      ++rejected;
    }
  }
  EXPECT_GT(rejected, 100);
}

TEST(StreamDecoder, GivesTheTextOfAllTokensInWholeCharacters) {
  for (const std::string& text : awkward_texts()) {
    for (const std::string prompt : {"", "the marsh", "né "}) {
      const Ids head = tokenizer()->encode(prompt);
      Ids tokens = tokenizer()->encode_continuation(text);
      tokens.insert(tokens.begin() + static_cast<std::ptrdiff_t>(tokens.size() / 2),
                    2);  // </s> within
      StreamDecoder decoder(tokenizer(), head);
      std::string streamed;
      for (const std::int32_t token : tokens) {
        const std::string piece = decoder.push(token);
        EXPECT_EQ(valid_utf8_bytes(piece), piece.size());
        streamed += piece;
      }
      streamed += decoder.finish();
      Ids all = head;
      all.insert(all.end(), tokens.begin(), tokens.end());
      EXPECT_EQ(prompt + streamed, tokenizer()->decode(all));
    }
  }
}

TEST(StreamDecoder, GivesTheTextOfRandomTokens) {
  SplitMix64 random(3);
  for (int i = 0; i < 300; ++i) {
    Ids tokens;
    StreamDecoder decoder(tokenizer());
    std::string streamed;
    for (std::uint64_t n = random.below(40); n > 0; --n) {
      // Mostly bytes: half characters, and bytes that can be in none.
      const auto bound = random.below(4) == 0 ? 320u : 259u;
      tokens.push_back(static_cast<std::int32_t>(random.below(bound)));
      streamed += decoder.push(tokens.back());
    }
    EXPECT_EQ(streamed + decoder.finish(), tokenizer()->decode(tokens));
  }
}

TEST(StreamDecoder, HoldsBackNoMoreThanACharacter) {
  StreamDecoder decoder(tokenizer());
  const std::int32_t byte0 = 3;
  EXPECT_EQ(decoder.push(byte0 + 0xF0), "");
  EXPECT_EQ(decoder.push(byte0 + 0x9F), "");
  EXPECT_EQ(decoder.push(byte0 + 0x98), "");
  EXPECT_EQ(decoder.push(byte0 + 0x80), "😀");
  EXPECT_EQ(decoder.push(byte0 + 0xC3), "");
  EXPECT_EQ(decoder.push(byte0 + 'x'), std::string(kReplacement) + "x");
  EXPECT_EQ(decoder.finish(), "");
}

}  // namespace
}  // namespace memlayers::text
