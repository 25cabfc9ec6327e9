// SPDX-License-Identifier: Apache-2.0
#include "ops/lookup/screened_lookup.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <set>
#include <vector>

#include "ops/op_testing.h"

namespace memlayers::ops {
namespace {

using kernels::ScreenKeys;
using kernels::ScreenQueries;
using testing::normal;

// A screen in plain loops, so that what is made of it is tested on every processor. Its numbers are
// those that kernels.h asks for, its bounds a little wider than the kernel's.
constexpr std::int64_t kGroup = kernels::kScreenGroup;

struct Number {
  float unit = 0, norm = 0, error = 0;
};
template <class Put>
Number pack(const float* x, std::int64_t width, const Put& put) {
  float most = 0;
  double squares = 0, errors = 0;
  for (std::int64_t c = 0; c < width; ++c) most = std::max(most, std::abs(x[c]));
  const float unit = most / 127;
  for (std::int64_t c = 0; c < width; ++c) {
    const float whole = std::nearbyint(x[c] / unit);
    const float number = std::isfinite(whole) ? whole : 0;
    put(c, static_cast<int>(number));
    squares += static_cast<double>(x[c]) * static_cast<double>(x[c]);
    errors += std::pow(static_cast<double>(x[c]) - static_cast<double>(unit * number), 2);
  }
  return {unit, static_cast<float>(std::sqrt(squares)) * 1.0001F,
          static_cast<float>(std::sqrt(errors)) * 1.0001F};
}
std::int8_t& key_number(const ScreenKeys& keys, std::int64_t i, std::int64_t c) {
  const std::int64_t quads = kernels::round_up(keys.width, 4) / 4;
  return keys.numbers[((i / kGroup * quads + c / 4) * kGroup + i % kGroup) * 4 + c % 4];
}

bool pack_keys(const float* keys, std::int64_t count, std::int64_t width, const ScreenKeys& to,
               std::int64_t group) noexcept {
  bool are_small = true;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t at = group * kGroup + i;
    const Number key = pack(keys + i * width, width, [&](std::int64_t c, int number) {
      key_number(to, at, c) = static_cast<std::int8_t>(number);
    });
    to.unit[at] = key.unit;
    to.norm[at] = key.norm;
    to.error[at] = key.error;
    are_small = are_small && key.norm < kernels::kMostScreened;
  }
  return are_small;
}

void pack_query(const float* query, std::int64_t width, const ScreenQueries& to,
                std::int64_t at) noexcept {
  const Number packed = pack(query, width, [&](std::int64_t c, int number) {
    to.numbers[at * to.stride + c] = static_cast<std::uint8_t>(number + 128);
  });
  to.unit[at] = packed.unit;
  to.norm[at] = packed.norm;
  to.error[at] = packed.error;
}

float loss(const ScreenKeys& keys, std::int64_t i, float norm, float error) {
  return norm * (keys.error[i] + 1e-5F * keys.norm[i]) + error * keys.norm[i];
}

int bound_calls = 0;
void bound(const ScreenKeys& keys, const ScreenQueries& queries, std::int64_t count,
           float* high) noexcept {
  ++bound_calls;
  for (std::int64_t t = 0; t < count; ++t) {
    for (std::int64_t i = 0; i < keys.n; ++i) {
      std::int64_t product = 0;
      for (std::int64_t c = 0; c < keys.width; ++c) {
        product += (queries.numbers[t * queries.stride + c] - 128) * key_number(keys, i, c);
      }
      high[t * keys.n + i] = queries.unit[t] * keys.unit[i] * static_cast<float>(product) +
                             loss(keys, i, queries.norm[t], queries.error[t]);
    }
  }
}

std::int64_t candidates(const ScreenKeys& keys, float query_norm, float query_error,
                        const float* high, std::int64_t k, std::int32_t* index,
                        void* /*scratch*/) noexcept {
  std::vector<float> low;
  for (std::int64_t i = 0; i < keys.n; ++i) {
    low.push_back(high[i] - 2 * loss(keys, i, query_norm, query_error));
  }
  std::nth_element(low.begin(), low.begin() + k - 1, low.end(), std::greater<>());
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < keys.n; ++i) {
    if (high[i] >= low[static_cast<std::size_t>(k - 1)]) {
      index[count++] = static_cast<std::int32_t>(i);
    }
  }
  return count;
}

void score(const float* keys, std::int64_t width, const std::int32_t* index, std::int64_t count,
           const float* query, float* out) noexcept {
  for (std::int64_t i = 0; i < count; ++i) {
    out[i] = 0;
    for (std::int64_t c = 0; c < width; ++c) out[i] += query[c] * keys[index[i] * width + c];
  }
}

constexpr kernels::BlockScreen kPlain{.pack_keys = pack_keys,
                                      .pack_query = pack_query,
                                      .bound = bound,
                                      .candidates = candidates,
                                      .score = score};

constexpr std::int64_t kKeys = 1100, kTokens = 150, kHalf = 40, kBest = 16;

