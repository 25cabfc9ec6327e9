// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "support/temp_dir.h"
#include "text/dataset.h"
#include "text/letter_tokenizer.h"
#include "text/shuffle.h"
#include "text/testing.h"

namespace memlayers::text {
namespace {

using memlayers::testing::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
constexpr std::int32_t kBos = LetterTokenizer::kBos, kEos = LetterTokenizer::kEos;

struct Opened {
  TokenCache cache;
  bool was_built;
};

Opened open(const TempDir& dir, const std::vector<std::string>& paths,
            const Tokenizer& tokenizer = LetterTokenizer()) {
  bool was_built = false;
  auto cache = TokenCache::open_or_build(io::posix(), dir / "deep/cache", paths, DataFormat::kAuto,
                                         tokenizer, [&](auto, auto) { was_built = true; });
  return {std::move(cache), was_built};
}

std::string the_only_file(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().string());
  }
  EXPECT_EQ(names.size(), 1u);
  return names.front();
}

TEST(TokenCache, HoldsDocumentsBetweenBosAndEosWithTheLossOnTheAnswer) {
  const TempDir dir;
  write_file(dir / "a.jsonl", "{\"text\": \"ab\"}\n{\"prompt\": \"pq\", \"answer\": \"c\"}\n");
  const TokenCache cache = open(dir, {dir / "a.jsonl"}).cache;
  ASSERT_EQ(cache.documents(), 2);
  EXPECT_EQ(cache.tokens(), 10);
  EXPECT_THAT(cache.document(0), ElementsAre(kBos, 'a', 'b', kEos));
  EXPECT_EQ(cache.loss_from(0), 1);
  EXPECT_THAT(cache.document(1), ElementsAre(kBos, 'p', 'q', ' ', 'c', kEos));
  EXPECT_EQ(cache.loss_from(1), 3);
}

TEST(TokenCache, OfATokenizerWithoutBosAndEosHoldsTheTextAlone) {
  const TempDir dir;
  write_file(dir / "a.txt", "abc");
  const TokenCache cache = open(dir, {dir / "a.txt"}, LetterTokenizer(false)).cache;
  EXPECT_THAT(cache.document(0), ElementsAre('a', 'b', 'c'));
  EXPECT_EQ(cache.loss_from(0), 1);
}

TEST(TokenCache, IsMadeOnceForTheSameContentWhateverItsName) {
  const TempDir dir;
  write_file(dir / "a.txt", "abc");
  write_file(dir / "b.txt", "abc");
  EXPECT_TRUE(open(dir, {dir / "a.txt"}).was_built);
  EXPECT_FALSE(open(dir, {dir / "a.txt"}).was_built);
  EXPECT_FALSE(open(dir, {dir / "b.txt"}).was_built);
}

TEST(TokenCache, IsMadeAnewForOtherContentFormatAndTokenizer) {
  const TempDir dir;
  write_file(dir / "a.txt", "{\"text\": \"x\"}");
  write_file(dir / "a.jsonl", "{\"text\": \"x\"}");
  EXPECT_TRUE(open(dir, {dir / "a.txt"}).was_built);
  EXPECT_TRUE(open(dir, {dir / "a.jsonl"}).was_built);
  EXPECT_TRUE(open(dir, {dir / "a.txt"}, LetterTokenizer(false)).was_built);
  EXPECT_TRUE(open(dir, {dir / "a.txt", dir / "a.txt"}).was_built);
  write_file(dir / "a.txt", "{\"text\": \"y\"}");
  EXPECT_TRUE(open(dir, {dir / "a.txt"}).was_built);
}

TEST(TokenCache, IsMadeAgainWhereItsFileIsDamaged) {
  const TempDir dir;
  write_file(dir / "a.jsonl",
             "{\"text\": \"some text\"}\n{\"prompt\": \"p\", \"answer\": \"c\"}\n");
  {
    open(dir, {dir / "a.jsonl"});
  }
  const std::string path = the_only_file(dir / "deep/cache");
  const std::string good = read_file(path);
  const auto flip_is_found = [&](std::string bytes) {
    write_file(path, bytes);
    const Opened opened = open(dir, {dir / "a.jsonl"});
    EXPECT_EQ(opened.cache.documents(), 2);
    EXPECT_THAT(opened.cache.document(1), ElementsAre(kBos, 'p', ' ', 'c', kEos));
    return opened.was_built;
  };
  std::size_t flips = 0, found = 0;
  for (std::size_t at = 0; at < good.size(); at += 5, ++flips) {
    std::string bytes = good;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << (at % 8)));
    found += flip_is_found(bytes);
  }
  // What may be altered unnoticed is the padding of the header and nothing of the tokens.
  EXPECT_GE(found, flips - 64 / 5);
  for (std::size_t size = 0; size < good.size(); size += 37) {
    EXPECT_TRUE(flip_is_found(good.substr(0, size)));
  }
  EXPECT_EQ(read_file(path), good);
}

TEST(TokenCache, LeavesNothingBehindWhenTheDataAreWrong) {
  const TempDir dir;
  write_file(dir / "a.jsonl", "{\"text\": \"x\"}\n{\"text\": 1}\n");
  EXPECT_THAT(error_of([&] { open(dir, {dir / "a.jsonl"}); }), HasSubstr("a.jsonl:2: text"));
  EXPECT_FALSE(std::filesystem::exists(dir / "deep"));
}

}  // namespace
}  // namespace memlayers::text
