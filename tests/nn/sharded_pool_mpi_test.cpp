// SPDX-License-Identifier: Apache-2.0
// A pool that all processes of the test hold together, beside one that each holds alone.
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>

#include "dist/collectives.h"
#include "memlayers/memory_layer.h"
#include "memlayers/optimizer.h"
#include "support/testing.h"

namespace memlayers {
namespace {

constexpr std::int64_t kDim = 24, kSlots = 9;

struct Setting {
  std::int64_t v_dim = 768;
  MemoryVariant variant = MemoryVariant::kMemoryPlus;
  RowType row_type = RowType::kFloat32;
};

class ShardedPool : public ::testing::Test {
 protected:
  void SetUp() override { at::set_num_threads(1); }

  static MemoryConfig config(const Setting& s) {
    MemoryConfig config;
    config.n_keys = kSlots;
    config.heads = 2;
    config.knn = 5;
    config.k_dim = 8;
    config.v_dim = s.v_dim;
    config.variant = s.variant;
    return config;
  }
  static PoolOptions options(const Setting& s) {
    const bool is_peer = s.variant == MemoryVariant::kPeer;
    return {.n_keys = kSlots,
            .width = is_peer ? kDim + s.v_dim : s.v_dim,
            .row_dtype = s.row_type,
            .seed = 3,
            .u_width = is_peer ? kDim : 0};
  }
  MemoryPool alone(const Setting& s) const { return MemoryPool(options(s)); }
  MemoryPool sharded(const Setting& s, std::optional<PoolSplit> split = {}) const {
    PoolOptions o = options(s);
    o.group = {group_, split};
    return MemoryPool(o);
  }
  PoolSplit by_columns() const { return {size_, 1}; }
  PoolSplit by_rows() const { return {1, size_}; }

  // What this process holds of a table like the whole pool's.
  static at::Tensor part_of(const at::Tensor& whole, const PoolPart& part) {
    std::vector<at::Tensor> columns;
    for (const auto& range : part.columns)
      columns.push_back(whole.narrow(1, range.first, range.width));
    return at::cat(columns, 1)
        .slice(0, part.first_slot, whole.size(0), part.slot_step)
        .contiguous();
  }
  // Tokens of a process: each has another number of them, the second one none.
  static at::Tensor tokens(int rank, int round = 0) {
    torch::manual_seed(100 + rank + 10 * round);
    return torch::randn({rank == 1 ? 0 : 7 + 3 * rank, kDim});
  }

  struct Outcome {
    std::vector<at::Tensor> outputs, gradients;  // of every process's tokens alone
    std::vector<at::Tensor> layer_gradients;     // of this process
    at::Tensor rows;                             // the pool's gradient
  };
  static MemoryLayer layer(const Setting& s, const MemoryPool& pool) {
    torch::manual_seed(5);
    return MemoryLayer(kDim, config(s), pool);
  }
  // Output and gradients for the tokens of `rank`.
  static void step(MemoryLayer& layer, int rank, Outcome& outcome, int round = 0) {
    at::Tensor x = tokens(rank, round).requires_grad_();
    const at::Tensor y = layer->forward(x);
    torch::manual_seed(200 + rank + 10 * round);
    layer->zero_grad();
    y.backward(torch::randn_like(y));
    outcome.outputs.push_back(y.detach());
    outcome.gradients.push_back(x.grad());
    outcome.layer_gradients.clear();
    for (const auto& p : layer->named_parameters()) {
      if (p.key() != "pool.values") outcome.layer_gradients.push_back(p.value().grad());
    }
  }
  // One process with the tokens of all, one after the other; layer_gradients of this rank's.
  Outcome run_alone(const Setting& s, const MemoryPool& pool, int round = 0) const {
    MemoryLayer l = layer(s, pool);
    Outcome outcome;
    std::vector<at::Tensor> own;
    for (int rank = 0; rank < size_; ++rank) {
      step(l, rank, outcome, round);
      if (rank == rank_) {
        for (const at::Tensor& g : outcome.layer_gradients) own.push_back(g.clone());
      }
    }
    outcome.layer_gradients = own;
    outcome.rows = pool->dense_gradient();
    return outcome;
  }
  Outcome run_sharded(const Setting& s, const MemoryPool& pool, int round = 0) const {
    MemoryLayer l = layer(s, pool);
    Outcome outcome;
    step(l, rank_, outcome, round);
    outcome.rows = pool->dense_gradient();
    return outcome;
  }
  void expect_same(const Outcome& alone, const Outcome& together, const PoolPart& part,
                   double tolerance) const {
    const auto same = [&](const at::Tensor& a, const at::Tensor& b) {
      if (tolerance == 0) return a.equal(b);
      return a.sizes() == b.sizes() && at::allclose(a, b, tolerance, tolerance);
    };
    const auto own = static_cast<std::size_t>(rank_);
    EXPECT_TRUE(same(alone.outputs[own], together.outputs[0]));
    EXPECT_TRUE(same(alone.gradients[own], together.gradients[0]));
    ASSERT_EQ(alone.layer_gradients.size(), together.layer_gradients.size());
    for (std::size_t i = 0; i < alone.layer_gradients.size(); ++i) {
      EXPECT_TRUE(same(alone.layer_gradients[i], together.layer_gradients[i])) << i;
    }
    EXPECT_TRUE(same(part_of(alone.rows, part), together.rows));
  }

