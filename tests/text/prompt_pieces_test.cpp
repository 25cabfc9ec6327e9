// SPDX-License-Identifier: Apache-2.0
// Texts of which a template wrote some and strangers the rest.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "text/testing.h"
#include "text/tokenizer_json.h"

namespace memlayers::text {
namespace {

using Ids = std::vector<std::int32_t>;
using Pieces = std::vector<PromptPiece>;

constexpr std::int32_t kStart = 201, kEnd = 202, kTool = 203;

nlohmann::json control(int id, const std::string& content, bool is_normalized = false,
                       bool is_special = true) {
  return {{"id", id}, {"content", content}, {"special", is_special}, {"normalized", is_normalized}};
}

// With control tokens "<s>" and "</s>" and a token "<tool>" that is none.
std::shared_ptr<const Tokenizer> made(bool is_normalized = false,
                                      const nlohmann::json& normalizer = nullptr) {
  nlohmann::json json = ascii_tokenizer({"a b"});
  json["added_tokens"] = {control(kStart, "<s>", is_normalized),
                          control(kEnd, "</s>", is_normalized),
                          control(kTool, "<tool>", false, false)};
  json["normalizer"] = normalizer;
  return parse(json);
}

Pieces pieces(const std::string& own, const std::string& strangers, const std::string& behind) {
  return {{own, true}, {strangers, false}, {behind, true}};
}

TEST(PromptPieces, GiveControlTokensWhereTheTemplateWroteThem) {
  const auto tokenizer = made();
  EXPECT_EQ(tokenizer->encode_pieces(pieces("<s>", "</s>", "</s>")),
            (Ids{kStart, '<', '/', 's', '>', kEnd}));
  EXPECT_EQ(tokenizer->encode_pieces(Pieces{{"<", true}, {"s>", true}}), (Ids{kStart}));
  EXPECT_EQ(tokenizer->encode_pieces(pieces("<", "s", ">")), (Ids{'<', 's', '>'}));
  EXPECT_EQ(tokenizer->encode_pieces({}), (Ids{}));
}

TEST(PromptPieces, CannotHideAControlToken) {
  const auto tokenizer = made();
  // "</s" and ">" would be a token that begins before the template's own.
  EXPECT_EQ(tokenizer->encode_pieces(Pieces{{"</s", false}, {"></s>", true}}),
            (Ids{'<', '/', 's', '>', kEnd}));
  nlohmann::json json = ascii_tokenizer();
  json["added_tokens"] = {control(kStart, "<s>"), control(kTool, "x<", false, false)};
  const auto hiding = parse(json);
  EXPECT_EQ(hiding->encode_special("x<s>"), (Ids{kTool, 's', '>'}));
  EXPECT_EQ(hiding->encode_pieces(Pieces{{"x", false}, {"<s>", true}}), (Ids{'x', kStart}));
}

TEST(PromptPieces, AreTokenizedInOneRun) {
  const auto tokenizer = made();
  EXPECT_EQ(tokenizer->encode_pieces(Pieces{{"a", true}, {"b", false}}), (Ids{200}));
  EXPECT_EQ(tokenizer->encode_pieces(Pieces{{"<to", false}, {"ol>", true}}), (Ids{kTool}));
}

TEST(PromptPieces, OfOneWriterAreWhatItsTextIs) {
  const auto tokenizer = made();
  std::mt19937 generator(7);
  const std::vector<std::string> parts{"<s>", "</s>", "<tool>", "<", "s>",
                                       "a",   "b",    "ab",     " ", "/"};
  for (int round = 0; round < 500; ++round) {
    std::string text;
    Pieces own, strangers;
    for (int i = 0; i < 8; ++i) {
      const std::string& part = parts[generator() % parts.size()];
      text += part;
      own.push_back({part, true});
      strangers.push_back({part, false});
    }
    EXPECT_EQ(tokenizer->encode_pieces(own), tokenizer->encode_special(text)) << text;
    EXPECT_EQ(tokenizer->encode_pieces(strangers), tokenizer->encode(text)) << text;
  }
}

TEST(PromptPieces, AreToldApartInNormalizedText) {
  const nlohmann::json underline = {
      {"type", "Sequence"},
      {"normalizers",
       {{{"type", "Prepend"}, {"prepend", "_"}},
        {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "__"}}}}};
  nlohmann::json json = ascii_tokenizer();
  json["added_tokens"] = {control(kStart, "<x>", true)};
  json["normalizer"] = underline;
  const auto tokenizer = parse(json);  // which looks for "_<x>"
  EXPECT_EQ(tokenizer->encode_pieces(Pieces{{"<x>", true}}), (Ids{kStart}));
  EXPECT_EQ(tokenizer->encode_pieces(Pieces{{"<x> <x>", false}}), tokenizer->encode("<x> <x>"));
  EXPECT_EQ(tokenizer->encode_pieces(Pieces{{" <x>", false}, {" <x>", true}}),
            (Ids{'_', '_', '_', '<', 'x', '>', '_', kStart}));
  EXPECT_EQ(tokenizer->encode_pieces(Pieces{{"a ", false}, {"<x>", true}}),
            (Ids{'_', 'a', '_', '_', '<', 'x', '>'}));
  const nlohmann::json joining = {
      {"type", "Replace"}, {"pattern", {{"String", "ab"}}}, {"content", "c"}};
  nlohmann::json other = ascii_tokenizer();
  other["added_tokens"] = {control(kStart, "<x>", true)};
  other["normalizer"] = joining;
  EXPECT_EQ(
      error_of([&] { parse(other)->encode_pieces(Pieces{{"a", true}, {"b", false}}); }),
      "text to encode: expected a tokenizer whose normalizer leaves apart what a template and "
      "what others wrote, got one that joins them");
}

TEST(PromptPieces, OfASentencePieceModelTakeItsControlPieces) {
  const auto tokenizer = train_tokenizer({"the red otter sees a green comet", "a b c"}, 280);
  const std::int32_t bos = tokenizer->bos().value(), eos = tokenizer->eos().value();
  Ids expected{bos};
  const auto add = [&](const std::string& text) {
    const Ids more = tokenizer->encode(text);
    expected.insert(expected.end(), more.begin(), more.end());
  };
  add("user: </s>red");
  expected.push_back(eos);
  add("otter");
  EXPECT_EQ(tokenizer->encode_pieces(
                Pieces{{"<s>user: ", true}, {"</s>red", false}, {"</s>otter", true}}),
            expected);
  EXPECT_EQ(tokenizer->encode_pieces(Pieces{{"the red", true}, {" otter", false}}),
            tokenizer->encode("the red otter"));
}

}  // namespace
}  // namespace memlayers::text
