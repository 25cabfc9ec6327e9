// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <numeric>
#include <stdexcept>

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

TEST_P(Lookup, TopKHoldsForEveryKOfASmallN) {
  for (std::int64_t n = 1; n <= 70; ++n) {
    const std::vector<float> random = normal(n, static_cast<unsigned>(n));
    std::vector<float> ties = random;
    for (float& x : ties) x = std::round(2 * x);
    ties.back() = kNan;
    for (std::int64_t k = 1; k <= n; ++k) {
      expect_top_k(random, k, "random");
      expect_top_k(ties, k, "ties and a NaN");
    }
  }
}

struct Cells {
  std::vector<float> scores;
  std::vector<std::int64_t> slots;
};

// The best k of all n x n sums, by sorting them; `r` and `c` are in order, so a pair's place in the
// grid is its (a, b).
Cells plain_combine(const TopK& r, const TopK& c, std::int64_t k) {
  struct Cell {
    float score;
    std::int64_t slot;
  };
  std::vector<Cell> cells;
  for (std::size_t a = 0; a < r.best.size(); ++a) {
    for (std::size_t b = 0; b < c.best.size(); ++b) {
      cells.push_back({r.best[a] + c.best[b], slot_of(r.index[a], c.index[b])});
    }
  }
  std::stable_sort(cells.begin(), cells.end(),
                   [](const Cell& x, const Cell& y) { return is_better(x.score, y.score); });
  Cells best;
  for (std::int64_t i = 0; i < k; ++i) {
    best.scores.push_back(cells[static_cast<std::size_t>(i)].score);
    best.slots.push_back(cells[static_cast<std::size_t>(i)].slot);
  }
  return best;
}

// The whole of a list, in the order of top_k.
TopK in_order(const std::vector<float>& scores) {
  TopK all;
  all.index = plain_top_k(scores, static_cast<std::int64_t>(scores.size()));
  for (std::int32_t i : all.index) all.best.push_back(scores[static_cast<std::size_t>(i)]);
  return all;
}

void expect_combine(const Kernels& kernel, const std::vector<float>& r, const std::vector<float>& c,
                    std::int64_t k, const char* what) {
  const TopK rows = top_k(kernel, r, k), columns = top_k(kernel, c, k);
  Cells got{std::vector<float>(static_cast<std::size_t>(k)),
            std::vector<std::int64_t>(static_cast<std::size_t>(k))};
  std::vector<Line> scratch(combine_scratch_bytes(k) / 64 + 1);
  const std::vector<std::uint32_t> plan = combine_plan(k);
  kernel.combine(rows.best.data(), rows.index.data(), columns.best.data(), columns.index.data(), k,
                 plan.data(), got.scores.data(), got.slots.data(), scratch.data());
  const Cells wanted = plain_combine(in_order(r), in_order(c), k);
  ASSERT_EQ(got.slots, wanted.slots) << what << " n " << r.size() << " k " << k;
  for (std::size_t i = 0; i < got.scores.size(); ++i) {
    if (std::isnan(wanted.scores[i])) {
      ASSERT_TRUE(std::isnan(got.scores[i])) << what;
    } else {
      ASSERT_EQ(got.scores[i], wanted.scores[i]) << what;
    }
  }
}

TEST_P(Lookup, CombineFindsTheBestOfTheWholeGridInOrder) {
  for (std::int64_t n : {1, 2, 5, 33, 64}) {
    const std::vector<float> r = normal(n, 1), c = normal(n, 2);
    std::vector<float> tied_r = r, tied_c = c, steep = c;
    for (float& x : tied_r) x = std::round(x);
    for (float& x : tied_c) x = std::round(x);
    for (float& x : steep) x *= 100;  // one row, or one column, holds them all
    const std::vector<float> equal(static_cast<std::size_t>(n), 0.25F);
    for (std::int64_t k = 1; k <= n; ++k) {
      expect_combine(kernel(), r, c, k, "random");
      expect_combine(kernel(), tied_r, tied_c, k, "ties");
      expect_combine(kernel(), r, steep, k, "steep columns");
      expect_combine(kernel(), steep, r, k, "steep rows");
      expect_combine(kernel(), equal, equal, k, "equal");
    }
  }
}

