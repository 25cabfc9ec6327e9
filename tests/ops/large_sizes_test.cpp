// SPDX-License-Identifier: Apache-2.0
// Counts beyond 2^31: slots, numbers of a table, contributions. Tables are mapped and zero, so that
// only what is touched takes memory; results must be the bits of the same rows in a small table.
#include <sys/mman.h>

#include "kernels/kernels.h"
#include "memlayers/ops.h"
#include "memlayers/row_updates.h"
#include "ops/op_testing.h"
#include "ops/torch/operators.h"

namespace memlayers {
namespace {

using testing::expect_near;
using testing::normal;

constexpr std::int64_t kMost32 = std::int64_t{1} << 31;

at::Tensor mapped_zeros(at::IntArrayRef shape, at::ScalarType type) {
  const std::size_t bytes = c10::multiply_integers(shape) * c10::elementSize(type);
  void* const data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  TORCH_CHECK(data != MAP_FAILED, "mmap of ", bytes, " bytes");
  return torch::from_blob(data, shape, [bytes](void* p) { ::munmap(p, bytes); }, type);
}

// Rows of a small table [count, ..] that also stand, far apart, in one of more than 2^31 numbers.
struct TwoTables {
  at::Tensor small, large;
  at::Tensor places;  // [count]: where they stand

