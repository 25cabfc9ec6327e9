// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/kernel_testing.h"

namespace memlayers::kernels {
namespace {

class BlockScreenOf : public EachIsa {
 protected:
  void SetUp() override {
    if (kernel().block_screen == nullptr) GTEST_SKIP() << "float32 products are as fast here";
  }
  const BlockScreen& screen() const { return *kernel().block_screen; }
};

struct Problem {
  std::int64_t n, width, count;
  std::vector<float> keys, queries;
};

// Keys and queries of very different sizes, some of zeros, some with one large number.
Problem problem(std::int64_t n, std::int64_t width, std::int64_t count) {
  Problem p{n, width, count, normal(n * width, 1), normal(count * width, 2)};
  const auto spoil = [&](std::vector<float>& rows, std::int64_t length) {
    for (std::int64_t r = 0; r < length; ++r) {
      float* const row = rows.data() + r * width;
      const float size = r % 7 == 3 ? 100.F : r % 5 == 2 ? 1e-3F : 1.F;
      for (std::int64_t c = 0; c < width; ++c) row[c] *= r % 11 == 10 ? 0 : size;
      if (r % 13 == 5) row[r % width] = 50;
    }
  };
  spoil(p.keys, n);
  spoil(p.queries, count);
  return p;
}

// A problem, packed.
struct Packed {
  std::int64_t padded;
  std::vector<std::int8_t> key_numbers;
  std::vector<std::uint8_t> query_numbers;
  std::vector<float> floats;
  std::vector<std::int32_t> starts;
  ScreenKeys keys;
  ScreenQueries queries;
  bool is_small = true;

