// SPDX-License-Identifier: Apache-2.0
// The tokenizers of GGUF files. Ids beside those of tokenizers and SentencePiece:
// tests/python/test_gguf.py.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <utility>

#include "memlayers/tokenizer.h"
#include "support/temp_dir.h"
#include "support/testing.h"
#include "support/tiny_gguf.h"

namespace memlayers {
namespace {

using testing::error_of;
using testing::GgufBytes;
using testing::says;
using testing::TempDir;
using testing::write_file;
using Add = std::function<void(GgufBytes&)>;
using Ids = std::vector<std::int32_t>;

class GgufTokenizer : public ::testing::Test {
 protected:
  std::shared_ptr<const Tokenizer> load(const Add& add) {
    GgufBytes file;
    add(file);
    write_file(path_, file.bytes());
    return load_tokenizer(path_);
  }
  std::string error(const Add& add) {
    const std::string message = error_of([&] { load(add); });
    EXPECT_TRUE(says(message, {path_ + ": "}));
    EXPECT_EQ(message.find('\n'), std::string::npos);
    return message;
  }
  TempDir folder_;
  std::string path_ = folder_ / "model.gguf";
};

TEST_F(GgufTokenizer, OfBytes) {
  const auto tokenizer = load([](GgufBytes& file) { add_byte_tokenizer(file); });
  EXPECT_EQ(tokenizer->encode("ab a"), (Ids{5, 7}));
  EXPECT_EQ(tokenizer->decode(Ids{5, 7, 4}), "ab ac");
  EXPECT_EQ(tokenizer->bos(), 0);
  EXPECT_EQ(tokenizer->eos(), 1);
  EXPECT_TRUE(tokenizer->prefix().empty());
  EXPECT_EQ(tokenizer->vocab_size(), 8);
  EXPECT_EQ(tokenizer->encode_special("a<s>"), (Ids{2, 0}));
  EXPECT_EQ(tokenizer->file_name(), "tokenizer.json");
}

TEST_F(GgufTokenizer, ComesWithTheChatTemplate) {
  const auto tokenizer = load([](GgufBytes& file) {
    add_byte_tokenizer(file);
    file.text("tokenizer.chat_template", "{{ messages[0].content }}");
  });
  const std::pair<std::string, std::string> wanted{"chat_template.jinja",
                                                   "{{ messages[0].content }}"};
  EXPECT_EQ(std::ranges::count(tokenizer->files(), wanted), 1);
}

TEST_F(GgufTokenizer, OfScores) {
  const auto tokenizer = load([](GgufBytes& file) { testing::add_scored_tokenizer(file); });
  EXPECT_EQ(tokenizer->encode("ab"), (Ids{3, 7}));  // "ab" is the better one of two
  EXPECT_EQ(tokenizer->encode("a"), Ids{6});
  EXPECT_EQ(tokenizer->encode(" a"), (Ids{3, 6}));
  EXPECT_EQ(tokenizer->encode("c"), (Ids{3, 8 + 'c'}));
  EXPECT_EQ(tokenizer->prefix(), Ids{1});
  EXPECT_TRUE(tokenizer->suffix().empty());
  EXPECT_EQ(tokenizer->decode(Ids{1, 6, 8 + 'c', 3, 5}), "ac b");
  const auto bare = load([](GgufBytes& file) {
    testing::add_scored_tokenizer(file);
    file.flag("tokenizer.ggml.add_space_prefix", false);
    file.flag("tokenizer.ggml.add_bos_token", false);
    file.flag("tokenizer.ggml.add_eos_token", true);
  });
  EXPECT_EQ(bare->encode("a"), Ids{4});
  EXPECT_TRUE(bare->prefix().empty());
  EXPECT_EQ(bare->suffix(), Ids{2});
  EXPECT_EQ(bare->decode(Ids{3, 4}), " a");
}

TEST_F(GgufTokenizer, WhatIsPutAroundATextFollowsTheFile) {
  EXPECT_EQ(load([](GgufBytes& file) { add_byte_tokenizer(file, "llama-bpe"); })->prefix(), Ids{0});
  const auto both = load([](GgufBytes& file) {
    add_byte_tokenizer(file);
    file.flag("tokenizer.ggml.add_bos_token", true);
    file.flag("tokenizer.ggml.add_eos_token", true);
  });
  EXPECT_EQ(both->prefix(), Ids{0});
  EXPECT_EQ(both->suffix(), Ids{1});
}

TEST_F(GgufTokenizer, OfNoTypesKnowsTheTokensThatStandForSomething) {
  const auto tokenizer = load([](GgufBytes& file) {
    file.text("tokenizer.ggml.model", "gpt2");
    file.texts("tokenizer.ggml.tokens", {"", "a", "<end>"});
    file.texts("tokenizer.ggml.merges", {});
    file.number("tokenizer.ggml.eos_token_id", 2);
  });
  EXPECT_EQ(tokenizer->encode_special("a<end>"), (Ids{1, 2}));
  EXPECT_EQ(tokenizer->token(0), "[EMPTY_0]");
}

TEST_F(GgufTokenizer, WhatIsWrongIsRefusedByName) {
  const auto with = [&](const Add& add) {
    return error([&](GgufBytes& file) {
      add_byte_tokenizer(file);
      add(file);
    });
  };
  const auto made = [&](const std::vector<std::string>& tokens,
                        const std::vector<std::string>& merges) {
    return error([&](GgufBytes& file) {
      file.text("tokenizer.ggml.model", "gpt2");
      file.texts("tokenizer.ggml.tokens", tokens);
      file.texts("tokenizer.ggml.merges", merges);
    });
  };
  EXPECT_TRUE(says(error([](GgufBytes&) {}), {"expected a file with a tokenizer"}));
  EXPECT_TRUE(says(error([](GgufBytes& f) { f.texts("tokenizer.ggml.tokens", {"a"}); }),
                   {"a key \"tokenizer.ggml.model\""}));
  EXPECT_TRUE(says(error([](GgufBytes& f) {
                     f.text("tokenizer.ggml.model", "t5");
                     f.texts("tokenizer.ggml.tokens", {"a"});
                   }),
                   {"tokenizer.ggml.model: expected \"gpt2\" or \"llama\", got \"t5\""}));
  EXPECT_TRUE(says(error([](GgufBytes& f) { add_byte_tokenizer(f, "tekken"); }),
                   {"tokenizer.ggml.pre: expected one of \"default\", \"gpt-2\", \"llama-bpe\", "
                    "\"qwen2\", \"smollm\", got \"tekken\""}));
  EXPECT_TRUE(says(made({}, {}), {"tokenizer.ggml.tokens: expected 1 to"}));
  EXPECT_TRUE(says(made({"a", "b", "a"}, {}), {"tokens[2]: expected each token once, got \"a\""}));
  EXPECT_TRUE(says(made({"a", "\xFF"}, {}), {"tokens[1]: expected UTF-8"}));
  for (const std::string merge : {"a", "a c", "b a", "a  b", " ab", ""}) {
    EXPECT_TRUE(says(made({"a", "b", "ab"}, {"a b", merge}),
                     {"merges[1]: expected two tokens", "\"" + merge + "\""}));
  }
  EXPECT_TRUE(says(error([](GgufBytes& f) {
                     f.text("tokenizer.ggml.model", "gpt2");
                     f.texts("tokenizer.ggml.tokens", {"a"});
                   }),
                   {"a key \"tokenizer.ggml.merges\""}));
  EXPECT_TRUE(says(error([](GgufBytes& f) {
                     f.text("tokenizer.ggml.model", "llama");
                     f.texts("tokenizer.ggml.tokens", {"a", "<s>", "</s>"});
                   }),
                   {"a key \"tokenizer.ggml.scores\""}));
  const auto scored = [&](const std::vector<std::string>& tokens,
                          const std::vector<float>& scores) {
    return error([&](GgufBytes& f) {
      f.text("tokenizer.ggml.model", "llama");
      f.texts("tokenizer.ggml.tokens", tokens);
      f.list("tokenizer.ggml.scores", 6, scores);
    });
  };
  EXPECT_TRUE(says(scored({"a", "b", "c"}, {0, 0}), {"scores: expected 3 elements"}));
  EXPECT_TRUE(says(scored({"a", "b", "c"}, {0, 0, NAN}), {"scores: expected finite numbers"}));
  EXPECT_TRUE(says(scored({"a", "b", std::string(513, 'c')}, {0, 0, 0}),
                   {"expected tokens of at most 512 bytes, got one of 513 with id 2"}));
  std::vector<std::string> nested;
  for (std::size_t length = 1; length < 60; ++length) nested.emplace_back(length, 'a');
  EXPECT_TRUE(says(scored(nested, std::vector<float>(nested.size())),
                   {"put together in at most 16 ways on average"}));
  EXPECT_TRUE(says(with([](GgufBytes& f) { f.flag("tokenizer.ggml.add_sep_token", true); }),
                   {"add_sep_token: expected false"}));
  EXPECT_TRUE(says(with([](GgufBytes& f) {
                     f.list("tokenizer.ggml.suppress_tokens", 5, std::vector<std::int32_t>{1});
                   }),
                   {"suppress_tokens: expected none"}));
  EXPECT_TRUE(says(error([](GgufBytes& f) {
                     f.text("tokenizer.ggml.model", "gpt2");
                     f.texts("tokenizer.ggml.tokens", {"a"});
                     f.list("tokenizer.ggml.token_type", 5, std::vector<std::int32_t>{1, 1});
                     f.texts("tokenizer.ggml.merges", {});
                   }),
                   {"token_type: expected 1 elements"}));
  for (const std::string which : {"bos", "eos"}) {
    EXPECT_TRUE(says(error([&](GgufBytes& f) {
                       f.text("tokenizer.ggml.model", "gpt2");
                       f.texts("tokenizer.ggml.tokens", {"a"});
                       f.texts("tokenizer.ggml.merges", {});
                       f.flag("tokenizer.ggml.add_" + which + "_token", true);
                     }),
                     {"a key \"tokenizer.ggml." + which + "_token_id\""}));
  }
}

}  // namespace
}  // namespace memlayers
