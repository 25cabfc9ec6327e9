// SPDX-License-Identifier: Apache-2.0
#include "train/processes.h"

#include <gtest/gtest.h>

#include "support/temp_dir.h"
#include "text/letter_tokenizer.h"
#include "text/testing.h"

namespace memlayers::train {
namespace {

using memlayers::testing::TempDir;

// One of several processes that are not there: it talks to nobody.
class OneOf final : public Communicator {
 public:
  OneOf(int rank, int size) : rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const std::string& host(int) const override { return host_; }
  std::unique_ptr<Transfer> send(int, int, std::span<const std::byte>,
                                 std::shared_ptr<const void>) override {
    return nullptr;
  }
  std::unique_ptr<Transfer> receive(int, int, std::span<std::byte>,
                                    std::shared_ptr<const void>) override {
    return nullptr;
  }
  std::unique_ptr<Transfer> receive(int, int) override { return nullptr; }
  std::shared_ptr<Communicator> part(std::span<const int> members) override {
    return std::make_shared<OneOf>(0, static_cast<int>(members.size()));
  }
  void set_step(std::int64_t) override {}
  void set_deadline(Seconds) override {}
  Seconds deadline() const override { return Seconds(25); }

 private:
  int rank_, size_;
  std::string host_ = "nowhere";
};

std::shared_ptr<const text::TokenCache> documents() {
  const TempDir dir;
  std::string lines;
  for (char first = 'a'; first <= 'z'; ++first) {  // each document begins with its own letter
    lines += std::string("{\"text\": \"") + first + std::string(3 + (first * 7) % 9, 'x') + "\"}\n";
  }
  text::write_file(dir / "data.jsonl", lines);
  return std::make_shared<const text::TokenCache>(
      text::TokenCache::open_or_build(io::posix(), dir / "cache", {dir / "data.jsonl"},
                                      DataFormat::kAuto, text::LetterTokenizer()));
}

text::BatchStream stream_of(const std::shared_ptr<const text::TokenCache>& cache) {
  return {cache, {.batch_tokens = 60, .context = 16, .pack = false, .seed = 4}};
}

TEST(Processes, HaveWholeMicroBatchesWhereTheirNumberAllowsIt) {
  const auto cache = documents();
  std::vector<text::Batch> batches;
  text::BatchStream stream = stream_of(cache);
  for (int i = 0; i < 6; ++i) batches.push_back(stream.next());
  batches[3].target_tokens = 0;
  for (const int processes : {2, 3, 6}) {
    std::vector<text::Batch> all;
    for (int rank = 0; rank < processes; ++rank) {
      const auto shares =
          Processes(std::make_shared<OneOf>(rank, processes), {}).shares_of(batches);
      for (const Processes::Share& share : shares) all.push_back(share.batch);
      EXPECT_TRUE(shares[0].has_targets);
    }
    ASSERT_EQ(all.size(), batches.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
      EXPECT_EQ(all[i].rows, i == 3 ? 0 : batches[i].rows);
      EXPECT_EQ(all[i].input, i == 3 ? std::vector<std::int64_t>() : batches[i].input);
    }
  }
  const auto rows = Processes(std::make_shared<OneOf>(3, 4), {}).shares_of(batches);
  ASSERT_EQ(rows.size(), batches.size());
  EXPECT_LT(rows[0].batch.rows, batches[0].rows);
  EXPECT_FALSE(rows[3].has_targets);
}

TEST(Processes, SeeTheSameSamplesWhateverTheirNumberAndWhenItChanges) {
  const auto cache = documents();
  constexpr int kBatchesARun = 4;
  std::vector<std::int64_t> whole, parts;  // inputs in the order in which they are seen
  text::BatchStream stream = stream_of(cache);
  for (int i = 0; i < 4 * kBatchesARun; ++i) {
    const text::Batch batch = stream.next();
    whole.insert(whole.end(), batch.input.begin(), batch.input.end());
  }
  // A run is stopped and goes on with another number of processes, from the position alone.
  text::BatchStream::Position position;
  for (const int processes : {4, 2, 1, 3}) {
    text::BatchStream::Position next;
    std::vector<std::vector<std::int64_t>> seen(kBatchesARun);  // by all ranks, in their order
    for (int rank = 0; rank < processes; ++rank) {
      const Processes own(std::make_shared<OneOf>(rank, processes), {});
      text::BatchStream batches = stream_of(cache);
      batches.seek(position);
      for (auto& inputs : seen) {
        const text::Batch share = own.share_of(batches.next());
        inputs.insert(inputs.end(), share.input.begin(), share.input.end());
      }
      next = batches.position();
    }
    for (const auto& inputs : seen) parts.insert(parts.end(), inputs.begin(), inputs.end());
    position = next;
  }
  EXPECT_EQ(whole, parts);
}

}  // namespace
}  // namespace memlayers::train
