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