  std::shared_ptr<Communicator> group_ = world();
  int rank_ = group_->rank(), size_ = group_->size();
};

TEST_F(ShardedPool, EveryPartStartsWithTheBitsOfTheWhole) {
  for (const Setting& s :
       {Setting{}, Setting{.v_dim = 100}, Setting{.v_dim = 100, .row_type = RowType::kBFloat16},
        Setting{.v_dim = 33, .variant = MemoryVariant::kPeer}}) {
    for (const PoolSplit& split : {by_columns(), by_rows()}) {
      const MemoryPool pool = sharded(s, split);
      EXPECT_TRUE(part_of(alone(s)->values.detach(), pool->part()).equal(pool->values.detach()));
    }
  }
}

TEST_F(ShardedPool, ByColumnsALayerHasTheBitsOfOneProcess) {
  for (const Setting& s :
       {Setting{}, Setting{.v_dim = 100}, Setting{.v_dim = 500, .variant = MemoryVariant::kPlain},
        Setting{.v_dim = 256, .row_type = RowType::kBFloat16}, Setting{.v_dim = 31},
        Setting{.v_dim = 160, .variant = MemoryVariant::kPeer}}) {
    const MemoryPool one = alone(s), many = sharded(s, by_columns());
    expect_same(run_alone(s, one), run_sharded(s, many), many->part(), 0);
    EXPECT_EQ(many->part().slot_step, 1);
    EXPECT_TRUE(one->usage().equal(many->usage()));
  }
}

TEST_F(ShardedPool, ByRowsALayerAgreesWithOneProcess) {
  for (const Setting& s : {Setting{.v_dim = 64}, Setting{.v_dim = 33},
                           Setting{.v_dim = 40, .variant = MemoryVariant::kPeer}}) {
    const MemoryPool one = alone(s), many = sharded(s, by_rows());
    expect_same(run_alone(s, one), run_sharded(s, many), many->part(), 1e-6);
    EXPECT_EQ(many->values.size(1), many->width());
    const at::Tensor usage =
        one->usage().slice(0, many->part().first_slot, one->slots(), many->part().slot_step);
    EXPECT_TRUE(many->usage().equal(usage));
  }
}

TEST_F(ShardedPool, AProductOfBothAgreesWithOneProcess) {
  if (size_ % 2 != 0) GTEST_SKIP() << "a product needs an even number of processes";
  const Setting s{.v_dim = 100};
  const MemoryPool one = alone(s), many = sharded(s, PoolSplit{2, size_ / 2});
  expect_same(run_alone(s, one), run_sharded(s, many), many->part(), 1e-6);
}

TEST_F(ShardedPool, TheSameLayoutTwiceGivesTheSameBits) {
  for (const PoolSplit& split : {by_columns(), by_rows()}) {
    const Setting s{.v_dim = 64};
    const MemoryPool first = sharded(s, split), second = sharded(s, split);
    const Outcome a = run_sharded(s, first), b = run_sharded(s, second);
    EXPECT_TRUE(a.outputs[0].equal(b.outputs[0]));
    EXPECT_TRUE(a.gradients[0].equal(b.gradients[0]));
    EXPECT_TRUE(a.rows.equal(b.rows));
  }
}

TEST_F(ShardedPool, EveryOptimizerUpdatesAPartAsItUpdatesTheWhole) {
  const std::pair<PoolOptimizer, RowType> cases[] = {
      {PoolOptimizer::kAdamW, RowType::kFloat32},
      {PoolOptimizer::kAdamW, RowType::kBFloat16},
      {PoolOptimizer::kSgd, RowType::kBFloat16},
      {PoolOptimizer::kRowwiseAdamW, RowType::kFloat32},
      {PoolOptimizer::kRowwiseAdagrad, RowType::kBFloat16},
      {PoolOptimizer::kDenseAdamW, RowType::kFloat32}};
  for (const auto& [kind, type] : cases) {
    for (const PoolSplit& split : {by_columns(), by_rows()}) {
      const Setting s{.v_dim = 100, .row_type = type};
      MemoryPool one = alone(s), many = sharded(s, split);
      const RowOptimizer::Options o{.weight_decay = 0.1, .kind = kind, .seed = 4};
      RowOptimizer of_one(one, o), of_many(many, o);
      for (int round = 0; round < 2; ++round) {
        run_alone(s, one, round);
        run_sharded(s, many, round);
        const auto a = of_one.step(1e-2, 0.5, 0.3), b = of_many.step(1e-2, 0.5, 0.3);
        EXPECT_NEAR(a.gradient_norm, b.gradient_norm, 1e-6 * a.gradient_norm);
        EXPECT_EQ(a.touched_rows, b.touched_rows);
      }
      one->catch_up();
      many->catch_up();
      const at::Tensor wanted = part_of(one->values.detach(), many->part()).to(torch::kFloat);
      const at::Tensor got = many->values.detach().to(torch::kFloat);
      // By rows, sums come in another order, and a rounding may then fall to the other side.
      const double tolerance = type == RowType::kFloat32 ? 1e-5 : 1.0 / 64;
      EXPECT_TRUE(at::allclose(wanted, got, tolerance, tolerance / 10))
          << static_cast<int>(kind) << ' ' << static_cast<int>(type);
      if (split.row_parts == 1 && type == RowType::kBFloat16) {
        // Random bits are those of slot and column in the whole pool.
        EXPECT_LT((wanted != got).sum().item<double>(),
                  0.01 * static_cast<double>(got.numel()) + 1);
      }
    }
  }
}

TEST_F(ShardedPool, ReadsWithoutGradientToo) {
  const Setting s{.v_dim = 64};
  MemoryPool one = alone(s), many = sharded(s);
  const torch::NoGradGuard no_grad;
  const at::Tensor x = tokens(rank_);
  EXPECT_TRUE(at::allclose(layer(s, one)->forward(x), layer(s, many)->forward(x), 1e-6, 1e-6));
  EXPECT_EQ(many->usage().sum().item<std::int64_t>(), 0);
}

TEST_F(ShardedPool, RefusesWhatItCannotHold) {
  if (size_ == 1) GTEST_SKIP();
  const auto error = [&](PoolOptions o) {
    o.group.processes = group_;
    return testing::error_of([&] { MemoryPool pool(o); });
  };
  EXPECT_TRUE(testing::says(error({.n_keys = 4, .width = 64, .group = {.split = PoolSplit{1, 77}}}),
                            {"for 77 processes", "group of " + std::to_string(size_)}));
  PoolOptions quantized{.n_keys = 4, .width = 64, .row_dtype = RowType::kInt8};
  quantized.group.processes = group_;
  EXPECT_THROW(MemoryPool{quantized}, c10::ValueError);
  const Setting s{.v_dim = 64};
  EXPECT_THROW(sharded(s)->quantize(RowType::kInt8), c10::ValueError);
}

}  // namespace
}  // namespace memlayers
