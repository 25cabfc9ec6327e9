// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <numeric>
#include <thread>

#include "dist/collectives.h"
#include "support/testing.h"

namespace memlayers::dist {
namespace {

using memlayers::testing::error_of;
using memlayers::testing::says;

class Messages : public ::testing::Test {
 protected:
  std::shared_ptr<Communicator> group_ = world();
  int rank_ = group_->rank(), size_ = group_->size();
  int next_ = (rank_ + 1) % size_, before_ = (rank_ + size_ - 1) % size_;
};

std::vector<std::byte> pattern(std::size_t size, int seed) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7 + seed);
  return bytes;
}

TEST_F(Messages, OfAnySizeGoAroundTheRing) {
  if (size_ == 1) GTEST_SKIP() << "one process has nobody to talk to";
  for (const std::size_t size : {0UL, 1UL, 4096UL, 3000001UL}) {
    const auto out = pattern(size, rank_);
    std::vector<std::byte> in(size);
    const auto known = group_->receive(before_, 20, in, nullptr);
    const auto unknown = group_->receive(before_, 21);
    const auto sent = group_->send(next_, 20, out, nullptr);
    const auto sent_too = group_->send(next_, 21, out, nullptr);
    unknown->wait();
    known->wait();
    sent->wait();
    sent_too->wait();
    EXPECT_EQ(in, pattern(size, before_));
    const Message message = unknown->take();
    ASSERT_EQ(message.size, size);
    EXPECT_TRUE(std::equal(in.begin(), in.end(), message.bytes().begin()));
  }
}

TEST_F(Messages, AMessageOfAnotherSizeThanExpectedIsAnError) {
  if (size_ == 1) GTEST_SKIP();
  const auto out = pattern(8, 0);
  std::vector<std::byte> in(16);
  const auto received = group_->receive(before_, 22, in, nullptr);
  const auto sent = group_->send(next_, 22, out, nullptr);
  EXPECT_TRUE(says(error_of([&] { received->wait(); }),
                   {"rank " + std::to_string(before_), "expected 16 bytes, got 8"}));
  sent->wait();
}

TEST_F(Messages, AreTakenInAnyThread) {
  if (size_ == 1) GTEST_SKIP();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < 20; ++round) {
        const auto out = pattern(100, rank_ + t + round);
        const auto received = group_->receive(before_, 30 + t);
        const auto sent = group_->send(next_, 30 + t, out, nullptr);
        received->wait();
        sent->wait();
        const Message message = received->take();
        const auto wanted = pattern(100, before_ + t + round);
        EXPECT_TRUE(std::equal(wanted.begin(), wanted.end(), message.bytes().begin()));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(Messages, GatheringGivesEveryProcessAllBytesByRank) {
  const auto all = all_gather(*group_, pattern(static_cast<std::size_t>(rank_) * 5, rank_));
  ASSERT_EQ(all.size(), static_cast<std::size_t>(size_));
  for (int rank = 0; rank < size_; ++rank) {
    const auto wanted = pattern(static_cast<std::size_t>(rank) * 5, rank);
    const auto bytes = all[static_cast<std::size_t>(rank)].bytes();
    EXPECT_TRUE(std::equal(wanted.begin(), wanted.end(), bytes.begin(), bytes.end()));
  }
}

TEST_F(Messages, SumsAreMadeInPairsByRank) {
  // In another order these give another number.
  const auto one = [](int rank) { return rank == 0 ? 1e16 : 1.0; };
  const auto other = [](int rank) { return 0.1 * (rank + 1); };
  double numbers[] = {one(rank_), other(rank_)};
  sum_pairwise(*group_, numbers);
  const auto sum = [&](const auto& self, const auto& of, int begin, int end) -> double {
    if (end - begin == 1) return of(begin);
    const auto left = static_cast<int>(std::bit_floor(static_cast<unsigned>(end - begin - 1)));
    return self(self, of, begin, begin + left) + self(self, of, begin + left, end);
  };
  EXPECT_EQ(numbers[0], sum(sum, one, 0, size_));
  EXPECT_EQ(numbers[1], sum(sum, other, 0, size_));
}

TEST_F(Messages, ASumOfDifferentNumbersOfNumbersIsAnError) {
  if (size_ == 1) GTEST_SKIP();
  std::vector<double> numbers(static_cast<std::size_t>(rank_));
  EXPECT_TRUE(says(error_of([&] { sum_pairwise(*group_, numbers); }), {"sum over processes"}));
}

TEST_F(Messages, BroadcastGivesAllWhatOneHas) {
  EXPECT_EQ(broadcast(*group_, "from " + std::to_string(rank_), size_ - 1),
            "from " + std::to_string(size_ - 1));
}

TEST_F(Messages, PartsOfTheWorldTalkAmongThemselves) {
  std::vector<int> members;  // those of this process's parity
  for (int rank = rank_ % 2; rank < size_; rank += 2) members.push_back(rank);
  const auto part = group_->part(members);
  EXPECT_EQ(part->size(), static_cast<int>(members.size()));
  EXPECT_EQ(members[static_cast<std::size_t>(part->rank())], rank_);
  double sum[] = {static_cast<double>(rank_)};
  sum_pairwise(*part, sum);
  EXPECT_EQ(sum[0], std::accumulate(members.begin(), members.end(), 0.0));
}

TEST_F(Messages, WhoDoesNotAnswerIsNamedWithHostAndStepByOneOfTheOthers) {
  if (size_ == 1) GTEST_SKIP();
  barrier(*group_);
  const auto before = group_->deadline();
  group_->set_step(17);
  const int lost = size_ - 1;
  std::vector<int> others(static_cast<std::size_t>(lost));
  std::iota(others.begin(), others.end(), 0);
  const int alone[] = {lost};
  const auto part = group_->part(rank_ == lost ? std::span<const int>(alone) : others);
  if (rank_ == lost) {
    std::this_thread::sleep_for(std::chrono::seconds(4));  // busy, as far as the others can see
  } else {
    double first[] = {0};
    // The last but one waits for the lost one, all others for those that wait.
    group_->set_deadline(std::chrono::milliseconds(300 + 100 * rank_));
    const auto transfer = group_->receive(rank_ + 1, 40);
    try {
      transfer->wait();
      ADD_FAILURE() << "expected an error";
    } catch (const PeerLost& error) {
      EXPECT_TRUE(says(error.what(), {"rank " + std::to_string(lost) + " on " + group_->host(lost),
                                      "did not answer", "in step 17"}));
      EXPECT_EQ(std::string(error.what()).find("rank 0"), std::string::npos) << error.what();
      first[0] = error.is_first() ? 1 : 0;
    }
    group_->set_deadline(before);
    sum_pairwise(*part, first);
    EXPECT_EQ(first[0], 1);
  }
}

TEST(World, IsOneProcessWithoutALauncher) {
  if (std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr) GTEST_SKIP();
  EXPECT_EQ(world()->size(), 1);
  EXPECT_TRUE(says(error_of([] { world()->receive(1, 20); }), {"rank 1", "one process"}));
}

}  // namespace
}  // namespace memlayers::dist