  Packed(const BlockScreen& screen, const Problem& p)
      : padded(round_up(p.n, kScreenGroup)),
        key_numbers(static_cast<std::size_t>(padded * round_up(p.width, 4))),
        query_numbers(static_cast<std::size_t>(p.count * round_up(p.width, 16))),
        floats(static_cast<std::size_t>(3 * padded + 3 * p.count)),
        starts(static_cast<std::size_t>(padded)) {
    float* at = floats.data();
    keys = {p.n, p.width, key_numbers.data(), at, at + padded, at + 2 * padded, starts.data()};
    at += 3 * padded;
    queries = {round_up(p.width, 16), query_numbers.data(), at, at + p.count, at + 2 * p.count};
    for (std::int64_t i = 0; i < p.n; i += kScreenGroup) {
      const bool group =
          screen.pack_keys(p.keys.data() + i * p.width, std::min(kScreenGroup, p.n - i), p.width,
                           keys, i / kScreenGroup);
      is_small = is_small && group;
    }
    for (std::int64_t t = 0; t < p.count; ++t) {
      screen.pack_query(p.queries.data() + t * p.width, p.width, queries, t);
    }
  }
};

double exact(const Problem& p, std::int64_t t, std::int64_t i) {
  double sum = 0;
  for (std::int64_t c = 0; c < p.width; ++c) {
    sum += static_cast<double>(p.queries[static_cast<std::size_t>(t * p.width + c)]) *
           p.keys[static_cast<std::size_t>(i * p.width + c)];
  }
  return sum;
}

const std::vector<Problem>& problems() {
  static const std::vector<Problem> all = {problem(1, 1, 1),    problem(15, 3, 2),
                                           problem(16, 4, 3),   problem(33, 17, 9),
                                           problem(100, 64, 8), problem(310, 100, 13)};
  return all;
}

TEST_P(BlockScreenOf, BoundsAreAboveEveryScoreAndCloseToIt) {
  for (const Problem& p : problems()) {
    const Packed packed(screen(), p);
    EXPECT_TRUE(packed.is_small);
    std::vector<float> high(static_cast<std::size_t>(p.count * p.n));
    screen().bound(packed.keys, packed.queries, p.count, high.data());
    for (std::int64_t t = 0; t < p.count; ++t) {
      const auto u = static_cast<std::size_t>(t);
      for (std::int64_t i = 0; i < p.n; ++i) {
        const double score = exact(p, t, i);
        const float got = high[static_cast<std::size_t>(t * p.n + i)];
        ASSERT_GE(got, score) << "width " << p.width << " query " << t << " key " << i;
        const double margin = packed.queries.norm[u] * packed.keys.error[i] +
                              packed.queries.error[u] * packed.keys.norm[i];
        ASSERT_LE(got, score + 2.01 * margin) << "width " << p.width;
        // Half a step in each column is what eight bits lose: sqrt(width) / 254 of |k|, at most.
        ASSERT_LE(packed.keys.error[i],
                  packed.keys.norm[i] * std::sqrt(static_cast<double>(p.width)) / 250 + 1e-30);
      }
    }
  }
}

TEST_P(BlockScreenOf, CandidatesHoldTheBest) {
  for (const Problem& p : problems()) {
    const Packed packed(screen(), p);
    std::vector<float> high(static_cast<std::size_t>(p.count * p.n));
    screen().bound(packed.keys, packed.queries, p.count, high.data());
    for (std::int64_t k : {std::int64_t{1}, (p.n + 7) / 8, (p.n + 1) / 2, p.n}) {
      std::vector<std::byte> scratch(top_k_scratch_bytes(p.n, k));
      std::vector<std::int32_t> index(static_cast<std::size_t>(p.n + 64));
      for (std::int64_t t = 0; t < p.count; ++t) {
        const std::int64_t m =
            screen().candidates(packed.keys, packed.queries.norm[t], packed.queries.error[t],
                                high.data() + t * p.n, k, index.data(), scratch.data());
        ASSERT_GE(m, k);
        ASSERT_LE(m, p.n);
        ASSERT_TRUE(std::is_sorted(index.begin(), index.begin() + m));
        std::vector<double> scores;
        for (std::int64_t i = 0; i < p.n; ++i) scores.push_back(exact(p, t, i));
        std::vector<double> sorted = scores;
        std::sort(sorted.begin(), sorted.end(), std::greater<>());
        for (std::int64_t i = 0; i < p.n; ++i) {
          if (scores[static_cast<std::size_t>(i)] <= sorted[static_cast<std::size_t>(k - 1)]) {
            continue;
          }
          ASSERT_TRUE(std::binary_search(index.begin(), index.begin() + m, i))
              << "n " << p.n << " k " << k << " query " << t << " key " << i;
        }
      }
    }
  }
}

TEST_P(BlockScreenOf, RejectsMostKeysOfNormalNumbers) {
  const Problem p{1024, 256, 4, normal(1024 * 256, 1), normal(4 * 256, 2)};
  const Packed packed(screen(), p);
  std::vector<float> high(static_cast<std::size_t>(p.count * p.n));
  screen().bound(packed.keys, packed.queries, p.count, high.data());
  std::vector<std::byte> scratch(top_k_scratch_bytes(p.n, 32));
  std::vector<std::int32_t> index(static_cast<std::size_t>(p.n + 64));
  for (std::int64_t t = 0; t < p.count; ++t) {
    const std::int64_t m =
        screen().candidates(packed.keys, packed.queries.norm[t], packed.queries.error[t],
                            high.data() + t * p.n, 32, index.data(), scratch.data());
    EXPECT_LT(m, 200);
  }
}

TEST_P(BlockScreenOf, ScoresAreProductsAndDependOnTheirKeyAlone) {
  for (const Problem& p : problems()) {
    std::vector<std::int32_t> index(static_cast<std::size_t>(p.n));
    std::iota(index.begin(), index.end(), 0);
    std::reverse(index.begin(), index.end());
    std::vector<float> all(index.size());
    screen().score(p.keys.data(), p.width, index.data(), p.n, p.queries.data(), all.data());
    for (std::size_t j = 0; j < index.size(); ++j) {
      double size = 0;
      for (std::int64_t c = 0; c < p.width; ++c) {
        size += std::abs(static_cast<double>(p.queries[static_cast<std::size_t>(c)]) *
                         p.keys[static_cast<std::size_t>(index[j] * p.width + c)]);
      }
      EXPECT_NEAR(all[j], exact(p, 0, index[j]), 6e-8 * static_cast<double>(p.width + 2) * size);
      float alone = 0;
      screen().score(p.keys.data(), p.width, index.data() + j, 1, p.queries.data(), &alone);
      EXPECT_EQ(alone, all[j]);
    }
  }
}

TEST_P(BlockScreenOf, SaysWhichKeysAreNotForIt) {
  for (float bad : {std::nanf(""), INFINITY, -INFINITY, 1e16F}) {
    Problem p = problem(40, 20, 1);
    p.keys[17 * 20 + 19] = bad;
    EXPECT_FALSE(Packed(screen(), p).is_small) << bad;
    Problem q = problem(40, 20, 1);
    q.queries[3] = bad;
    const Packed packed(screen(), q);
    EXPECT_FALSE(packed.queries.norm[0] < kMostScreened) << bad;
  }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, BlockScreenOf,
                         ::testing::ValuesIn(supported().begin(), supported().end()), isa_name);

}  // namespace
}  // namespace memlayers::kernels
