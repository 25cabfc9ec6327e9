// SPDX-License-Identifier: Apache-2.0

#include "memlayers/ops.h"
#include "ops/op_testing.h"
#include "ops/torch/operators.h"

namespace memlayers {
namespace {

using testing::expect_near;
using testing::normal;
using testing::random_slots;

struct Case {
  std::int64_t S, W, T, J;
  at::ScalarType type;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (at::ScalarType type : {torch::kFloat, torch::kBFloat16}) {
    for (std::int64_t W : {1, 7, 16, 17, 100}) all.push_back({50, W, 9, 12, type});
    all.push_back({1, 8, 3, 5, type});
    all.push_back({2000, 64, 130, 64, type});
    all.push_back({50, 8, 4, 0, type});
    all.push_back({50, 8, 0, 4, type});
  }
  return all;
}

// What a gradient may differ by when it was rounded to the rows' type.
double gradient_tolerance(const Case& c, std::int64_t terms) {
  return testing::sum_tolerance(terms, 20) + (c.type == torch::kBFloat16 ? 0.25 : 0);
}

TEST(Gather, AgreesWithItsAtenTwinForwardAndBackward) {
  std::vector<Case> all = cases();
  for (std::int64_t T : {0, 1, 3}) all.push_back({50, 0, T, 3, torch::kFloat});
  for (const Case& c : all) {
    at::Tensor values = normal({c.S, c.W}, 1).to(c.type).requires_grad_();
    at::Tensor weights = normal({c.T, c.J}, 2).requires_grad_();
    at::Tensor values2 = values.detach().clone().requires_grad_();
    at::Tensor weights2 = weights.detach().clone().requires_grad_();
    const at::Tensor slots = random_slots({c.T, c.J}, c.S, 3), grad = normal({c.T, c.W}, 4);
    const at::Tensor out = gather(values, slots, weights);
    const at::Tensor wanted = reference::gather(values2, slots, weights2);
    expect_near(out, wanted, testing::sum_tolerance(c.J, 20));
    out.backward(grad);
    wanted.backward(grad);
    expect_near(weights.grad(), weights2.grad(), testing::sum_tolerance(c.W, 20));
    expect_near(values.grad(), values2.grad(), gradient_tolerance(c, c.T * c.J));
  }
}

TEST(Gather, SparseGradientHoldsTheTouchedRowsOnly) {
  at::Tensor values = normal({100, 8}, 1).requires_grad_();
  const at::Tensor slots = torch::tensor({{5, 5, 99}, {0, 5, 99}}), weights = normal({2, 3}, 2);
  gather(values, slots, weights, /*sparse_grad=*/true).sum().backward();
  ASSERT_TRUE(values.grad().is_sparse());
  const at::Tensor sparse = values.grad().coalesce();
  EXPECT_TRUE(torch::equal(sparse.indices(), torch::tensor({{0, 5, 99}})));
  at::Tensor dense = values.detach().clone().requires_grad_();
  gather(dense, slots, weights).sum().backward();
  EXPECT_TRUE(torch::equal(sparse.to_dense(), dense.grad()));
}

TEST(Gather, BackwardOnOtherDevicesIsTheSameFormula) {
  const at::Tensor values = normal({40, 12}, 1), weights = normal({7, 5}, 2),
                   grad = normal({7, 12}, 4);
  const at::Tensor slots = random_slots({7, 5}, 40, 3);
  expect_near(ops::composite::gather_backward_weights(grad, values, slots),
              ops::cpu::gather_backward_weights(grad, values, slots), 1e-5);
  for (bool sparse : {false, true}) {
    expect_near(
        ops::composite::gather_backward_values(grad, values, slots, weights, sparse).to_dense(),
        ops::cpu::gather_backward_values(grad, values, slots, weights, sparse).to_dense(), 1e-5);
  }
}

TEST(Gather, GivesTheSameBitsForAnyNumberOfThreads) {
  const at::Tensor values = normal({500, 48}, 1), weights = normal({300, 20}, 2);
  const at::Tensor slots = random_slots({300, 20}, 500, 3), grad = normal({300, 48}, 4);
  testing::expect_same_bits_for_any_threads([&] { return gather(values, slots, weights); });
  testing::expect_same_bits_for_any_threads(
      [&] { return ops::dispatch::gather_backward_weights(grad, values, slots); });
  testing::expect_same_bits_for_any_threads(
      [&] { return ops::dispatch::gather_backward_values(grad, values, slots, weights, false); });
}

TEST(Gather, OfFewTokensGivesTheSameBitsWhereThreadsShareColumns) {
  for (const auto type : {torch::kFloat, torch::kBFloat16}) {
    for (std::int64_t width : {200, 256, 700, 1024}) {
      const at::Tensor values = normal({90, width}, 1).to(type), weights = normal({2, 20}, 2);
      const at::Tensor slots = random_slots({2, 20}, 90, 3);
      testing::expect_same_bits_for_any_threads([&] { return gather(values, slots, weights); });
    }
  }
}

TEST(Gather, TakesTensorsThatAreNotContiguous) {
  const at::Tensor slots = random_slots({9, 12}, 50, 3), weights = normal({9, 12}, 2);
  const at::Tensor grad = normal({9, 17}, 4);
  const at::Tensor slots2 = testing::column_by_column(slots),
                   weights2 = testing::column_by_column(weights),
                   grad2 = testing::column_by_column(grad);
  for (const auto type : {torch::kFloat, torch::kBFloat16}) {
    const at::Tensor values = normal({50, 17}, 1).to(type),
                     values2 = testing::column_by_column(values);
    ASSERT_FALSE(values2.is_contiguous() || slots2.is_contiguous() || weights2.is_contiguous());
    EXPECT_TRUE(torch::equal(gather(values2, slots2, weights2), gather(values, slots, weights)));
    EXPECT_TRUE(torch::equal(ops::cpu::gather_backward_weights(grad2, values2, slots2),
                             ops::cpu::gather_backward_weights(grad, values, slots)));
    EXPECT_TRUE(torch::equal(
        ops::cpu::gather_backward_values(grad2, values2, slots2, weights2, /*sparse_grad=*/false),
        ops::cpu::gather_backward_values(grad, values, slots, weights, /*sparse_grad=*/false)));
    // One number in memory for all weights, and one row of slots for all tokens.
    const at::Tensor half = torch::full({1, 1}, 0.5F, torch::kFloat).expand({9, 12});
    const at::Tensor first = slots.slice(0, 0, 1).expand({9, 12});
    EXPECT_TRUE(torch::equal(gather(values, first, half),
                             gather(values, first.contiguous(), half.contiguous())));
  }
}

TEST(Gather, ShowsANanWeightInItsTokenAlone) {
  const at::Tensor slots = random_slots({9, 13}, 50, 3), weights = normal({9, 13}, 2);
  for (const auto type : {torch::kFloat, torch::kBFloat16}) {
    const at::Tensor values = normal({50, 37}, 1).to(type);
    testing::expect_nan_in_its_token_alone(
        weights, [&](const at::Tensor& w) { return gather(values, slots, w); });
  }
}

TEST(Gather, RefusesWhatDoesNotFit) {
  const at::Tensor values = normal({10, 4}, 1), weights = normal({2, 3}, 2);
  const at::Tensor slots = torch::zeros({2, 3}, torch::kLong);
  EXPECT_THROW(gather(values, slots.to(torch::kInt), weights), c10::TypeError);
  EXPECT_THROW(gather(values.to(torch::kDouble), slots, weights), c10::TypeError);
  EXPECT_THROW(gather(values, slots, weights.to(torch::kDouble)), c10::TypeError);
  EXPECT_THROW(gather(values, slots, weights.t()), c10::ValueError);
  EXPECT_THROW(gather(values[0], slots, weights), c10::ValueError);
  EXPECT_THROW(gather(values, torch::full({2, 3}, 10, torch::kLong), weights), c10::IndexError);
  EXPECT_THROW(gather(values, torch::full({2, 3}, -1, torch::kLong), weights), c10::IndexError);
}

TEST(PeerGather, AgreesWithItsAtenTwinForwardAndBackward) {
  for (const Case& c : cases()) {
    constexpr std::int64_t D = 11;
    at::Tensor values = normal({c.S, D + c.W}, 1).to(c.type).requires_grad_();
    at::Tensor x = (normal({c.T, D}, 5) / 3).requires_grad_();
    at::Tensor weights = normal({c.T, c.J}, 2).requires_grad_();
    const at::Tensor slots = random_slots({c.T, c.J}, c.S, 3), grad = normal({c.T, c.W}, 4);
    at::Tensor values2 = values.detach().clone().requires_grad_();
    at::Tensor x2 = x.detach().clone().requires_grad_();
    at::Tensor weights2 = weights.detach().clone().requires_grad_();
    const at::Tensor out = peer_gather(values, x, slots, weights);
    const at::Tensor wanted = reference::peer_gather(values2, x2, slots, weights2);
    expect_near(out, wanted, testing::sum_tolerance(c.J * D, 20));
    out.backward(grad);
    wanted.backward(grad);
    expect_near(x.grad(), x2.grad(), testing::sum_tolerance(c.J * c.W, 50));
    expect_near(weights.grad(), weights2.grad(), testing::sum_tolerance(c.W * D, 20));
    expect_near(values.grad(), values2.grad(), gradient_tolerance(c, c.T * c.J * 4));
  }
}

TEST(PeerGather, BackwardOnOtherDevicesIsTheSameFormula) {
  const at::Tensor values = normal({40, 12}, 1), weights = normal({7, 5}, 2),
                   grad = normal({7, 8}, 4);
  const at::Tensor slots = random_slots({7, 5}, 40, 3), x = normal({7, 4}, 5);
  const auto a = ops::composite::peer_gather_backward(grad, values, x, slots, weights);
  const auto b = ops::cpu::peer_gather_backward(grad, values, x, slots, weights);
  expect_near(std::get<0>(a), std::get<0>(b), 1e-4);
  expect_near(std::get<1>(a), std::get<1>(b), 1e-4);
  expect_near(std::get<2>(a), std::get<2>(b), 1e-4);
  expect_near(std::get<3>(a), std::get<3>(b), 1e-4);
  const at::Tensor u = std::get<2>(b), v = std::get<3>(b);
  expect_near(ops::composite::peer_gather_backward_values(grad, values, x, slots, u, v, false),
              ops::cpu::peer_gather_backward_values(grad, values, x, slots, u, v, false), 1e-4);
}

TEST(PeerGather, GivesTheSameBitsForAnyNumberOfThreads) {
  const at::Tensor values = normal({500, 48}, 1), weights = normal({300, 20}, 2);
  const at::Tensor slots = random_slots({300, 20}, 500, 3), grad = normal({300, 28}, 4);
  const at::Tensor x = normal({300, 20}, 5) / 4;
  testing::expect_same_bits_for_any_threads([&] { return peer_gather(values, x, slots, weights); });
  testing::expect_same_bits_for_any_threads([&] {
    const auto [grad_x, grad_weights, u, v] =
        ops::dispatch::peer_gather_backward(grad, values, x, slots, weights);
    return torch::cat({grad_x.flatten(), grad_weights.flatten(), u.flatten(), v.flatten()});
  });
  const at::Tensor u = normal({300, 20}, 6), v = normal({300, 20}, 7);
  testing::expect_same_bits_for_any_threads([&] {
    return ops::dispatch::peer_gather_backward_values(grad, values, x, slots, u, v, false);
  });
}

TEST(PeerGather, TakesTensorsThatAreNotContiguous) {
  const at::Tensor values = normal({50, 28}, 1), x = normal({9, 11}, 5) / 3;
  const at::Tensor slots = random_slots({9, 12}, 50, 3), weights = normal({9, 12}, 2);
  const at::Tensor grad = normal({9, 17}, 4);
  const at::Tensor values2 = testing::column_by_column(values), x2 = testing::column_by_column(x);
  const at::Tensor slots2 = testing::column_by_column(slots),
                   weights2 = testing::column_by_column(weights);
  const at::Tensor grad2 = testing::column_by_column(grad);
  ASSERT_FALSE(values2.is_contiguous() || x2.is_contiguous() || slots2.is_contiguous() ||
               weights2.is_contiguous() || grad2.is_contiguous());
  EXPECT_TRUE(torch::equal(peer_gather(values2, x2, slots2, weights2),
                           peer_gather(values, x, slots, weights)));
  const auto a = ops::cpu::peer_gather_backward(grad2, values2, x2, slots2, weights2);
  const auto b = ops::cpu::peer_gather_backward(grad, values, x, slots, weights);
  EXPECT_TRUE(torch::equal(std::get<0>(a), std::get<0>(b)));
  EXPECT_TRUE(torch::equal(std::get<1>(a), std::get<1>(b)));
  EXPECT_TRUE(torch::equal(std::get<2>(a), std::get<2>(b)));
  EXPECT_TRUE(torch::equal(std::get<3>(a), std::get<3>(b)));
  const at::Tensor u = std::get<2>(b), v = std::get<3>(b);
  EXPECT_TRUE(torch::equal(
      ops::cpu::peer_gather_backward_values(grad2, values2, x2, slots2,
                                            testing::column_by_column(u),
                                            testing::column_by_column(v), /*sparse_grad=*/false),
      ops::cpu::peer_gather_backward_values(grad, values, x, slots, u, v, /*sparse_grad=*/false)));
}

TEST(PeerGather, ShowsANanWeightInItsTokenAlone) {
  const at::Tensor slots = random_slots({9, 13}, 50, 3), weights = normal({9, 13}, 2);
  const at::Tensor x = normal({9, 11}, 5) / 3;
  for (const auto type : {torch::kFloat, torch::kBFloat16}) {
    const at::Tensor values = normal({50, 37}, 1).to(type);
    testing::expect_nan_in_its_token_alone(
        weights, [&](const at::Tensor& w) { return peer_gather(values, x, slots, w); });
  }
}

TEST(PeerGather, RefusesWhatDoesNotFit) {
  const at::Tensor values = normal({10, 8}, 1), weights = normal({2, 3}, 2), x = normal({2, 4}, 3);
  const at::Tensor slots = torch::zeros({2, 3}, torch::kLong);
  EXPECT_THROW(peer_gather(values, normal({3, 4}, 1), slots, weights), c10::ValueError);
  EXPECT_THROW(peer_gather(values, normal({2, 8}, 1), slots, weights), c10::ValueError);
  EXPECT_THROW(peer_gather(values, x.to(torch::kDouble), slots, weights), c10::TypeError);
  EXPECT_THROW(peer_gather(values, x, torch::full({2, 3}, 10, torch::kLong), weights),
               c10::IndexError);
}

}  // namespace
}  // namespace memlayers
