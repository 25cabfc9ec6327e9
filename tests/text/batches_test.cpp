// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "support/temp_dir.h"
#include "text/dataset.h"
#include "text/letter_tokenizer.h"
#include "text/shuffle.h"
#include "text/testing.h"

namespace memlayers::text {
namespace {

using memlayers::testing::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
constexpr std::int32_t kBos = LetterTokenizer::kBos, kEos = LetterTokenizer::kEos;
constexpr std::int64_t kPad = 999;

std::shared_ptr<const TokenCache> cache_of(const std::string& jsonl) {
  const TempDir dir;  // a mapping outlives its file's name
  write_file(dir / "data.jsonl", jsonl);
  return std::make_shared<const TokenCache>(TokenCache::open_or_build(
      io::posix(), dir / "cache", {dir / "data.jsonl"}, DataFormat::kAuto, LetterTokenizer()));
}

// Documents of many lengths, each different: "0", "1x", "2xx" ... a third of them behind a prompt.
std::shared_ptr<const TokenCache> many(int documents) {
  std::string jsonl;
  SplitMix64 random(5);
  for (int i = 0; i < documents; ++i) {
    const std::string text = std::to_string(i) + std::string(random.below(40), 'x');
    jsonl += i % 3 == 0 ? "{\"prompt\": \"" + text + "\", \"answer\": \"yes\"}\n"
                        : "{\"text\": \"" + text + "\"}\n";
  }
  return cache_of(jsonl);
}

std::vector<std::int64_t> values(const Batch& batch) {
  std::vector<std::int64_t> all = {batch.rows, batch.length, batch.tokens, batch.target_tokens};
  all.insert(all.end(), batch.input.begin(), batch.input.end());
  all.insert(all.end(), batch.target.begin(), batch.target.end());
  return all;
}

std::vector<Batch> epoch_of(BatchStream& stream) {
  std::vector<Batch> batches;
  const std::int64_t epoch = stream.position().epoch;
  while (stream.position().epoch == epoch) batches.push_back(stream.next());
  EXPECT_EQ(static_cast<std::int64_t>(batches.size()), stream.batches_in_epoch(epoch));
  return batches;
}

// Every (token, token to foretell) that the documents hold and the batches should.
std::map<std::pair<std::int64_t, std::int64_t>, int> pairs(const std::vector<Batch>& batches) {
  std::map<std::pair<std::int64_t, std::int64_t>, int> counts;
  for (const Batch& batch : batches) {
    std::int64_t tokens = 0, targets = 0;
    for (std::size_t i = 0; i < batch.input.size(); ++i) {
      tokens += batch.input[i] != kPad;
      if (batch.target[i] == kIgnored) continue;
      ++targets;
      ++counts[{batch.input[i], batch.target[i]}];
    }
    EXPECT_EQ(tokens, batch.tokens);
    EXPECT_EQ(targets, batch.target_tokens);
  }
  return counts;
}

std::map<std::pair<std::int64_t, std::int64_t>, int> pairs(const TokenCache& cache) {
  std::map<std::pair<std::int64_t, std::int64_t>, int> counts;
  for (std::int64_t d = 0; d < cache.documents(); ++d) {
    const auto tokens = cache.document(d);
    for (std::size_t i = 1; i < tokens.size(); ++i) {
      if (static_cast<std::int64_t>(i) >= cache.loss_from(d)) ++counts[{tokens[i - 1], tokens[i]}];
    }
  }
  return counts;
}

TEST(BatchStream, PutsOneDocumentInARowWithTheNextTokenAsTarget) {
  BatchStream stream(cache_of("{\"text\": \"ab\"}\n{\"prompt\": \"p\", \"answer\": \"cd\"}\n"),
                     {.pack = false, .shuffle = false, .pad_token = kPad});
  const Batch batch = stream.next();
  ASSERT_EQ(batch.rows, 2);
  ASSERT_EQ(batch.length, 5);
  EXPECT_THAT(batch.input, ElementsAre(kBos, 'a', 'b', kPad, kPad, kBos, 'p', ' ', 'c', 'd'));
  EXPECT_THAT(batch.target,
              ElementsAre('a', 'b', kEos, kIgnored, kIgnored, kIgnored, ' ', 'c', 'd', kEos));
  EXPECT_EQ(batch.tokens, 8);
  EXPECT_EQ(batch.target_tokens, 7);
}

TEST(BatchStream, SaysWhereTheDocumentsOfAPackedRowBegin) {
  const auto cache = cache_of("{\"text\": \"ab\"}\n{\"text\": \"cdefgh\"}\n{\"text\": \"i\"}\n");
  BatchOptions options{.batch_tokens = 12, .context = 6, .shuffle = false, .pad_token = kPad};
  BatchStream stream(cache, options);
  const Batch first = stream.next();  // the first and the beginning of the second; its rest
  EXPECT_THAT(first.input,
              ElementsAre(kBos, 'a', 'b', kEos, kBos, 'c', 'd', 'e', 'f', 'g', 'h', kEos));
  EXPECT_THAT(first.document_begin, ElementsAre(0, 0, 0, 0, 4, 4, 0, 0, 0, 0, 0, 0));
  const Batch last = stream.next();
  EXPECT_THAT(last.input, ElementsAre(kBos, 'i', kEos));
  EXPECT_TRUE(last.document_begin.empty());  // one document a row

  options.across_documents = true;
  EXPECT_TRUE(BatchStream(cache, options).next().document_begin.empty());
  options = {.pack = false};
  EXPECT_TRUE(BatchStream(cache, options).next().document_begin.empty());

  // Padding goes on with the last document of its row.
  BatchStream padded(cache,
                     {.batch_tokens = 24, .context = 8, .shuffle = false, .pad_token = kPad});
  const Batch both = padded.next();
  ASSERT_EQ(both.rows, 2);
  EXPECT_THAT(both.input, ElementsAre(kBos, 'a', 'b', kEos, kBos, 'c', 'd', 'e', 'f', 'g', 'h',
                                      kEos, kBos, 'i', kEos, kPad));
  EXPECT_THAT(both.document_begin, ElementsAre(0, 0, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0, 4, 4, 4, 4));
}

TEST(BatchStream, PacksDocumentsIntoRowsAcrossTheirEnds) {
  BatchStream stream(cache_of("{\"text\": \"ab\"}\n{\"prompt\": \"p\", \"answer\": \"cd\"}\n"),
                     {.batch_tokens = 8, .context = 4, .shuffle = false, .pad_token = kPad});
  const Batch first = stream.next();
  ASSERT_EQ(first.rows, 2);
  EXPECT_THAT(first.input, ElementsAre(kBos, 'a', 'b', kEos, kBos, 'p', ' ', 'c'));
  EXPECT_THAT(first.target, ElementsAre('a', 'b', kEos, kIgnored, kIgnored, ' ', 'c', 'd'));
  const Batch last = stream.next();
  ASSERT_EQ(last.rows, 1);
  EXPECT_THAT(last.input, ElementsAre('d', kEos));
  EXPECT_THAT(last.target, ElementsAre(kEos, kIgnored));
  EXPECT_EQ(stream.position().epoch, 1);
  EXPECT_EQ(stream.position().batch, 0);
}

TEST(BatchStream, ShowsEveryTokenOnceAnEpochWhateverTheSizes) {
  const auto cache = many(200);
  for (const bool pack : {true, false}) {
    for (const bool shuffle : {true, false}) {
      for (const std::int64_t batch_tokens : {1, 50, 256, 100'000}) {
        for (const std::int64_t context : {50, 64, 1000}) {
          BatchStream stream(cache, {.batch_tokens = batch_tokens,
                                     .context = context,
                                     .pack = pack,
                                     .shuffle = shuffle,
                                     .seed = 9,
                                     .pad_token = kPad});
          for (int epoch = 0; epoch < 2; ++epoch) {
            const std::vector<Batch> batches = epoch_of(stream);
            EXPECT_EQ(pairs(batches), pairs(*cache));
            for (const Batch& batch : batches) {
              EXPECT_TRUE(batch.rows == 1 || batch.rows * batch.length <= batch_tokens);
              EXPECT_LE(batch.length, context);
              EXPECT_EQ(static_cast<std::int64_t>(batch.input.size()), batch.rows * batch.length);
            }
          }
        }
      }
    }
  }
}

TEST(BatchStream, CutsPackedDocumentsLongerThanARowAndShortensThoseAlone) {
  const auto cache = cache_of("{\"text\": \"abcdefghij\"}\n");
  BatchStream packed(cache, {.batch_tokens = 4, .context = 4, .shuffle = false, .pad_token = kPad});
  EXPECT_EQ(pairs(epoch_of(packed)), pairs(*cache));
  BatchStream alone(cache, {.context = 4, .pack = false, .pad_token = kPad});
  const Batch batch = alone.next();
  EXPECT_THAT(batch.input, ElementsAre(kBos, 'a', 'b', 'c'));
  EXPECT_THAT(batch.target, ElementsAre('a', 'b', 'c', 'd'));
}

TEST(BatchStream, LeavesOutALastRowOfOneTokenWithoutTarget) {
  // BOS a b c d e f EOS: two rows of four would do, and with context 7 the EOS is left alone.
  const auto cache = cache_of("{\"text\": \"abcdef\"}\n");
  BatchStream stream(cache, {.context = 7, .shuffle = false, .pad_token = kPad});
  const std::vector<Batch> batches = epoch_of(stream);
  ASSERT_EQ(batches.size(), 1u);
  EXPECT_EQ(batches[0].rows, 1);
  EXPECT_EQ(pairs(batches), pairs(*cache));
}

TEST(BatchStream, IsTheSameForTheSameSeedAndAnotherInAnotherEpochOrWithAnotherSeed) {
  const auto cache = many(100);
  for (const bool pack : {true, false}) {
    const BatchOptions options = {
        .batch_tokens = 128, .context = 64, .pack = pack, .seed = 4, .pad_token = kPad};
    BatchOptions other = options;
    other.seed = 5;
    BatchStream a(cache, options), b(cache, options), c(cache, other);
    const auto flat = [](const std::vector<Batch>& batches) {
      std::vector<std::vector<std::int64_t>> all;
      for (const Batch& batch : batches) all.push_back(values(batch));
      return all;
    };
    const auto first = flat(epoch_of(a));
    EXPECT_EQ(first, flat(epoch_of(b)));
    EXPECT_NE(first, flat(epoch_of(c)));
    EXPECT_NE(first, flat(epoch_of(a)));
  }
}

TEST(BatchStream, SeeksToAnyPositionExactly) {
  const auto cache = many(60);
  for (const bool pack : {true, false}) {
    const BatchOptions options = {
        .batch_tokens = 200, .context = 64, .pack = pack, .seed = 4, .pad_token = kPad};
    BatchStream straight(cache, options);
    std::vector<std::pair<BatchStream::Position, std::vector<std::int64_t>>> expected;
    while (straight.position().epoch < 3) {
      const auto position = straight.position();
      expected.emplace_back(position, values(straight.next()));
    }
    BatchStream jumping(cache, options);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const auto& [position, batch] = expected[(i * 7 + 3) % expected.size()];
      jumping.seek(position);
      EXPECT_EQ(values(jumping.next()), batch);
    }
  }
}

TEST(BatchStream, PadsLittleWhenRowsAreOfLikeLength) {
  const auto cache = many(2000);
  BatchStream stream(cache, {.batch_tokens = 512, .pack = false, .seed = 1, .pad_token = kPad});
  std::int64_t tokens = 0, positions = 0;
  for (const Batch& batch : epoch_of(stream)) {
    tokens += batch.tokens;
    positions += batch.rows * batch.length;
  }
  EXPECT_GT(static_cast<double>(tokens), 0.93 * static_cast<double>(positions));
}

TEST(BatchStream, RejectsImpossibleOptionsAndPositions) {
  const auto cache = many(3);
  EXPECT_THAT(error_of([&] { BatchStream(cache, {.batch_tokens = 0}); }),
              HasSubstr("batch_tokens: expected at least 1, got 0"));
  EXPECT_THAT(error_of([&] { BatchStream(cache, {.context = -5}); }),
              HasSubstr("context: expected at least 1, got -5"));
  BatchStream stream(cache, {});
  EXPECT_THAT(error_of([&] { stream.seek({0, 1}); }),
              HasSubstr("expected a batch below 1 in epoch 0, got 1"));
  EXPECT_THAT(error_of([&] { stream.seek({0, -1}); }), HasSubstr("got -1"));
  EXPECT_THAT(error_of([&] { stream.seek({-1, 0}); }),
              HasSubstr("expected an epoch of at least 0"));
}

TEST(BatchStream, OfACacheThatIsCutMeanwhileIsAnErrorThatNamesIt) {
  const TempDir dir;
  std::string lines;
  for (int i = 0; i < 3000; ++i) lines += std::to_string(i) + "\n";
  write_file(dir / "data.txt", lines);
  for (const bool pack : {false, true}) {
    const auto cache = std::make_shared<const TokenCache>(TokenCache::open_or_build(
        io::posix(), dir / "cache", {dir / "data.txt"}, DataFormat::kLines, LetterTokenizer()));
    BatchStream stream(cache, {.batch_tokens = 64, .context = 16, .pack = pack});
    stream.next();
    const std::string file = (dir / "cache/") + io::posix().list(dir / "cache").at(0);
    std::filesystem::resize_file(file, 4096);
    for (int again = 0; again < 2; ++again) {
      try {
        for (int i = 0; i < 1000; ++i) stream.next();
        FAIL() << "expected an Error";
      } catch (const Error& error) {
        EXPECT_THAT(error.what(), AllOf(HasSubstr(file), HasSubstr("a file that was cut")));
      }
    }
  }
}

TEST(Shuffle, IsUniformAndFixedForASeed) {
  // 24 orders of 4 items, 24,000 draws: each expected 1,000 times, standard deviation 31.
  std::map<std::vector<int>, int> counts;
  SplitMix64 random(1);
  for (int i = 0; i < 24'000; ++i) {
    std::vector<int> items = {0, 1, 2, 3};
    shuffle(items, random);
    ++counts[items];
  }
  EXPECT_EQ(counts.size(), 24u);
  for (const auto& [items, count] : counts) EXPECT_NEAR(count, 1000, 5 * 31);
  // The first numbers of SplitMix64 from seed 1234567, as its authors publish them.
  SplitMix64 known(1234567);
  EXPECT_EQ(known.next(), 6457827717110365317u);
  EXPECT_EQ(known.next(), 3203168211198807973u);
}

}  // namespace
}  // namespace memlayers::text
