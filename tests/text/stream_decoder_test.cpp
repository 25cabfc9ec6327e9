// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "support/source_folder.h"
#include "text/testing.h"
#include "text/tokenizer_json.h"
#include "text/utf8.h"

namespace memlayers::text {
namespace {

using Ids = std::vector<std::int32_t>;

constexpr const char* kTexts[] = {"🇩🇪",
                                  " 日本語 and 한국어",
                                  "e\u0301 👨‍👩‍👧 a  b",
                                  "\u00a0\u2581x\ufffd y",
                                  "</s> plain <tool> text",
                                  ""};

// What decode() gives of all without what it gives of the prompt, as far as the two begin alike.
std::string behind(const std::string& prompt, const std::string& all) {
  std::size_t same = 0;
  while (same < all.size()) {
    const std::size_t next = same + decode_utf8(std::string_view(all).substr(same)).bytes;
    if (prompt.compare(same, next - same, all, same, next - same) != 0) break;
    same = next;
  }
  return all.substr(same);
}

void expect_equal_at_every_split(const std::shared_ptr<const Tokenizer>& tokenizer,
                                 const Ids& ids) {
  const std::string whole = tokenizer->decode(ids);
  for (std::size_t split = 0; split <= ids.size(); ++split) {
    const Ids prompt(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(split));
    StreamDecoder stream(tokenizer, prompt);
    std::string text;
    for (std::size_t i = split; i < ids.size(); ++i) text += stream.push(ids[i]);
    text += stream.finish();
    EXPECT_EQ(text, behind(tokenizer->decode(prompt), whole)) << "split " << split;
  }
}

void expect_streams_as_decoded(const std::shared_ptr<const Tokenizer>& tokenizer) {
  for (const char* text : kTexts) {
    expect_equal_at_every_split(tokenizer, tokenizer->encode(text));
  }
  std::mt19937 random(7);
  std::uniform_int_distribution<int> any(0, static_cast<int>(tokenizer->vocab_size()) - 1);
  std::uniform_int_distribution<int> low(0, 300);  // where bytes and special tokens are
  for (int round = 0; round < 60; ++round) {
    Ids ids;
    for (int i = 0; i < 12; ++i) {
      const bool is_low = round % 2 == 0 && tokenizer->vocab_size() > 300;
      ids.push_back(is_low ? low(random) : any(random));
    }
    expect_equal_at_every_split(tokenizer, ids);
  }
}

class StreamOfEveryKind : public ::testing::TestWithParam<std::string> {};

TEST_P(StreamOfEveryKind, GivesTheDecodedTextAtEverySplit) {
  expect_streams_as_decoded(
      load_tokenizer(testing::in_repository("tests/text/data/" + GetParam() + ".tokenizer.json")));
}
INSTANTIATE_TEST_SUITE_P(Files, StreamOfEveryKind,
                         ::testing::Values("llama2", "metaspace_always", "metaspace_first",
                                           "llama3", "gpt2"),
                         [](const auto& tested) { return tested.param; });

TEST(StreamDecoding, OfSentencePieceGivesTheDecodedTextAtEverySplit) {
  expect_streams_as_decoded(train_tokenizer({"some text to learn", "日本 of words"}, 290));
}

// Orders of decoders that hold text back: a replacement that spans tokens, a prefix that is taken
// off, whole tokens behind a step that joins them.
TEST(StreamDecoding, OfAnyDecoderGivesTheDecodedTextAtEverySplit) {
  const auto replace = [](const char* from, const char* to) {
    return nlohmann::json{{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
  };
  const nlohmann::json fuse = {{"type", "Fuse"}}, fallback = {{"type", "ByteFallback"}},
                       bytes = {{"type", "ByteLevel"}},
                       metaspace = {{"type", "Metaspace"}, {"replacement", "_"}},
                       strip = {{"type", "Strip"}, {"content", "a"}, {"start", 3}, {"stop", 0}},
                       ends = {{"type", "Strip"}, {"content", "a"}, {"start", 0}, {"stop", 2}},
                       pieces = {{"type", "WordPiece"}, {"prefix", "aa"}, {"cleanup", true}},
                       words = {{"type", "BPEDecoder"}, {"suffix", "b"}};
  const std::vector<nlohmann::json> decoders = {{fuse, replace("aab", "x"), strip},
                                                {replace("a", "bb"), fuse, replace("bbb", "a")},
                                                {bytes, strip, replace("ba", "")},
                                                {fuse, bytes, metaspace},
                                                {metaspace, strip},
                                                {strip, fuse, metaspace},
                                                {fuse, fallback},
                                                {fallback, bytes, strip},
                                                {fuse, strip, ends},
                                                {ends, pieces, fuse, ends},
                                                {words, bytes},
                                                {fuse, words}};
  for (const nlohmann::json& list : decoders) {
    nlohmann::json json = ascii_tokenizer({"a a", "a b", "_ a", "_ _"});
    json["decoder"] = {{"type", "Sequence"}, {"decoders", list}};
    const auto tokenizer = parse(json);
    std::mt19937 random(11);
    for (int round = 0; round < 40; ++round) {
      std::string text;
      for (int i = 0; i < 14; ++i) text += "aaab_b"[random() % 6];
      expect_equal_at_every_split(tokenizer, tokenizer->encode(text));
    }
  }
}

TEST(StreamDecoding, HoldsBackARunOfBytesUntilItEnds) {
  const auto tokenizer =
      load_tokenizer(testing::in_repository("tests/text/data/llama2.tokenizer.json"));
  StreamDecoder stream(tokenizer);
  const Ids word = tokenizer->encode("日");
  std::string text;
  for (const std::int32_t id : word) text += stream.push(id);
  EXPECT_EQ(text, "");
  EXPECT_EQ(stream.push(tokenizer->encode("a!").back()), "日!");
  // One byte that is wrong makes a U+FFFD of each in the run, as decode() says.
  EXPECT_EQ(stream.push(word.back()), "");
  EXPECT_EQ(stream.finish(), "\ufffd");
}

}  // namespace
}  // namespace memlayers::text
