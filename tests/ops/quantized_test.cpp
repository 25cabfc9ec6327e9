// SPDX-License-Identifier: Apache-2.0
#include <limits>
#include <string>

#include "memlayers/ops.h"
#include "ops/op_testing.h"
#include "ops/torch/operators.h"

namespace memlayers {
namespace {

using testing::expect_near;
using testing::normal;
using testing::random_slots;

constexpr RowType kTypes[] = {RowType::kInt8, RowType::kInt4};

TEST(QuantizedRows, ReadAsTheirAtenTwinReadsThem) {
  for (RowType type : kTypes) {
    for (std::int64_t W : {1, 16, 33, 64, 100, 256, 300}) {
      const at::Tensor rows = quantize_rows(normal({30, W}, 1), type);
      EXPECT_EQ(rows.size(1), quantized_row_bytes(type, W));
      EXPECT_TRUE(
          torch::equal(dequantize_rows(rows, type, W), reference::dequantize_rows(rows, type, W)));
    }
  }
}

TEST(QuantizedRows, AreTheSameFromBfloat16AndForAnyNumberOfThreads) {
  for (RowType type : kTypes) {
    const at::Tensor values = normal({3000, 40}, 1).to(torch::kBFloat16);
    EXPECT_TRUE(
        torch::equal(quantize_rows(values, type), quantize_rows(values.to(torch::kFloat), type)));
    testing::expect_same_bits_for_any_threads([&] { return quantize_rows(values, type); });
  }
}

// What the kernels' factors of 16 bits may cost (src/kernels/pairs.inl).
double rounding(const at::Tensor& values, const at::Tensor& weights) {
  if (weights.numel() == 0) return 0;
  const auto most = [](const at::Tensor& x) { return x.abs().max().item<double>(); };
  return static_cast<double>(weights.size(1)) * most(values) * most(weights) / 65534;
}

TEST(QuantizedRows, AreGatheredAsTheRowsTheyRead) {
  for (RowType type : kTypes) {
    for (std::int64_t W : {7, 64, 100, 256}) {
      for (std::int64_t J : {0, 5, 37}) {
        const at::Tensor rows = quantize_rows(normal({50, W}, 1), type);
        const at::Tensor values = dequantize_rows(rows, type, W);
        const at::Tensor slots = random_slots({9, J}, 50, 3), grad = normal({9, W}, 4);
        at::Tensor weights = normal({9, J}, 2).requires_grad_();
        at::Tensor weights2 = weights.detach().clone().requires_grad_();
        const at::Tensor out = gather_quantized(rows, type, W, slots, weights);
        const at::Tensor wanted = reference::gather(values, slots, weights2);
        expect_near(out, wanted, testing::sum_tolerance(J, 60) + rounding(values, weights));
        out.backward(grad);
        wanted.backward(grad);
        expect_near(weights.grad(), weights2.grad(), testing::sum_tolerance(W, 60));
      }
    }
  }
}

TEST(QuantizedRows, OfFewTokensGiveTheSameBitsWhereThreadsShareColumns) {
  for (RowType type : kTypes) {
    for (std::int64_t W : {200, 256, 700, 1024}) {
      const at::Tensor rows = quantize_rows(normal({50, W}, 1), type), weights = normal({2, 20}, 2);
      const at::Tensor slots = random_slots({2, 20}, 50, 3);
      testing::expect_same_bits_for_any_threads(
          [&] { return gather_quantized(rows, type, W, slots, weights); });
    }
  }
}

TEST(QuantizedRows, AreReadByPeerAsTheRowsTheyRead) {
  constexpr std::int64_t D = 64, W = 160;
  for (RowType type : kTypes) {
    const at::Tensor rows = quantize_rows(normal({50, W}, 1), type);
    const at::Tensor values = dequantize_rows(rows, type, W);
    const at::Tensor slots = random_slots({9, 21}, 50, 3), grad = normal({9, W - D}, 4);
    at::Tensor x = (normal({9, D}, 5) / 8).requires_grad_();
    at::Tensor weights = normal({9, 21}, 2).requires_grad_();
    at::Tensor x2 = x.detach().clone().requires_grad_();
    at::Tensor weights2 = weights.detach().clone().requires_grad_();
    const at::Tensor out = peer_gather_quantized(rows, type, W, x, slots, weights);
    const at::Tensor wanted = reference::peer_gather(values, x2, slots, weights2);
    expect_near(out, wanted, testing::sum_tolerance(W, 100));
    out.backward(grad);
    wanted.backward(grad);
    expect_near(x.grad(), x2.grad(), testing::sum_tolerance(W, 400));
    expect_near(weights.grad(), weights2.grad(), testing::sum_tolerance(W, 400));
  }
}

TEST(QuantizedRows, TakeNoTokens) {
  constexpr std::int64_t D = 64, W = 100;
  for (RowType type : kTypes) {
    const at::Tensor rows = quantize_rows(normal({10, W}, 1), type);
    for (std::int64_t J : {0, 5}) {
      const at::Tensor slots = torch::zeros({0, J}, torch::kLong);
      at::Tensor weights = torch::zeros({0, J}, torch::requires_grad());
      at::Tensor x = torch::zeros({0, D}, torch::requires_grad());
      const at::Tensor sums = gather_quantized(rows, type, W, slots, weights);
      const at::Tensor peer_sums = peer_gather_quantized(rows, type, W, x, slots, weights);
      EXPECT_EQ(sums.sizes(), at::IntArrayRef({0, W}));
      EXPECT_EQ(peer_sums.sizes(), at::IntArrayRef({0, W - D}));
      const std::int64_t bits = type == RowType::kInt8 ? 8 : 4;
      EXPECT_EQ(ops::composite::gather_quantized(rows, slots, weights.detach(), bits, W).sizes(),
                at::IntArrayRef({0, W}));
      (sums.sum() + peer_sums.sum()).backward();
      EXPECT_EQ(weights.grad().sizes(), at::IntArrayRef({0, J}));
      EXPECT_EQ(x.grad().sizes(), at::IntArrayRef({0, D}));
    }
  }
}

TEST(QuantizedRows, AreReadByTensorsThatAreNotContiguous) {
  constexpr std::int64_t D = 64, W = 100;
  const at::Tensor slots = random_slots({9, 21}, 50, 3), weights = normal({9, 21}, 2);
  const at::Tensor x = normal({9, D}, 5) / 8;
  const at::Tensor wide = normal({9, W}, 6), grad = normal({9, W - D}, 4);
  const at::Tensor slots2 = testing::column_by_column(slots),
                   weights2 = testing::column_by_column(weights);
  const at::Tensor x2 = testing::column_by_column(x);
  const at::Tensor wide2 = testing::column_by_column(wide), grad2 = testing::column_by_column(grad);
  for (RowType type : kTypes) {
    const std::int64_t bits = type == RowType::kInt8 ? 8 : 4;
    const at::Tensor rows = quantize_rows(normal({50, W}, 1), type),
                     rows2 = testing::column_by_column(rows);
    ASSERT_FALSE(rows2.is_contiguous() || slots2.is_contiguous() || weights2.is_contiguous());
    EXPECT_TRUE(torch::equal(gather_quantized(rows2, type, W, slots2, weights2),
                             gather_quantized(rows, type, W, slots, weights)));
    EXPECT_TRUE(torch::equal(peer_gather_quantized(rows2, type, W, x2, slots2, weights2),
                             peer_gather_quantized(rows, type, W, x, slots, weights)));
    EXPECT_TRUE(
        torch::equal(ops::cpu::gather_quantized_backward_weights(wide2, rows2, slots2, bits, W),
                     ops::cpu::gather_quantized_backward_weights(wide, rows, slots, bits, W)));
    const auto [gx, gw] =
        ops::cpu::peer_gather_quantized_backward(grad2, rows2, x2, slots2, weights2, bits, W);
    const auto [gx2, gw2] =
        ops::cpu::peer_gather_quantized_backward(grad, rows, x, slots, weights, bits, W);
    EXPECT_TRUE(torch::equal(gx, gx2));
    EXPECT_TRUE(torch::equal(gw, gw2));
  }
}

// Weights are whole numbers beside the greatest of a pass: a NaN must not become one of them.
TEST(QuantizedRows, ShowANanWeightInItsTokenAlone) {
  for (RowType type : kTypes) {
    for (std::int64_t W : {7, 100, 300}) {
      SCOPED_TRACE("width " + std::to_string(W));
      const at::Tensor rows = quantize_rows(normal({50, W}, 1), type);
      const at::Tensor slots = random_slots({9, 21}, 50, 3);
      testing::expect_nan_in_its_token_alone(normal({9, 21}, 2), [&](const at::Tensor& weights) {
        return gather_quantized(rows, type, W, slots, weights);
      });
    }
  }
}

TEST(QuantizedRows, OnOtherDevicesAreTheSameFormula) {
  const at::Tensor slots = random_slots({6, 9}, 20, 3), weights = normal({6, 9}, 2);
  const at::Tensor x = normal({6, 64}, 5) / 8, grad = normal({6, 36}, 4),
                   wide = normal({6, 100}, 6);
  for (RowType type : kTypes) {
    const std::int64_t bits = type == RowType::kInt8 ? 8 : 4;
    const at::Tensor rows = quantize_rows(normal({20, 100}, 1), type);
    expect_near(ops::composite::gather_quantized(rows, slots, weights, bits, 100),
                ops::cpu::gather_quantized(rows, slots, weights, bits, 100),
                1e-4 + rounding(dequantize_rows(rows, type, 100), weights));
    expect_near(ops::composite::gather_quantized_backward_weights(wide, rows, slots, bits, 100),
                ops::cpu::gather_quantized_backward_weights(wide, rows, slots, bits, 100), 1e-4);
    expect_near(ops::composite::peer_gather_quantized(rows, x, slots, weights, bits, 100),
                ops::cpu::peer_gather_quantized(rows, x, slots, weights, bits, 100),
                1e-4 + 4 * rounding(dequantize_rows(rows, type, 100), weights));  // |gelu(x.u)| < 4
    const auto [gx, gw] =
        ops::composite::peer_gather_quantized_backward(grad, rows, x, slots, weights, bits, 100);
    const auto [gx2, gw2] =
        ops::cpu::peer_gather_quantized_backward(grad, rows, x, slots, weights, bits, 100);
    expect_near(gx, gx2, 1e-3 + 20 * rounding(dequantize_rows(rows, type, 100), weights));
    expect_near(gw, gw2, 1e-3);  // of dots alone, which round nothing
  }
}

TEST(QuantizedRows, RefuseWhatDoesNotFit) {
  const at::Tensor rows = quantize_rows(normal({10, 70}, 1), RowType::kInt4);
  const at::Tensor slots = torch::zeros({2, 3}, torch::kLong), weights = normal({2, 3}, 2);
  EXPECT_THROW(quantize_rows(normal({10, 70}, 1), RowType::kBFloat16), c10::ValueError);
  EXPECT_THROW(
      quantize_rows(torch::full({2, 3}, std::numeric_limits<float>::quiet_NaN()), RowType::kInt8),
      c10::ValueError);
  EXPECT_THROW(quantize_rows(normal({4}, 1), RowType::kInt8), c10::ValueError);
  EXPECT_THROW(gather_quantized(rows, RowType::kInt8, 70, slots, weights), c10::ValueError);
  EXPECT_THROW(gather_quantized(rows, RowType::kInt4, 300, slots, weights), c10::ValueError);
  EXPECT_THROW(gather_quantized(rows.to(torch::kInt), RowType::kInt4, 70, slots, weights),
               c10::TypeError);
  EXPECT_THROW(gather_quantized(rows, RowType::kInt4, 70, slots + 10, weights), c10::IndexError);
  EXPECT_THROW(peer_gather_quantized(rows, RowType::kInt4, 70, normal({2, 60}, 3), slots, weights),
               c10::ValueError)
      << "U must end with a block";
}

}  // namespace
}  // namespace memlayers
