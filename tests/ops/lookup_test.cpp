// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "kernels/kernels.h"
#include "memlayers/ops.h"
#include "ops/op_testing.h"
#include "ops/torch/operators.h"

namespace memlayers {
namespace {

using testing::expect_near;
using testing::normal;

// The score of every slot, [T, H, n * n] in slot order.
at::Tensor all_scores(const at::Tensor& query, const at::Tensor& keys) {
  const std::int64_t T = query.size(0), H = query.size(1), n = keys.size(2);
  const at::Tensor products = torch::einsum("thsd,hsnd->thsn", {query.view({T, H, 2, -1}), keys});
  const at::Tensor grid =
      (products.select(2, 0).unsqueeze(-1) + products.select(2, 1).unsqueeze(-2)).flatten(2);
  at::Tensor scores = torch::empty_like(grid);
  scores.index_copy_(2, row_major_slots(n), grid);
  return scores;
}

// The slots and scores that lookup() finds, in one tensor that has all of their bits.
at::Tensor found(const at::Tensor& query, const at::Tensor& keys, std::int64_t k) {
  const auto [slots, scores] = lookup(query, keys, k);
  return torch::cat({slots.to(torch::kDouble), scores.to(torch::kDouble)});
}

struct Shape {
  std::int64_t T, H, d, n, k;
};

const std::vector<Shape> kShapes = {{1, 1, 2, 1, 1},    {3, 2, 6, 5, 5},      {7, 1, 16, 17, 3},
                                    {65, 3, 10, 33, 8}, {300, 2, 32, 40, 32}, {2, 4, 64, 700, 16}};

TEST(Lookup, FindsWhatBruteForceOverAllSlotsFinds) {
  for (const auto& [T, H, d, n, k] : kShapes) {
    const at::Tensor query = normal({T, H, d}, 1), keys = normal({H, 2, n, d / 2}, 2);
    const auto [slots, scores] = lookup(query, keys, k);
    const auto [wanted, where] = all_scores(query, keys).topk(k);
    const double tolerance = testing::sum_tolerance(d, 4 * std::sqrt(static_cast<double>(d)));
    expect_near(scores, wanted, tolerance);
    // Each slot's own score is the one returned with it, and no slot comes twice.
    expect_near(all_scores(query, keys).gather(2, slots), scores, tolerance);
    const auto [sorted, order] = slots.sort(-1);
    if (k > 1) {
      EXPECT_TRUE((sorted.slice(2, 1) != sorted.slice(2, 0, k - 1)).all().item<bool>());
    }
  }
}

TEST(Lookup, AgreesWithItsAtenTwinForwardAndBackward) {
  for (const auto& [T, H, d, n, k] : kShapes) {
    at::Tensor query = normal({T, H, d}, 3).requires_grad_();
    at::Tensor keys = normal({H, 2, n, d / 2}, 4).requires_grad_();
    at::Tensor query2 = query.detach().clone().requires_grad_();
    at::Tensor keys2 = keys.detach().clone().requires_grad_();
    const at::Tensor grad = normal({T, H, k}, 5);
    const auto [slots, scores] = lookup(query, keys, k);
    const auto [slots2, scores2] = reference::lookup(query2, keys2, k);
    EXPECT_TRUE(torch::equal(slots, slots2)) << "n " << n << " k " << k;
    scores.backward(grad);
    scores2.backward(grad);
    expect_near(query.grad(), query2.grad(), testing::sum_tolerance(k, 20));
    expect_near(keys.grad(), keys2.grad(), testing::sum_tolerance(T * k, 20));
  }
}

TEST(Lookup, BackwardOnOtherDevicesIsTheSameFormula) {
  const at::Tensor query = normal({9, 2, 8}, 1), keys = normal({2, 2, 6, 4}, 2);
  const auto [slots, scores] = lookup(query, keys, 4);
  const at::Tensor grad = normal({9, 2, 4}, 3);
  const auto [q1, k1] = ops::cpu::lookup_backward(grad, query, keys, slots);
  const auto [q2, k2] = ops::composite::lookup_backward(grad, query, keys, slots);
  expect_near(q1, q2, 1e-5);
  expect_near(k1, k2, 1e-5);
}

TEST(Lookup, BackwardOfWideQueriesSumsAllGroupsOfTokens) {  // 32 of 70 tokens at a time
  const at::Tensor query = normal({70, 2, 4096}, 1), keys = normal({2, 2, 9, 2048}, 2);
  const auto [slots, scores] = lookup(query, keys, 4);
  const at::Tensor grad = normal({70, 2, 4}, 3);
  const auto [q1, k1] = ops::cpu::lookup_backward(grad, query, keys, slots);
  const auto [q2, k2] = ops::composite::lookup_backward(grad, query, keys, slots);
  expect_near(q1, q2, testing::sum_tolerance(4, 20));
  expect_near(k1, k2, testing::sum_tolerance(70 * 4, 20));
}

TEST(Lookup, BackwardTakesNoTokensAndNoColumns) {
  for (const auto& [tokens, half] : {std::pair<std::int64_t, std::int64_t>{0, 4}, {3, 0}}) {
    const at::Tensor query = torch::zeros({tokens, 2, 2 * half});
    const at::Tensor keys = normal({2, 2, 9, half}, 2), grad = torch::ones({tokens, 2, 3});
    const auto [q, k] =
        ops::cpu::lookup_backward(grad, query, keys, torch::zeros({tokens, 2, 3}, torch::kLong));
    EXPECT_TRUE(torch::equal(q, torch::zeros_like(query)));
    EXPECT_TRUE(torch::equal(k, torch::zeros_like(keys)));
  }
}

TEST(Lookup, BackwardFindsTheCellOfSlotsAtTheEdgesOfEveryShell) {
  for (const std::int64_t n : {4096, 4097}) {  // slots that float32 has all, and others
    std::vector<std::int64_t> edges;
    for (std::int64_t m = 0; m < n; ++m) {
      for (const std::int64_t at : {std::int64_t{0}, m, 2 * m}) edges.push_back(m * m + at);
    }
    edges.resize(edges.size() / 32 * 32);
    const at::Tensor slots = torch::tensor(edges, torch::kLong).view({-1, 1, 32});
    const at::Tensor query = torch::ones({slots.size(0), 1, 2});
    const at::Tensor keys = normal({1, 2, n, 1}, 1);
    const at::Tensor grad = (torch::arange(slots.numel(), torch::kFloat) % 7).view(slots.sizes());
    EXPECT_TRUE(
        torch::equal(std::get<1>(ops::cpu::lookup_backward(grad, query, keys, slots)),
                     std::get<1>(ops::composite::lookup_backward(grad, query, keys, slots))));
  }
}

TEST(Lookup, GradientOfASubKeyThatWasNotChosenIsZero) {
  at::Tensor query = normal({2, 1, 8}, 1), keys = normal({1, 2, 50, 4}, 2).requires_grad_();
  const auto [slots, scores] = lookup(query, keys, 3);
  scores.sum().backward();
  EXPECT_LE((keys.grad().abs().sum(-1) > 0).sum().item<int64_t>(), 2 * 2 * 3);
  EXPECT_GT((keys.grad().abs().sum(-1) > 0).sum().item<int64_t>(), 0);
}

TEST(Lookup, GivesTheSameBitsForAnyNumberOfThreads) {
  const at::Tensor query = normal({500, 3, 32}, 1), keys = normal({3, 2, 64, 16}, 2);
  const at::Tensor grad = normal({500, 3, 8}, 3);
  testing::expect_same_bits_for_any_threads([&] { return found(query, keys, 8); });
  const at::Tensor slots = std::get<0>(lookup(query, keys, 8));
  testing::expect_same_bits_for_any_threads([&] {
    const auto [grad_query, grad_keys] = ops::dispatch::lookup_backward(grad, query, keys, slots);
    return torch::cat({grad_query.flatten(), grad_keys.flatten()});
  });
}

TEST(Lookup, TakesBfloat16AndScoresInFloat32) {
  const at::Tensor query = normal({5, 2, 16}, 1).to(torch::kBFloat16);
  const at::Tensor keys = normal({2, 2, 12, 8}, 2).to(torch::kBFloat16);
  const auto [slots, scores] = lookup(query, keys, 4);
  const auto [slots2, scores2] = lookup(query.to(torch::kFloat), keys.to(torch::kFloat), 4);
  EXPECT_TRUE(torch::equal(slots, slots2));
  EXPECT_TRUE(torch::equal(scores, scores2));
}

TEST(Lookup, ShowsNanInsteadOfHidingIt) {
  at::Tensor query = normal({2, 1, 8}, 1), keys = normal({1, 2, 9, 4}, 2);
  query[0][0][0] = std::numeric_limits<float>::quiet_NaN();
  const auto [slots, scores] = lookup(query, keys, 3);
  EXPECT_TRUE(scores[0].isnan().all().item<bool>());
  EXPECT_FALSE(scores[1].isnan().any().item<bool>());
  EXPECT_TRUE(((slots >= 0) & (slots < 81)).all().item<bool>());
}

TEST(Lookup, TakesNoTokensAndTensorsThatAreNotContiguous) {
  const at::Tensor keys = normal({2, 2, 9, 4}, 2);
  EXPECT_EQ(std::get<0>(lookup(torch::zeros({0, 2, 8}), keys, 3)).sizes(),
            at::IntArrayRef({0, 2, 3}));
  EXPECT_EQ(std::get<0>(reference::lookup(torch::zeros({0, 2, 8}), keys, 3)).sizes(),
            at::IntArrayRef({0, 2, 3}));
  const at::Tensor query = normal({2, 6, 8}, 1).transpose(0, 1);
  EXPECT_TRUE(torch::equal(std::get<1>(lookup(query, keys, 3)),
                           std::get<1>(lookup(query.contiguous(), keys, 3))));
}

TEST(Lookup, RefusesWhatDoesNotFit) {
  const at::Tensor query = normal({2, 2, 8}, 1), keys = normal({2, 2, 9, 4}, 2);
  EXPECT_THROW(lookup(query, keys, 0), c10::ValueError);
  EXPECT_THROW(lookup(query, keys, 10), c10::ValueError);
  EXPECT_THROW(lookup(normal({1, 1, 2}, 1), normal({1, 2, 70000, 1}, 2), 65536), c10::ValueError);
  EXPECT_THROW(lookup(query.flatten(1), keys, 3), c10::ValueError);
  EXPECT_THROW(lookup(query, normal({3, 2, 9, 4}, 1), 3), c10::ValueError);
  EXPECT_THROW(lookup(query, normal({2, 2, 9, 5}, 1), 3), c10::ValueError);
  EXPECT_THROW(lookup(query, keys.to(torch::kDouble), 3), c10::TypeError);
  EXPECT_THROW(lookup(query.to(torch::kBFloat16), keys, 3), c10::TypeError);
  EXPECT_THROW(ops::dispatch::lookup_backward(torch::zeros({2, 2, 3}), query, keys,
                                              torch::full({2, 2, 3}, 81, torch::kLong)),
               c10::IndexError);
}

TEST(Lookup, EqualScoresComeInTheSameOrderFromBothVersions) {
  // Small whole numbers: every product and sum is exact, and most scores come many times.
  for (const auto& [T, H, d, n, k] : kShapes) {
    const at::Tensor query = normal({T, H, d}, 6).round(),
                     keys = normal({H, 2, n, d / 2}, 7).round();
    const auto [slots, scores] = lookup(query, keys, k);
    const auto [slots2, scores2] = reference::lookup(query, keys, k);
    EXPECT_TRUE(torch::equal(scores, scores2)) << "n " << n << " k " << k;
    EXPECT_TRUE(torch::equal(slots, slots2)) << "n " << n << " k " << k;
  }
}

TEST(Lookup, TakesEverySubKeyOfALargeSet) {
  const std::int64_t n = 4096;
  const at::Tensor query = normal({2, 1, 2}, 1), keys = normal({1, 2, n, 1}, 2);
  const auto [slots, scores] = lookup(query, keys, n);
  const at::Tensor wanted = std::get<0>(all_scores(query, keys).topk(n));
  expect_near(scores, wanted, testing::sum_tolerance(2, 30));
  expect_near(all_scores(query, keys).gather(2, slots), scores, testing::sum_tolerance(2, 30));
}

TEST(Lookup, GivesTheSameBitsForAnyNumberOfThreadsInOneBlockToo) {
  for (std::int64_t T : {1, 2, 8, 33, 128}) {
    for (const auto& [n, half] :
         {std::pair<std::int64_t, std::int64_t>{4096, 128}, {64, 2048}, {517, 99}}) {
      const at::Tensor query = normal({T, 1, 2 * half}, 1), keys = normal({1, 2, n, half}, 2);
      testing::expect_same_bits_for_any_threads([&] { return found(query, keys, 32); });
    }
  }
}

TEST(Slots, RowMajorOnesOfNoGridAreRefused) {
  EXPECT_EQ(row_major_slots(0).numel(), 0);
  for (std::int64_t n : {std::int64_t{-1}, std::int64_t{1} << 32}) {
    EXPECT_THROW(row_major_slots(n), c10::ValueError) << n;
  }
}

TEST(Slots, ShellNumberingSurvivesGrowth) {
  for (std::int64_t n : {1, 2, 5, 40}) {
    const at::Tensor slots = row_major_slots(n);
    const auto [sorted, order] = slots.sort();
    EXPECT_TRUE(
        torch::equal(sorted, torch::arange(n * n)));  // the first n^2 numbers are the n x n grid
  }
  for (std::int64_t slot : {0L, 1L, 2L, 3L, 99L, (1L << 52) + 12345, (1L << 60) - 1, 1L << 60}) {
    const auto [row, column] = cell_of(slot);
    EXPECT_EQ(slot_of(row, column), slot);
  }
  EXPECT_EQ(slot_of(0, 1), 1);  // m*m + m + i - j
  EXPECT_EQ(slot_of(1, 0), 3);
}

TEST(LookupSoftmax, IsSoftmaxOfTheLookupForwardAndBackward) {
  for (const auto& [T, H, d, n, k] : kShapes) {
    at::Tensor query = normal({T, H, d}, 3).requires_grad_();
    at::Tensor keys = normal({H, 2, n, d / 2}, 4).requires_grad_();
    at::Tensor query2 = query.detach().clone().requires_grad_();
    at::Tensor keys2 = keys.detach().clone().requires_grad_();
    const at::Tensor grad = normal({T, H, k}, 5);
    const auto [slots, weights] = lookup_softmax(query, keys, k);
    const auto [slots2, scores2] = lookup(query2, keys2, k);
    const at::Tensor weights2 = torch::softmax(scores2, -1);
    EXPECT_TRUE(torch::equal(slots, slots2));
    expect_near(weights, weights2, 1e-5);  // scores of up to 100 cost exp as many roundings
    weights.backward(grad);
    weights2.backward(grad);
    expect_near(query.grad(), query2.grad(), testing::sum_tolerance(k, 200));
    expect_near(keys.grad(), keys2.grad(), testing::sum_tolerance(T * k, 200));
  }
}

// Whether two lists of slots are those of the same best k where scores that differ by rounding
// alone may change places.
void expect_same_choice(const at::Tensor& slots, const at::Tensor& weights,
                        const at::Tensor& wanted_slots, const at::Tensor& wanted) {
  expect_near(weights, wanted, 2e-5);
  const at::Tensor differs = slots != wanted_slots;
  if (!differs.any().item<bool>()) return;
  const at::Tensor gap = (weights - wanted).abs().masked_select(differs);
  EXPECT_LE(gap.max().item<double>(), 2e-5);
  EXPECT_LE(differs.sum().item<std::int64_t>(), slots.numel() / 50 + 1);
}

TEST(PackedKeys, FindTheSameSlotsAsTheLookup) {
  for (const auto& [T, H, d, n, k] : kShapes) {
    const at::Tensor query = normal({T, H, d}, 1) / std::sqrt(static_cast<double>(d));
    const at::Tensor keys = normal({H, 2, n, d / 2}, 2);
    const auto [slots, weights] = lookup_softmax(query, pack_keys(keys), k);
    const auto [wanted_slots, wanted] = lookup_softmax(query, keys, k);
    expect_same_choice(slots, weights, wanted_slots, wanted);
  }
}

TEST(PackedKeys, AreExactWhereTheirEightBitsSeeNothing) {
  // One huge entry a key, where the query is zero, leaves nothing of the others in eight bits.
  const std::int64_t n = 300, half = 32;
  at::Tensor keys = normal({2, 2, n, half}, 2);
  keys.select(3, 0).fill_(1e4);
  at::Tensor query = normal({5, 2, 2 * half}, 1);
  query.view({5, 2, 2, half}).select(3, 0).zero_();
  const auto [slots, weights] = lookup_softmax(query, pack_keys(keys), 16);
  const auto [wanted_slots, wanted] = lookup_softmax(query, keys, 16);
  expect_same_choice(slots, weights, wanted_slots, wanted);
}

TEST(PackedKeys, EqualKeysAreFoundInTheirOrderAndNanIsShown) {
  const at::Tensor keys = torch::ones({1, 2, 50, 8});
  at::Tensor query = torch::ones({1, 1, 16});
  const PackedKeys packed = pack_keys(keys);
  EXPECT_TRUE(torch::equal(std::get<0>(lookup_softmax(query, packed, 20)),
                           std::get<0>(lookup_softmax(query, keys, 20))));
  query[0][0][3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::get<1>(lookup_softmax(query, packed, 20)).isnan().all().item<bool>());
  EXPECT_THROW(pack_keys(keys / 0), c10::ValueError);
  EXPECT_THROW(lookup_softmax(query, packed, 51), c10::ValueError);
  EXPECT_EQ(std::get<0>(lookup_softmax(torch::ones({0, 1, 16}), packed, 20)).size(0), 0);
}

// As many tokens and keys as are screened in eight bits (src/ops/lookup/screened_lookup.h).
class ScreenedLookup : public ::testing::Test {
 protected:
  void SetUp() override {
    if (kernels::active().block_screen == nullptr) GTEST_SKIP() << "nothing is screened here";
  }
};
constexpr std::int64_t kManyKeys = 1100, kManyTokens = 150;

TEST_F(ScreenedLookup, FindsTheSameSlotsAsItsAtenTwin) {
  for (std::int64_t half : {40, 64, 100}) {
    const at::Tensor query = normal({kManyTokens, 2, 2 * half}, 1) / 8;
    const at::Tensor keys = normal({2, 2, kManyKeys, half}, 2);
    const auto [slots, weights] = lookup_softmax(query, keys, 32);
    const auto [wanted_slots, wanted] = reference::lookup(query, keys, 32);
    expect_same_choice(slots, weights, wanted_slots, torch::softmax(wanted, -1));
  }
}

TEST_F(ScreenedLookup, IsExactWhereEightBitsSeeLittleOrNothing) {
  constexpr std::int64_t half = 32;
  at::Tensor query = normal({kManyTokens, 2, 2 * half}, 1);
  query.view({kManyTokens, 2, 2, half}).select(3, 0).zero_();
  for (double huge : {10., 100., 1e4}) {  // where the query is zero
    at::Tensor keys = normal({2, 2, kManyKeys, half}, 2);
    keys.select(3, 0).fill_(huge);
    const auto [slots, weights] = lookup_softmax(query, keys, 16);
    const auto [wanted_slots, wanted] = reference::lookup(query, keys, 16);
    expect_same_choice(slots, weights, wanted_slots, torch::softmax(wanted, -1));
  }
}

TEST_F(ScreenedLookup, TakesEqualKeysInTheirOrderAndKeysOfAnySize) {
  // Whole numbers: every sum is exact.
  at::Tensor keys = normal({1, 2, kManyKeys, 32}, 2).round();
  keys.slice(2, 500, 1000).copy_(keys.slice(2, 0, 500));
  keys.select(2, 7).mul_(1 << 20);
  const at::Tensor query = normal({kManyTokens, 1, 64}, 1).round();
  for (std::int64_t k : {1, 32, 600}) {
    const auto [slots, scores] = lookup(query, keys, k);
    const auto [slots2, scores2] = reference::lookup(query, keys, k);
    EXPECT_TRUE(torch::equal(scores, scores2)) << k;
    EXPECT_TRUE(torch::equal(slots, slots2)) << k;
  }
  const at::Tensor same = torch::ones_like(keys);
  EXPECT_TRUE(torch::equal(std::get<0>(lookup(query, same, 32)),
                           std::get<0>(reference::lookup(query, same, 32))));
}

TEST_F(ScreenedLookup, ShowsWhatIsNoNumberWhereItIs) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  at::Tensor keys = normal({2, 2, kManyKeys, 32}, 2), query = normal({kManyTokens, 2, 64}, 1);
  const at::Tensor whole = std::get<1>(lookup(query, keys, 8));
  query[3][1][5] = nan;
  query[4][0][40] = std::numeric_limits<float>::infinity();
  const at::Tensor scores = std::get<1>(lookup(query, keys, 8));
  EXPECT_TRUE(scores[3][1].isnan().all().item<bool>());
  EXPECT_FALSE(scores[4][0].isfinite().any().item<bool>());
  const at::Tensor others = torch::ones({kManyTokens, 2}, torch::kBool);
  others[3][1] = false;
  others[4][0] = false;
  EXPECT_TRUE(torch::allclose(scores.index({others}), whole.index({others}), 1e-4, 1e-4));
  keys[0][1][77][3] = nan;  // comes first, with every token of that head
  const auto [slots, with_nan] = lookup(normal({kManyTokens, 2, 64}, 1), keys, 8);
  EXPECT_TRUE(with_nan.select(1, 0).isnan().any(-1).all().item<bool>());
  EXPECT_FALSE(with_nan.select(1, 1).isnan().any().item<bool>());
}

TEST_F(ScreenedLookup, GivesTheSameBitsForAnyNumberOfThreads) {
  const at::Tensor query = normal({300, 2, 64}, 1), keys = normal({2, 2, kManyKeys, 32}, 2);
  testing::expect_same_bits_for_any_threads([&] { return found(query, keys, 32); });
}

}  // namespace
}  // namespace memlayers
