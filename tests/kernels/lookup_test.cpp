// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/kernel_testing.h"

namespace memlayers::kernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

bool is_better(float a, float b) {  // NaN above all numbers
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && !std::isnan(b);
  return a > b;
}

std::vector<std::int32_t> plain_top_k(const std::vector<float>& scores, std::int64_t k) {
  std::vector<std::int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return is_better(scores[static_cast<std::size_t>(a)], scores[static_cast<std::size_t>(b)]);
  });
  order.resize(static_cast<std::size_t>(k));
  return order;
}

struct alignas(64) Line {
  std::byte bytes[64];
};

struct TopK {
  std::vector<float> best;
  std::vector<std::int32_t> index;
};

TopK top_k(const Kernels& kernel, const std::vector<float>& scores, std::int64_t k) {
  const auto n = static_cast<std::int64_t>(scores.size());
  TopK result{std::vector<float>(static_cast<std::size_t>(k)),
              std::vector<std::int32_t>(static_cast<std::size_t>(k))};
  std::vector<Line> scratch(top_k_scratch_bytes(n, k) / 64 + 1);
  kernel.top_k(scores.data(), n, k, result.best.data(), result.index.data(), scratch.data());
  return result;
}

class Lookup : public EachIsa {
 protected:
  void expect_top_k(const std::vector<float>& scores, std::int64_t k, const char* what) {
    const TopK got = top_k(kernel(), scores, k);
    ASSERT_EQ(got.index, plain_top_k(scores, k)) << what << " n " << scores.size() << " k " << k;
    for (std::size_t i = 0; i < got.best.size(); ++i) {
      const float wanted = scores[static_cast<std::size_t>(got.index[i])];
      ASSERT_EQ(std::bit_cast<std::uint32_t>(got.best[i]), std::bit_cast<std::uint32_t>(wanted));
    }
  }
};

TEST_P(Lookup, TopKIsTheStableSortsBeginning) {
  for (std::int64_t n : {1, 2, 15, 16, 17, 100, 127, 256, 1000, 4099}) {
    const std::vector<float> random = normal(n, 1);
    std::vector<float> up = random, ties = random, odd = random, signs = random;
    std::sort(up.begin(), up.end());
    std::vector<float> down(up.rbegin(), up.rend());
    for (float& x : ties) x = std::round(x);
    for (float& x : signs) x = x > 0 ? 0.0F : -0.0F;
    for (std::size_t i = 0; i < odd.size(); i += 5) {
      odd[i] = i % 3 == 0 ? kNan : i % 3 == 1 ? kInfinity : -kInfinity;
    }
    for (std::int64_t k : {1, 2, 7, 16, 32, 64, 100, 1000}) {
      if (k > n) continue;
      expect_top_k(random, k, "random");
      expect_top_k(up, k, "up");
      expect_top_k(down, k, "down");
      expect_top_k(ties, k, "ties");
      expect_top_k(odd, k, "NaN and infinities");
      expect_top_k(signs, k, "zeros of both signs");
      expect_top_k(std::vector<float>(static_cast<std::size_t>(n), 1.5F), k, "equal");
      expect_top_k(std::vector<float>(static_cast<std::size_t>(n), kNan), k, "all NaN");
      expect_top_k(std::vector<float>(static_cast<std::size_t>(n), -kInfinity), k, "all -inf");
    }
    expect_top_k(random, n, "all of them");
  }
}

// The best k of the whole n x n grid, by brute force: scores in descending order.
std::vector<float> plain_grid(const std::vector<float>& r, const std::vector<float>& c,
                              std::int64_t k) {
  std::vector<float> sums;
  for (float a : r) {
    for (float b : c) sums.push_back(a + b);
  }
  std::sort(sums.begin(), sums.end(), is_better);
  sums.resize(static_cast<std::size_t>(k));
  return sums;
}

TEST_P(Lookup, CombineFindsTheBestOfTheWholeGrid) {
  for (std::int64_t n : {1, 5, 33, 64}) {
    for (bool has_ties : {false, true}) {
      std::vector<float> r = normal(n, 1), c = normal(n, 2);
      if (has_ties) {
        for (float& x : r) x = std::round(x);
        for (float& x : c) x = std::round(x);
      }
      for (std::int64_t k : {1, 2, 3, 8, 31, 32, 64}) {
        if (k > n) continue;
        const TopK rows = top_k(kernel(), r, k), columns = top_k(kernel(), c, k);
        std::vector<float> scores(static_cast<std::size_t>(k));
        std::vector<std::int64_t> slots(static_cast<std::size_t>(k));
        std::vector<Line> scratch(combine_scratch_bytes(k) / 64 + 1);
        kernel().combine(rows.best.data(), rows.index.data(), columns.best.data(),
                         columns.index.data(), k, scores.data(), slots.data(), scratch.data());
        ASSERT_EQ(scores, plain_grid(r, c, k)) << "n " << n << " k " << k;
        // Each slot has the score that is returned with it, and none comes twice.
        for (std::size_t x = 0; x < slots.size(); ++x) {
          bool is_found = false;
          for (std::int64_t i = 0; i < n && !is_found; ++i) {
            for (std::int64_t j = 0; j < n; ++j) {
              if (slot_of(i, j) != slots[x]) continue;
              is_found = true;
              ASSERT_EQ(scores[x], r[static_cast<std::size_t>(i)] + c[static_cast<std::size_t>(j)]);
            }
          }
          ASSERT_TRUE(is_found);
        }
        std::sort(slots.begin(), slots.end());
        ASSERT_EQ(std::adjacent_find(slots.begin(), slots.end()), slots.end());
      }
    }
  }
}

TEST_P(Lookup, CombineShowsNan) {
  const std::vector<float> r{kNan, 1, 0}, c{3, 2, 1};
  const std::vector<std::int32_t> index{0, 1, 2};
  std::vector<float> scores(3);
  std::vector<std::int64_t> slots(3);
  std::vector<Line> scratch(combine_scratch_bytes(3) / 64 + 1);
  kernel().combine(r.data(), index.data(), c.data(), index.data(), 3, scores.data(), slots.data(),
                   scratch.data());
  EXPECT_TRUE(std::isnan(scores[0]) && std::isnan(scores[2]));
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, Lookup,
                         ::testing::ValuesIn(supported().begin(), supported().end()), isa_name);

TEST(Dispatch, NamesWhatThereIsWhenAskedForSomethingElse) {
  for (const Kernels* kernels : supported()) EXPECT_EQ(&named(kernels->isa), kernels);
  try {
    named("sse9");
    FAIL() << "expected an exception";
  } catch (const std::invalid_argument& error) {
    EXPECT_NE(std::string(error.what()).find("portable"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("sse9"), std::string::npos);
  }
}

}  // namespace
}  // namespace memlayers::kernels