  explicit TwoTables(const at::Tensor& rows) : small(rows.clone()) {
    const std::int64_t count = rows.size(0), last = kMost32 / rows.size(1) + 8;
    large = mapped_zeros({last + 1, rows.size(1)}, rows.scalar_type());
    places = torch::linspace(0, static_cast<double>(last), count, torch::kDouble).to(torch::kLong);
    large.index_copy_(0, places, rows);
  }
  at::Tensor in_large(const at::Tensor& slots) const {
    return places.index_select(0, slots.flatten()).view(slots.sizes());
  }
  // The large table's rows at the places.
  at::Tensor back() const { return large.index_select(0, places); }
};

constexpr std::int64_t kRows = 20, kWidth = 1024;

struct Reads {
  at::Tensor slots = testing::random_slots({6, 9}, kRows, 1), weights = normal({6, 9}, 2);
  at::Tensor grad = normal({6, kWidth}, 3);
  Reads() { slots[5].fill_(kRows - 1); }  // the last row
};

TEST(LargeSizes, GatherReadsTablesOfMoreThanTwoToThe31Numbers) {
  const Reads r;
  for (const auto type : {torch::kFloat, torch::kBFloat16}) {
    const TwoTables t(normal({kRows, kWidth}, 4).to(type));
    const at::Tensor far = t.in_large(r.slots);
    EXPECT_GT(far.max().item<std::int64_t>() * kWidth, kMost32);
    EXPECT_TRUE(torch::equal(gather(t.large, far, r.weights), gather(t.small, r.slots, r.weights)));
    EXPECT_TRUE(torch::equal(ops::cpu::gather_backward_weights(r.grad, t.large, far),
                             ops::cpu::gather_backward_weights(r.grad, t.small, r.slots)));
    const at::Tensor x = normal({6, kWidth / 2}, 5);
    EXPECT_TRUE(torch::equal(peer_gather(t.large, x, far, r.weights),
                             peer_gather(t.small, x, r.slots, r.weights)));
    EXPECT_THROW(gather(t.large, torch::full_like(far, t.large.size(0)), r.weights),
                 c10::IndexError);
  }
}

TEST(LargeSizes, GatherReadsQuantizedTablesOfMoreThanTwoToThe31Bytes) {
  const Reads r;
  for (const RowType type : {RowType::kInt8, RowType::kInt4}) {
    const TwoTables t(quantize_rows(normal({kRows, kWidth}, 4), type));
    EXPECT_TRUE(
        torch::equal(gather_quantized(t.large, type, kWidth, t.in_large(r.slots), r.weights),
                     gather_quantized(t.small, type, kWidth, r.slots, r.weights)));
  }
}

TEST(LargeSizes, UpdatesReachTheLastRowsOfSuchTables) {
  const Reads r;
  TwoTables t(normal({kRows, kWidth}, 4));
  const auto step = [&](at::Tensor& values, const at::Tensor& slots) {
    RowState state;
    state.exp_avg = mapped_zeros(values.sizes(), torch::kFloat);
    state.exp_avg_sq = mapped_zeros(values.sizes(), torch::kFloat);
    state.steps = mapped_zeros({values.size(0)}, torch::kInt);
    const GroupedGradient gradient = group({{slots, r.weights, r.grad}}, values.size(0), kWidth);
    update_adamw(values, state, gradient, {.lr = 0.1});
    update_sgd(values, state, gradient, {.lr = 0.1});
    return norm(gradient, kWidth);
  };
  const at::Tensor before = t.small.clone();
  EXPECT_EQ(step(t.large, t.in_large(r.slots)), step(t.small, r.slots));
  EXPECT_FALSE(torch::equal(t.small[kRows - 1], before[kRows - 1]));
  EXPECT_TRUE(torch::equal(t.back(), t.small));
}

TEST(LargeSizes, RowwiseUpdatesReachTheLastRowsOfSuchTables) {
  const Reads r;
  for (const auto& update : {update_rowwise_adamw, update_rowwise_adagrad}) {
    TwoTables t(normal({kRows, kWidth}, 4));
    const auto step = [&](at::Tensor& values, const at::Tensor& slots) {
      RowState state;
      state.exp_avg = mapped_zeros(values.sizes(), torch::kFloat);
      state.exp_avg_sq = mapped_zeros({values.size(0)}, torch::kFloat);
      state.steps = mapped_zeros({values.size(0)}, torch::kInt);
      update(values, state, group({{slots, r.weights, r.grad}}, values.size(0), kWidth),
             {.lr = 0.1});
      return state.exp_avg_sq;
    };
    const at::Tensor before = t.small.clone();
    const at::Tensor squares = step(t.large, t.in_large(r.slots)),
                     squares2 = step(t.small, r.slots);
    EXPECT_TRUE(torch::equal(squares.index_select(0, t.places), squares2));
    EXPECT_FALSE(torch::equal(t.small[kRows - 1], before[kRows - 1]));
    EXPECT_TRUE(torch::equal(t.back(), t.small));
  }
}

TEST(LargeSizes, PeerBackwardReadsSuchTablesAndNamesTheirLastRows) {
  const Reads r;
  const TwoTables t(normal({kRows, kWidth}, 4));
  const at::Tensor far = t.in_large(r.slots), x = normal({6, kWidth / 2}, 5) / 16;
  const at::Tensor grad = normal({6, kWidth / 2}, 6);
  EXPECT_GT(far.max().item<std::int64_t>() * kWidth, kMost32);
  const auto a = ops::cpu::peer_gather_backward(grad, t.large, x, far, r.weights);
  const auto b = ops::cpu::peer_gather_backward(grad, t.small, x, r.slots, r.weights);
  EXPECT_TRUE(torch::equal(std::get<0>(a), std::get<0>(b)));
  EXPECT_TRUE(torch::equal(std::get<1>(a), std::get<1>(b)));
  EXPECT_TRUE(torch::equal(std::get<2>(a), std::get<2>(b)));
  EXPECT_TRUE(torch::equal(std::get<3>(a), std::get<3>(b)));
  const at::Tensor u = std::get<2>(b), v = std::get<3>(b);
  const at::Tensor rows = ops::cpu::peer_gather_backward_values(grad, t.large, x, far, u, v,
                                                                /*sparse_grad=*/true);
  const at::Tensor rows2 = ops::cpu::peer_gather_backward_values(grad, t.small, x, r.slots, u, v,
                                                                 /*sparse_grad=*/true);
  EXPECT_TRUE(torch::equal(rows.indices(), t.in_large(rows2.indices())));
  EXPECT_TRUE(torch::equal(rows.values(), rows2.values()));
}

TEST(LargeSizes, LookupFindsSlotsBeyondTwoToThe31) {
  constexpr std::int64_t n = 1 << 16, k = 4;
  at::Tensor keys = normal({2, 2, n, 2}, 1);
  keys.select(2, n - 5).fill_(20);  // the best of all, at the end of both halves
  at::Tensor query = normal({3, 2, 4}, 2).abs().requires_grad_(), query2 = query.detach().clone();
  query2.requires_grad_();
  at::Tensor keys2 = keys.clone().requires_grad_();
  keys.requires_grad_();
  const auto [slots, scores] = lookup(query, keys, k);
  const auto [slots2, scores2] = reference::lookup(query2, keys2, k);
  EXPECT_TRUE(torch::equal(slots, slots2));
  EXPECT_GT(slots.min().item<std::int64_t>(), 0);
  EXPECT_GT(slots.max().item<std::int64_t>(), kMost32);
  EXPECT_TRUE(torch::equal(std::get<0>(lookup_softmax(query.detach(), pack_keys(keys.detach()), k)),
                           slots));
  scores.sum().backward();
  scores2.sum().backward();
  expect_near(query.grad(), query2.grad(), 1e-4);
  expect_near(keys.grad(), keys2.grad(), 1e-4);
}

TEST(LargeSizes, GatherSumsMoreThanTwoToThe31Contributions) {
  if (&kernels::active() != kernels::supported().back()) GTEST_SKIP() << "once is enough";
  constexpr std::int64_t J = 1 << 20, T = kMost32 / J + 1;
  const at::Tensor values = torch::tensor({{2.0F}, {5.0F}});
  at::Tensor slots = mapped_zeros({T, J}, torch::kLong);
  at::Tensor weights = mapped_zeros({T, J}, torch::kFloat);
  slots[T - 1][J - 1] = 1;
  weights[T - 1][J - 1] = 3;
  weights[0][0] = 1;
  at::Tensor wanted = torch::zeros({T, 1});
  wanted[T - 1] = 15;
  wanted[0] = 2;
  EXPECT_TRUE(torch::equal(gather(values, slots, weights), wanted));
  slots[T - 1][J - 1] = 2;
  EXPECT_THROW(gather(values, slots, weights), c10::IndexError);
}

}  // namespace
}  // namespace memlayers
