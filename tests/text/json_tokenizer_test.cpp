// SPDX-License-Identifier: Apache-2.0
// Token ids and text are those of Hugging Face's tokenizers package; make_tokenizer_cases.py wrote
// the cases.
#include <gtest/gtest.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/file_system.h"
#include "memlayers/error.h"
#include "memlayers/tokenizer.h"
#include "support/temp_dir.h"
#include "text/tokenizer_file.h"

namespace memlayers::text {
namespace {

std::string data(const std::string& name) { return std::string(MEMLAYERS_TEST_DATA) + "/" + name; }

class JsonTokenizer : public ::testing::TestWithParam<std::string> {
 protected:
  std::shared_ptr<const Tokenizer> tokenizer_ =
      load_tokenizer(data(GetParam() + ".tokenizer.json"));
};

TEST_P(JsonTokenizer, EncodesAndDecodesAsTheOriginal) {
  const auto cases =
      nlohmann::json::parse(io::read_text(io::posix(), data(GetParam() + ".cases.json")));
  ASSERT_GT(cases.size(), 20U);
  for (const auto& item : cases) {
    const auto text = item.at("text").get<std::string>();
    const auto ids = item.at("ids").get<std::vector<std::int32_t>>();
    EXPECT_EQ(tokenizer_->encode(text), ids) << text;
    EXPECT_EQ(tokenizer_->decode(ids), item.at("decoded").get<std::string>()) << text;
  }
}

TEST_P(JsonTokenizer, ContinuationStandsBehindOneSpace) {
  for (const char* text : {"answer", " two", "x y", "1"}) {
    std::vector<std::int32_t> tokens = tokenizer_->encode("prompt");
    for (const std::int32_t token : tokenizer_->encode_continuation(text)) tokens.push_back(token);
    EXPECT_EQ(tokenizer_->decode(tokens), std::string("prompt ") + text);
  }
}

TEST_P(JsonTokenizer, SpellingASpecialTokenIsPlainText) {
  const std::vector<std::int32_t> tokens = tokenizer_->encode("a </s> <|end_of_text|> <s> b");
  for (const std::int32_t token : tokens) {
    EXPECT_NE(token, tokenizer_->bos().value());
    EXPECT_NE(token, tokenizer_->eos().value());
  }
}

INSTANTIATE_TEST_SUITE_P(EveryFamily, JsonTokenizer,
                         ::testing::Values("llama2", "metaspace_always", "metaspace_first",
                                           "llama3", "gpt2"),
                         [](const auto& tested) { return tested.param; });

// The error of a tokenizer.json in which the field at `pointer` was replaced.
std::string complaint(const std::string& pointer, const nlohmann::json& value) {
  auto json = nlohmann::json::parse(io::read_text(io::posix(), data("llama3.tokenizer.json")));
  json[nlohmann::json::json_pointer(pointer)] = value;
  try {
    parse_json_tokenizer("tokenizer.json", json.dump());
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(JsonTokenizerFile, WhatCannotBeDoneExactlyIsRefusedByName) {
  const auto names = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  names(complaint("/normalizer", {{"type", "NFC"}}), "normalizer");
  names(complaint("/model/type", "Unigram"), "BPE");
  names(complaint("/model/dropout", 0.1), "dropout");
  names(complaint("/pre_tokenizer/pretokenizers/0/behavior", "Removed"), "Isolated");
  names(complaint("/pre_tokenizer/pretokenizers/0/type", "Punctuation"), "pre-tokenizer");
  names(complaint("/decoder", {{"type", "WordPiece"}}), "decoder");
  names(complaint("/model/merges/0", "nonsense"), "merges[0]");
  names(complaint("/added_tokens/2/lstrip", true), "lstrip");
}

TEST(JsonTokenizerFile, AlteredBytesAreAnErrorAndNeverACrash) {
  const std::string whole = io::read_text(io::posix(), data("llama2.tokenizer.json"));
  EXPECT_THROW(parse_json_tokenizer("t", whole.substr(0, whole.size() / 2)), Error);
  EXPECT_THROW(parse_json_tokenizer("t", "[]"), Error);
  for (std::size_t at = 0; at < whole.size(); at += 37) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ (1 << (at % 7)));
    try {
      parse_json_tokenizer("t", changed)->encode("Hello world");
    } catch (const Error&) {
    }
  }
}

TEST(JsonTokenizerFile, ConfigNamesTheSpecialTokens) {
  const testing::TempDir folder;
  const std::string bytes = io::read_text(io::posix(), data("llama3.tokenizer.json"));
  io::write_atomic(io::posix(), folder / "tokenizer.json", bytes);
  io::write_atomic(io::posix(), folder / "tokenizer_config.json",
                   R"({"bos_token": null, "eos_token": {"content": "<|end_of_text|>"}})");
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_FALSE(tokenizer->bos());
  EXPECT_TRUE(tokenizer->eos());
  EXPECT_EQ(tokenizer->file_bytes(), bytes);
}

}  // namespace
}  // namespace memlayers::text