TEST_P(Lookup, CombineOrdersNanAndInfinity) {
  const std::vector<float> odd{1, kNan, -2, 0, 3}, masked{0.5F, -kInfinity, 2, -kInfinity, 1};
  const std::vector<float> high{4, kInfinity, 2, 1, 3}, plain{5, 1, 2, 4, 3};
  for (std::int64_t k = 1; k <= 5; ++k) {
    expect_combine(kernel(), odd, plain, k, "NaN in rows");
    expect_combine(kernel(), plain, odd, k, "NaN in columns");
    expect_combine(kernel(), masked, masked, k, "-inf in both");
    expect_combine(kernel(), high, plain, k, "inf in rows");
    expect_combine(kernel(), std::vector<float>(5, -kInfinity), plain, k, "rows all -inf");
  }
}

TEST_P(Lookup, CombineHoldsWhereTheSumsAreTooManyToBeRanked) {
  for (std::int64_t n : {100, 150, 300}) {
    const std::vector<float> r = normal(n, 1), c = normal(n, 2);
    const std::vector<float> equal(static_cast<std::size_t>(n), 0.25F);
    for (std::int64_t k : {64, 65, 100, 128, 129, 300}) {
      if (k > n) continue;
      expect_combine(kernel(), r, c, k, "random");
      expect_combine(kernel(), equal, r, k, "equal rows");
    }
  }
}

TEST_P(Lookup, SoftmaxIsThatOfFloat64) {
  for (std::int64_t k : {1, 3, 4, 8, 15, 32, 33, 100}) {
    std::vector<float> scores = normal(k, 5), got(static_cast<std::size_t>(k));
    for (float& x : scores) x *= 10;
    std::sort(scores.begin(), scores.end(), std::greater<>());
    kernel().softmax(scores.data(), k, got.data());
    double total = 0;
    for (float x : scores) total += std::exp(static_cast<double>(x) - scores[0]);
    for (std::size_t i = 0; i < got.size(); ++i) {
      const double below = static_cast<double>(scores[0]) - scores[i];
      const double wanted = std::exp(-below) / total;
      // The difference is rounded to float32, and its error is one of exp's in proportion.
      ASSERT_NEAR(got[i], wanted, (1e-6 + 6e-8 * below) * wanted) << "k " << k;
    }
    kernel().softmax(scores.data(), k, scores.data());
    EXPECT_EQ(scores, got) << "in place";
  }
}

TEST_P(Lookup, SoftmaxShowsNanAndInfinityAndForgetsTheWorst) {
  std::vector<float> got(9);
  for (float first : {kNan, kInfinity}) {
    const std::vector<float> scores{first, 5, 4, 3, 2, 1, 0, -1, -kInfinity};
    kernel().softmax(scores.data(), 9, got.data());
    for (float x : got) EXPECT_TRUE(std::isnan(x)) << first;
  }
  const std::vector<float> scores{3, 2, -1000, -2000, -kInfinity};
  kernel().softmax(scores.data(), 5, got.data());
  EXPECT_NEAR(got[0] + got[1], 1, 1e-6);
  for (std::size_t i : {2U, 3U, 4U}) EXPECT_LT(got[i], 1e-37F);
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, Lookup,
                         ::testing::ValuesIn(supported().begin(), supported().end()), isa_name);

TEST(Dispatch, PutsThePortableTableFirst) {
  ASSERT_FALSE(supported().empty());
  EXPECT_STREQ(supported().front()->isa, "portable");
  std::string ran;
  for (const Kernels* kernels : supported()) ran += std::string(" ") + kernels->isa;
  RecordProperty("isas", ran);
  std::printf("instruction sets tested:%s\n", ran.c_str());
}

TEST(Dispatch, EnvironmentChoosesTheActiveTable) {  // the only test that calls active()
  ASSERT_EQ(setenv("MEMLAYERS_ISA", "nonsense", 1), 0);
  EXPECT_THROW(active(), std::invalid_argument);
  ASSERT_EQ(setenv("MEMLAYERS_ISA", "portable", 1), 0);
  EXPECT_STREQ(active().isa, "portable");
  ASSERT_EQ(unsetenv("MEMLAYERS_ISA"), 0);
  EXPECT_STREQ(active().isa, "portable") << "expected it to be chosen once";
}

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
