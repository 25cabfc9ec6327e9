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
#include "support/source_folder.h"
#include "support/temp_dir.h"
#include "text/testing.h"
#include "text/tokenizer_file.h"
#include "text/tokenizer_json.h"

namespace memlayers::text {
namespace {

std::string data(const std::string& name) {
  return testing::in_repository("tests/text/data/" + name);
}

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
  names(complaint("/normalizer", {{"type", "Other"}}), "normalizer");
  names(complaint("/model/type", "Other"), "BPE, Unigram, WordPiece or WordLevel");
  names(complaint("/model/dropout", 0.1), "dropout");
  names(complaint("/pre_tokenizer/pretokenizers/0/behavior", "Removes"), "Isolated");
  names(complaint("/pre_tokenizer/pretokenizers/0/type", "UnicodeScripts"), "pre-tokenizer");
  names(complaint("/decoder", {{"type", "CTC"}}), "decoder");
  names(complaint("/model/merges/0", "nonsense"), "merges[0]");
  names(complaint("/added_tokens/2/id", 7), "added_tokens[2]");
  names(complaint("/added_tokens/2/content", ""), "content");
  names(complaint("/post_processor", {{"type", "Other"}}), "post-processor");
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

// The tokens around a text, of a folder with this tokenizer.json and tokenizer_config.json.
struct Around {
  std::vector<std::string> before, behind;
  bool operator==(const Around&) const = default;
};

Around around(const nlohmann::json& post_processor, const std::string& config) {
  const testing::TempDir folder;
  auto json = nlohmann::json::parse(io::read_text(io::posix(), data("llama3.tokenizer.json")));
  json["post_processor"] = post_processor;
  io::write_atomic(io::posix(), folder / "tokenizer.json", json.dump());
  if (!config.empty()) {
    io::write_atomic(io::posix(), folder / "tokenizer_config.json", config);
  }
  const auto tokenizer = load_tokenizer(folder.path());
  const auto names = [&](const std::vector<std::int32_t>& ids) {
    std::vector<std::string> all;
    for (const std::int32_t id : ids) {
      all.push_back(id == tokenizer->bos()   ? "bos"
                    : id == tokenizer->eos() ? "eos"
                                             : std::to_string(id));
    }
    return all;
  };
  return {names(tokenizer->prefix()), names(tokenizer->suffix())};
}

constexpr const char* kNamed =
    R"("bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>")";

TEST(JsonTokenizerFile, SpecialTokensStandWhereThePostProcessorPutsThem) {
  const nlohmann::json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const auto token = [](const char* name) {
    return nlohmann::json{{"SpecialToken", {{"id", name}, {"type_id", 0}}}};
  };
  const auto wrap = [&](const nlohmann::json& single) {
    return nlohmann::json{{"type", "TemplateProcessing"}, {"single", single}};
  };
  const auto bos = token("<|begin_of_text|>"), eos = token("<|end_of_text|>");
  const std::string config = std::string("{") + kNamed + "}";
  EXPECT_EQ(around(nullptr, config), (Around{}));
  EXPECT_EQ(around({{"type", "ByteLevel"}}, config), (Around{}));
  EXPECT_EQ(around(wrap({bos, text}), ""), (Around{{"bos"}, {}}));
  EXPECT_EQ(around(wrap({bos, text, eos}), config), (Around{{"bos"}, {"eos"}}));
  EXPECT_EQ(around(wrap({bos, bos, text, eos}), config), (Around{{"bos", "bos"}, {"eos"}}));
  const nlohmann::json sequence = {
      {"type", "Sequence"},
      {"processors", {{{"type", "ByteLevel"}}, wrap({text, eos}), wrap({bos, text})}}};
  EXPECT_EQ(around(sequence, config), (Around{{"bos"}, {"eos"}}));
  const nlohmann::json several = {{"type", "TemplateProcessing"},
                                  {"single", {bos, text}},
                                  {"special_tokens", {{"<|begin_of_text|>", {{"ids", {7, 8}}}}}}};
  EXPECT_EQ(around(several, config), (Around{{"7", "8"}, {}}));
  const nlohmann::json roberta = {
      {"type", "RobertaProcessing"}, {"cls", {"x", 7}}, {"sep", {"y", 8}}};
  EXPECT_EQ(around(roberta, config), (Around{{"7"}, {"8"}}));
}

// tests/python/test_transformers.py has transformers beside it.
TEST(JsonTokenizerFile, AddBosAndAddEosOfTheConfigChangeNothingBesideTokenizerJson) {
  const nlohmann::json roberta = {
      {"type", "RobertaProcessing"}, {"cls", {"x", 7}}, {"sep", {"y", 8}}};
  for (const char* fields :
       {R"("add_bos_token": true)", R"("add_bos_token": false)", R"("add_eos_token": true)"}) {
    const std::string config = std::string("{") + kNamed + ", " + fields + "}";
    EXPECT_EQ(around(roberta, config), (Around{{"7"}, {"8"}})) << fields;
    EXPECT_EQ(around(nullptr, config), (Around{})) << fields;
  }
}

TEST(JsonTokenizerFile, ADocumentEndsWithOneEos) {
  for (const char* name : {"llama2", "llama3", "gpt2"}) {
    const auto tokenizer = load_tokenizer(data(std::string(name) + ".tokenizer.json"));
    const std::vector<std::int32_t> prompt = tokenizer->encode_prompt("a text");
    std::vector<std::int32_t> wanted = tokenizer->encode("a text");
    wanted.insert(wanted.begin(), tokenizer->bos().value());
    EXPECT_EQ(prompt, wanted);
    wanted.push_back(tokenizer->eos().value());
    EXPECT_EQ(tokenizer->encode_document("a text"), wanted);
  }
}

// What the decoder makes of "aa", "b" and "a".
TEST(JsonTokenizerFile, DecodersSayWhatStandsBetweenTokens) {
  const auto decoded = [](const nlohmann::json& decoder) {
    nlohmann::json json = ascii_tokenizer({"a a"});
    json["decoder"] = decoder;
    return parse(json)->decode(std::vector<std::int32_t>{200, 'b', 'a'});
  };
  EXPECT_EQ(decoded(nullptr), "aa b a");
  EXPECT_EQ(decoded({{"type", "WordPiece"}, {"prefix", "b"}, {"cleanup", false}}), "aa a");
  EXPECT_EQ(decoded({{"type", "BPEDecoder"}, {"suffix", "a"}}), "  b");
  EXPECT_EQ(decoded({{"type", "Strip"}, {"content", "a"}, {"start", 1}, {"stop", 1}}), "b");
}

TEST(JsonTokenizerFile, ModelsOfWholeWordsAndOfPieces) {
  nlohmann::json json = ascii_tokenizer();
  json["pre_tokenizer"] = {{"type", "BertPreTokenizer"}};
  json["model"] = {{"unk_token", "?"},
                   {"continuing_subword_prefix", "##"},
                   {"max_input_chars_per_word", 5},
                   {"vocab", {{"?", 0}, {"ab", 1}, {"##c", 2}, {"a", 3}, {"##bcd", 4}, {"!", 5}}}};
  const auto encode = [&](const char* text) { return parse(json)->encode(text); };
  EXPECT_EQ(encode("abc! abcd abcc"), (std::vector<std::int32_t>{1, 2, 5, 0, 1, 2, 2}));
  EXPECT_EQ(encode("abcccc"), std::vector<std::int32_t>{0});  // too long
  json["model"].erase("max_input_chars_per_word");            // then of whole words
  EXPECT_EQ(encode("ab abc!"), (std::vector<std::int32_t>{1, 0, 5}));
  json["model"]["unk_token"] = "none";
  EXPECT_NE(error_of([&] { encode("x\x1b"); }).find("no unknown token"), std::string::npos);
  json["model"]["vocab"][""] = 9;
  EXPECT_NE(error_of([&] { encode("a"); }).find("not empty"), std::string::npos);
}

TEST(JsonTokenizerFile, DepthAndGrowthHaveBounds) {
  const std::string deep =
      "{\"model\":" + std::string(100'000, '[') + std::string(100'000, ']') + "}";
  EXPECT_NE(error_of([&] { parse_json_tokenizer("t", deep); }).find("nested"), std::string::npos);
  nlohmann::json json = ascii_tokenizer();
  const nlohmann::json tenfold = {
      {"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aaaaaaaaaa"}};
  json["normalizer"] = {{"type", "Sequence"},
                        {"normalizers", std::vector<nlohmann::json>(12, tenfold)}};
  EXPECT_EQ(error_of([&] { parse(json)->encode("banana"); }),
            "text to encode: expected the tokenizer's normalizer to make at most 1048960 bytes of "
            "it, got more");
  EXPECT_EQ(parse(json)->encode("b"), std::vector<std::int32_t>{'b'});
  json["normalizer"]["normalizers"] = std::vector<nlohmann::json>(257, tenfold);
  EXPECT_NE(error_of([&] { parse(json); }).find("at most 256 normalizers"), std::string::npos);
  json["normalizer"] = nullptr;
  json["decoder"] = {{"type", "Sequence"}, {"decoders", std::vector<nlohmann::json>(12, tenfold)}};
  EXPECT_NE(error_of([&] {
              parse(json)->decode(std::vector<std::int32_t>{'a'});
            }).find("tokens to decode: expected the tokenizer's decoder"),
            std::string::npos);
}

TEST(JsonTokenizerFile, FoldingsOfOneCharacterToSeveralAreRefused) {
  const auto with = [](const std::string& regex) {
    return complaint("/pre_tokenizer/pretokenizers/0/pattern", {{"Regex", regex}});
  };
  for (const char* fine : {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\\p{L}+", "'(?i:[sdmt]|ll|ve|re)|ss|ﬁ",
                           "(?:ss)(?i:s)", "(?i:s|s)"}) {
    EXPECT_EQ(with(fine), "") << fine;
  }
  for (const char* bad : {"(?i:ss)", "(?i:Fi)", "(?i:(?:s)t)", "(?i:s+s)", "(?i:ß)", "(?i:[ß])",
                          "(?i:[^a])", "(?i:\\p{L})", "(?i:[a\\P{L}])"}) {
    EXPECT_NE(with(bad).find("a regular expression without"), std::string::npos) << bad;
  }
}

TEST(JsonTokenizerFile, ConfigThatChangesIdsIsHonouredOrRefused) {
  const testing::TempDir folder;
  io::write_atomic(io::posix(), folder / "tokenizer.json",
                   io::read_text(io::posix(), data("gpt2.tokenizer.json")));
  const auto with = [&](const std::string& config) {
    io::write_atomic(io::posix(), folder / "tokenizer_config.json", config);
    try {
      load_tokenizer(folder.path());
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(with(R"({"add_prefix_space": true})"), "");  // transformers' own class passes it over
  EXPECT_EQ(with(R"({"add_prefix_space": false, "tokenizer_class": "GPT2Tokenizer"})"), "");
  EXPECT_EQ(with(R"({"clean_up_tokenization_spaces": true})"), "");  // nothing to a BPE
  EXPECT_NE(with(R"({"add_prefix_space": true, "tokenizer_class": "GPT2Tokenizer"})")
                .find("tokenizer_config.json: add_prefix_space: expected false"),
            std::string::npos);
  EXPECT_NE(with(R"({"fix_mistral_regex": true})").find("fix_mistral_regex"), std::string::npos);
  EXPECT_NE(with(R"({"added_tokens_decoder": {"x": {"content": "a"}}})").find("under its id"),
            std::string::npos);
}

TEST(JsonTokenizerFile, SpecialTokensMapNamesWhatConfigDoesNot) {
  const testing::TempDir folder;
  const std::string bytes = io::read_text(io::posix(), data("gpt2.tokenizer.json"));
  const std::string map = R"({"bos_token": {"content": "<|end_of_text|>"}})";
  io::write_atomic(io::posix(), folder / "tokenizer.json", bytes);
  io::write_atomic(io::posix(), folder / "special_tokens_map.json", map);
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->bos(), tokenizer->eos());
  EXPECT_EQ(tokenizer->files(),
            (TokenizerFiles{{"tokenizer.json", bytes}, {"special_tokens_map.json", map}}));
}

TEST(TokenizerFile, OfAnotherKindIsNamed) {
  const testing::TempDir folder;
  const auto message = [&](const std::string& bytes) {
    const std::string path = folder / "tokenizer.model";
    io::write_atomic(io::posix(), path, bytes);
    return error_of([&] { load_tokenizer(folder.path()); });
  };
  EXPECT_NE(message("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n")
                .find("got a Git LFS pointer"),
            std::string::npos);
  EXPECT_NE(message("IQ== 0\nIg== 1\nIw== 2\n").find("got a vocabulary of tiktoken"),
            std::string::npos);
  EXPECT_NE(message("GGUF\x03").find("got a GGUF file"), std::string::npos);
}

}  // namespace
}  // namespace memlayers::text