// What a lookup of the second head's first set gives: how many queries were served, and the scores
// of each that was.
struct Served {
  std::int64_t count = 0;
  std::vector<std::vector<float>> scores;
  std::vector<std::vector<std::int32_t>> index;
};
Served serve(const at::Tensor& query, const at::Tensor& keys) {
  constexpr std::int64_t kSet = 2;
  const ScreenedKeys screened(keys, query.size(0), &kPlain);
  std::vector<float> high(static_cast<std::size_t>(query.size(0) * kKeys));
  ScreenedLookup lookup(screened.screen(), query.size(0), kKeys, kHalf, kBest, high.data());
  Served served;
  // As in a query of two heads and two halves.
  const at::Tensor wide = torch::zeros({query.size(0), 4 * kHalf});
  wide.slice(1, kSet * kHalf, (kSet + 1) * kHalf).copy_(query);
  served.count = lookup.run(
      wide.const_data_ptr<float>() + kSet * kHalf, 4 * kHalf, query.size(0),
      keys.const_data_ptr<float>() + kSet * kKeys * kHalf, screened.set(kSet),
      [&](std::int64_t t, const float* scores, const std::int32_t* index, std::int64_t m) {
        EXPECT_EQ(t, static_cast<std::int64_t>(served.scores.size()));
        served.scores.emplace_back(scores, scores + m);
        served.index.emplace_back(index, index + m);
      });
  EXPECT_EQ(served.count, static_cast<std::int64_t>(served.scores.size()));
  return served;
}

at::Tensor keys_of(std::uint64_t seed) { return normal({2, 2, kKeys, kHalf}, seed); }

// The scores are those of the keys that they are said to be of, and the best are among them.
void expect_best(const Served& served, const at::Tensor& query, const at::Tensor& keys) {
  const at::Tensor all = query.mm(keys[1][0].t());
  for (std::int64_t t = 0; t < served.count; ++t) {
    const auto& index = served.index[static_cast<std::size_t>(t)];
    const auto& scores = served.scores[static_cast<std::size_t>(t)];
    EXPECT_TRUE(std::is_sorted(index.begin(), index.end()));
    for (std::size_t i = 0; i < index.size(); ++i) {
      ASSERT_NEAR(scores[i], all[t][index[i]].item<float>(), 1e-3) << "token " << t;
    }
    const std::set<std::int32_t> found(index.begin(), index.end());
    const at::Tensor best = std::get<1>(all[t].topk(kBest));
    for (std::int64_t i = 0; i < kBest; ++i) {
      ASSERT_TRUE(found.contains(static_cast<std::int32_t>(best[i].item<std::int64_t>())))
          << "token " << t;
    }
  }
}

TEST(ScreenedLookupOfAnyScreen, ScoresFewKeysAndTheBestAmongThem) {
  const at::Tensor query = normal({kTokens, kHalf}, 1), keys = keys_of(2);
  bound_calls = 0;
  const Served served = serve(query, keys);
  EXPECT_EQ(served.count, kTokens);
  EXPECT_GT(bound_calls, 1);  // in parts
  expect_best(served, query, keys);
  for (const auto& scores : served.scores) EXPECT_LT(scores.size(), kKeys / 8);
}

TEST(ScreenedLookupOfAnyScreen, EndsWhereTheScreenLeavesMostKeys) {
  at::Tensor query = normal({kTokens, kHalf}, 1), keys = keys_of(2);
  keys.select(3, 0).fill_(1e4);  // 8 bits see nothing but this column, which the queries lack
  query.select(1, 0).zero_();
  const Served served = serve(query, keys);
  EXPECT_LE(served.count, 8);  // an eighth of the keys for each query and eight more
  expect_best(served, query, keys);
}

TEST(ScreenedLookupOfAnyScreen, ScoresAllKeysOfAQueryThatIsNoNumber) {
  at::Tensor query = normal({kTokens, kHalf}, 1), keys = keys_of(2);
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), 1e20F}) {
    query[3][5] = bad;
    const Served served = serve(query, keys);
    EXPECT_EQ(served.count, kTokens);  // one query's are within what eight are allowed
    EXPECT_EQ(served.scores[3].size(), static_cast<std::size_t>(kKeys));
    EXPECT_LT(served.scores[4].size(), static_cast<std::size_t>(kKeys / 8));
  }
}

TEST(ScreenedLookupOfAnyScreen, HasNoSetWithAKeyThatIsNoNumber) {
  at::Tensor keys = keys_of(2);
  keys[0][1][77][3] = std::numeric_limits<float>::infinity();
  const ScreenedKeys screened(keys, kTokens, &kPlain);
  EXPECT_TRUE(screened.has(0));
  EXPECT_FALSE(screened.has(1));
  EXPECT_TRUE(screened.has(2));
  EXPECT_TRUE(screened.has(3));
}

TEST(ScreenedLookupOfAnyScreen, HasNothingOfFewKeysOrFewTokensOrWithoutAScreen) {
  const at::Tensor keys = keys_of(2);
  EXPECT_FALSE(ScreenedKeys(keys, kTokens, &kPlain).empty());
  EXPECT_TRUE(ScreenedKeys(keys, 8, &kPlain).empty());
  EXPECT_TRUE(ScreenedKeys(keys, kTokens, nullptr).empty());
  const at::Tensor few = keys.slice(2, 0, 100).contiguous();
  EXPECT_TRUE(ScreenedKeys(few, kTokens, &kPlain).empty());
}

}  // namespace
}  // namespace memlayers::ops
