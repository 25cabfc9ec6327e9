// SPDX-License-Identifier: Apache-2.0
#include "memlayers/memory_layer.h"
#include "memlayers/ops.h"
#include "memlayers/optimizer.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/optim/adamw.h>
#include <torch/serialize.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <functional>
#include <sstream>
#include <vector>

#include "ops/op_testing.h"

namespace memlayers {
namespace {

constexpr std::int64_t kDim = 12;

MemoryConfig small_config() {
  MemoryConfig config;
  config.n_keys = 9;
  config.heads = 2;
  config.knn = 4;
  config.k_dim = 6;
  return config;
}

MemoryPool pool_for(const MemoryConfig& config, RowType type = RowType::kFloat32) {
  const std::int64_t v_dim = config.v_dim.value_or(kDim);
  const bool is_peer = config.variant == MemoryVariant::kPeer;
  return MemoryPool(PoolOptions{.n_keys = config.n_keys,
                                .width = is_peer ? kDim + v_dim : v_dim,
                                .row_dtype = type,
                                .seed = 3});
}

std::vector<MemoryConfig> all_variants() {
  std::vector<MemoryConfig> all;
  for (MemoryVariant variant :
       {MemoryVariant::kPlain, MemoryVariant::kMemoryPlus, MemoryVariant::kPeer}) {
    for (bool qk_norm : {false, true}) {
      MemoryConfig config = small_config();
      config.variant = variant;
      config.qk_norm = qk_norm;
      config.gate = qk_norm;
      if (qk_norm) config.v_dim = 7;
      all.push_back(config);
    }
    MemoryConfig config = small_config();  // a gate of two layers
    config.variant = variant;
    config.gate = true;
    config.gate_dim = 5;
    all.push_back(config);
  }
  return all;
}

constexpr double kScale = 1.75;  // of the layers with a gate of two layers

MemoryLayer layer_of(const MemoryConfig& config) {
  MemoryLayer layer(kDim, config, pool_for(config));
  if (config.gate_dim) layer->output_scale = kScale;
  return layer;
}

// The layer's formulas over all slots, in float64 and without any of our operators.
at::Tensor plain_forward(MemoryLayer& layer, const at::Tensor& x_in) {
  const MemoryConfig& c = layer->config();
  const auto wide = [](const at::Tensor& t) { return t.to(torch::kDouble); };
  const auto linear = [&](const at::Tensor& in, const Linear& l) {
    return torch::linear(in, wide(l->weight), wide(l->bias));
  };
  const at::Tensor x = wide(x_in);
  const std::int64_t T = x.size(0), H = c.heads, n = c.n_keys;
  at::Tensor q = linear(x, layer->query_proj).view({T, H, 2, c.k_dim / 2});
  at::Tensor k = wide(layer->keys);
  if (c.qk_norm) {
    const auto norm = [](const at::Tensor& t) {
      return t / (t.square().mean(-1, true) + 1e-6).sqrt();
    };
    q = norm(q) * wide(layer->query_norm).view({2, c.k_dim / 2});
    k = norm(k) * wide(layer->key_norm).view({2, 1, c.k_dim / 2});
  }
  const at::Tensor s = torch::einsum("thsd,hsnd->thsn", {q, k});
  const at::Tensor grid = (s.select(2, 0).unsqueeze(-1) + s.select(2, 1).unsqueeze(-2)).flatten(2);
  const auto [best, place] = grid.topk(c.knn);
  const at::Tensor w = layer->output_scale * best.softmax(-1).view({T, -1});
  const at::Tensor slots = row_major_slots(n).index_select(0, place.flatten());
  at::Tensor rows = wide(layer->pool()->values).index_select(0, slots).view({T, H * c.knn, -1});
  at::Tensor weights = w;
  if (c.variant == MemoryVariant::kPeer) {
    weights = w * torch::gelu(torch::einsum("tjd,td->tj", {rows.narrow(2, 0, kDim), x}));
    rows = rows.narrow(2, kDim, rows.size(2) - kDim);
  }
  at::Tensor y = torch::einsum("tj,tjw->tw", {weights, rows});
  if (layer->swilu_proj) y = y * torch::silu(linear(x, layer->swilu_proj));
  if (layer->value_proj) y = linear(y, layer->value_proj);
  if (layer->gate) {
    const at::Tensor in = layer->gate_hidden ? torch::silu(linear(x, layer->gate_hidden)) : x;
    y = y * torch::sigmoid(linear(in, layer->gate));
  }
  return y;
}

TEST(MemoryLayer, EveryVariantIsItsFormulaOverAllSlots) {
  torch::manual_seed(1);
  for (const MemoryConfig& config : all_variants()) {
    MemoryLayer layer = layer_of(config);
    const at::Tensor x = torch::randn({5, kDim});
    const at::Tensor wanted = plain_forward(layer, x);
    EXPECT_LE((layer->forward(x) - wanted).abs().max().item<double>(), 1e-5);
  }
}

TEST(MemoryLayer, EveryGradientIsThatOfTheFormula) {
  torch::manual_seed(2);
  for (const MemoryConfig& config : all_variants()) {
    MemoryLayer layer = layer_of(config);
    at::Tensor x = torch::randn({6, kDim}).requires_grad_();
    const at::Tensor grad = torch::randn({6, kDim});
    layer->forward(x).backward(grad);
    const at::Tensor x_grad = x.grad().clone();
    const at::Tensor rows_grad = layer->pool()->dense_gradient();
    EXPECT_FALSE(layer->pool()->values.grad().defined());
    std::vector<at::Tensor> grads;
    for (const auto& p : layer->named_parameters()) {
      if (p.key() != "pool.values") grads.push_back(p.value().grad().clone());
    }
    layer->zero_grad();
    x.mutable_grad() = at::Tensor();
    plain_forward(layer, x).backward(grad.to(torch::kDouble));
    EXPECT_LE((x.grad() - x_grad).abs().max().item<double>(), 2e-5);
    EXPECT_LE((layer->pool()->values.grad() - rows_grad).abs().max().item<double>(), 2e-5);
    std::size_t i = 0;
    for (const auto& p : layer->named_parameters()) {
      if (p.key() == "pool.values") continue;
      EXPECT_LE((p.value().grad() - grads[i++]).abs().max().item<double>(), 5e-5) << p.key();
    }
  }
}

TEST(MemoryLayer, DecodesAsItTrainsWhateverItsGateAndScale) {
  torch::manual_seed(5);
  for (const MemoryConfig& config : all_variants()) {
    MemoryLayer layer = layer_of(config);
    for (const std::int64_t tokens : {1, 3}) {  // few: token by token
      const at::Tensor x = torch::randn({tokens, kDim});
      const at::Tensor wanted = layer->forward(x);
      const torch::NoGradGuard decoding;
      EXPECT_LE((layer->forward(x) - wanted).abs().max().item<double>(), 1e-5);
    }
  }
}

TEST(MemoryLayer, LayersShareOnePoolAndModelsDoNot) {
  const MemoryConfig config = small_config();
  MemoryPool pool = pool_for(config), other = pool_for(config);
  MemoryLayer a(kDim, config, pool), b(kDim, config, pool), c(kDim, config, other);
  const at::Tensor x = torch::randn({4, kDim});
  (a->forward(x).sum() + b->forward(x).sum()).backward();
  EXPECT_EQ(pool->gradient().size(), 2);
  EXPECT_EQ(other->gradient().size(), 0);
  const at::Tensor sum = pool->dense_gradient();
  pool->clear_gradient();
  a->forward(x).sum().backward();
  const at::Tensor first = pool->dense_gradient();
  pool->clear_gradient();
  b->forward(x).sum().backward();
  EXPECT_LE((first + pool->dense_gradient() - sum).abs().max().item<double>(), 1e-6);
}

TEST(MemoryLayer, ATorchOptimizerPassesThePoolBy) {
  const MemoryConfig config = small_config();
  MemoryLayer layer(kDim, config, pool_for(config));
  torch::optim::AdamW optimizer(layer->parameters());
  const at::Tensor before = layer->pool()->values.detach().clone();
  const at::Tensor keys = layer->keys.detach().clone();
  layer->forward(torch::randn({4, kDim})).sum().backward();
  optimizer.step();
  EXPECT_TRUE(torch::equal(layer->pool()->values, before));
  EXPECT_FALSE(torch::equal(layer->keys, keys));
}

TEST(MemoryLayer, IsSavedAndLoadedAsAnyTorchModule) {
  const MemoryConfig config = small_config();
  MemoryLayer layer(kDim, config, pool_for(config));
  std::stringstream stream;
  torch::save(layer, stream);
  MemoryPool pool = pool_for(config);
  torch::NoGradGuard no_grad;
  pool->values.zero_();
  MemoryLayer loaded(kDim, config, pool);
  torch::load(loaded, stream);
  const at::Tensor x = torch::randn({2, 3, kDim});
  EXPECT_TRUE(torch::equal(loaded->forward(x), layer->forward(x)));
}

TEST(MemoryLayer, MovesToAnotherTypeWithItsPool) {
  const MemoryConfig config = small_config();
  MemoryLayer layer(kDim, config, pool_for(config));
  const at::Tensor x = torch::randn({5, kDim});
  const at::Tensor wide = layer->forward(x);
  layer->to(torch::kBFloat16);
  EXPECT_EQ(layer->pool()->values.scalar_type(), torch::kBFloat16);
  const at::Tensor narrow = layer->forward(x.to(torch::kBFloat16));
  EXPECT_EQ(narrow.scalar_type(), torch::kBFloat16);
  // Slots may change where bfloat16 reorders scores; the bulk agrees.
  EXPECT_LE((narrow.to(torch::kFloat) - wide).abs().median().item<double>(), 0.1);
  narrow.sum().backward();
  EXPECT_EQ(layer->keys.grad().scalar_type(), torch::kBFloat16);
}

TEST(MemoryLayer, ReadsNothingThatLiesOnAnotherDevice) {
  MemoryConfig config = small_config();
  config.gate = true;
  using Part = std::function<at::Tensor&(MemoryLayer&)>;
  const std::vector<Part> parts{
      [](MemoryLayer& layer) -> at::Tensor& { return layer->keys; },
      [](MemoryLayer& layer) -> at::Tensor& { return layer->query_norm; },
      [](MemoryLayer& layer) -> at::Tensor& { return layer->key_norm; },
      [](MemoryLayer& layer) -> at::Tensor& { return layer->query_proj->weight; },
      [](MemoryLayer& layer) -> at::Tensor& { return layer->query_proj->bias; },
      [](MemoryLayer& layer) -> at::Tensor& { return layer->swilu_proj->weight; },
      [](MemoryLayer& layer) -> at::Tensor& { return layer->value_proj->weight; },
      [](MemoryLayer& layer) -> at::Tensor& { return layer->gate->weight; }};
  for (std::size_t part = 0; part < parts.size(); ++part) {
    for (const std::int64_t tokens : {1, 9}) {
      for (const bool decodes : {false, true}) {
        MemoryLayer layer(kDim, config, pool_for(config));
        parts[part](layer) = torch::empty_like(parts[part](layer), torch::kMeta);
        const torch::AutoGradMode mode(!decodes);
        try {
          EXPECT_TRUE(layer->forward(torch::ones({tokens, kDim})).is_meta()) << "part " << part;
        } catch (const c10::Error&) {  // says so
        }
      }
    }
  }
}

TEST(MemoryLayer, TakesNoTokensAndAnyLeadingShape) {
  const MemoryConfig config = small_config();
  MemoryLayer layer(kDim, config, pool_for(config));
  EXPECT_EQ(layer->forward(torch::zeros({0, 3, kDim})).sizes(), at::IntArrayRef({0, 3, kDim}));
  const at::Tensor x = torch::randn({2, 3, kDim});
  EXPECT_TRUE(torch::equal(layer->forward(x).view({6, kDim}), layer->forward(x.view({6, kDim}))));
}

TEST(MemoryLayer, CountsTheUseOfSlotsInTrainingOnly) {
  const MemoryConfig config = small_config();
  MemoryLayer layer(kDim, config, pool_for(config));
  const at::Tensor x = torch::randn({5, kDim});
  layer->forward(x);
  EXPECT_EQ(layer->pool()->usage().sum().item<int64_t>(), 5 * 2 * 4);
  layer->eval();
  layer->forward(x);
  EXPECT_EQ(layer->pool()->usage().sum().item<int64_t>(), 5 * 2 * 4);
}

TEST(MemoryLayer, RefusesWhatDoesNotFit) {
  MemoryConfig config = small_config();
  MemoryPool pool = pool_for(config);
  const auto make = [&](const MemoryConfig& c) { MemoryLayer(kDim, c, pool); };
  config.knn = 10;
  EXPECT_THROW(make(config), c10::ValueError);
  config = small_config();
  config.k_dim = 7;
  EXPECT_THROW(make(config), c10::ValueError);
  config = small_config();
  config.v_dim = kDim + 1;
  EXPECT_THROW(make(config), c10::ValueError);  // the pool's width
  config = small_config();
  config.n_keys = 8;
  EXPECT_THROW(make(config), c10::ValueError);  // the pool's n_keys
  EXPECT_THROW(MemoryLayer(kDim, small_config(), MemoryPool(nullptr)), c10::ValueError);
  EXPECT_THROW(MemoryLayer(kDim, small_config(), pool)->forward(torch::zeros({2, kDim + 1})),
               c10::ValueError);
  EXPECT_THROW(MemoryPool(PoolOptions{.n_keys = 0}), c10::ValueError);
  EXPECT_THROW(MemoryPool(PoolOptions{.n_keys = std::int64_t{1} << 40}), c10::ValueError);
}

TEST(MemoryPool, RecordsEachBackwardAndNoGraph) {
  for (const MemoryConfig& config : all_variants()) {
    MemoryPool pool = pool_for(config);
    MemoryLayer layer(kDim, config, pool);
    const at::Tensor y = layer->forward(torch::randn({4, kDim}).requires_grad_()).sum();
    y.backward({}, /*retain_graph=*/true);
    const at::Tensor once = pool->dense_gradient();
    for (const FactoredGradient& part : pool->gradient()) {
      EXPECT_FALSE(part.weights.requires_grad());
      EXPECT_FALSE(part.rows.requires_grad());
    }
    y.backward();
    EXPECT_LE((pool->dense_gradient() - 2 * once).abs().max().item<double>(), 1e-5);
  }
}

TEST(MemoryPool, RecordsNothingWhereNoGradientIsWanted) {
  const MemoryConfig config = small_config();
  MemoryPool pool = pool_for(config);
  MemoryLayer layer(kDim, config, pool);
  const at::Tensor x = torch::randn({4, kDim});
  {
    const torch::NoGradGuard no_grad;
    layer->forward(x);
  }
  EXPECT_EQ(pool->usage().sum().item<int64_t>(), 0);
  torch::autograd::grad({layer->forward(x).sum()}, {layer->keys});
  pool->values.set_requires_grad(false);
  layer->forward(x).sum().backward();
  EXPECT_TRUE(pool->gradient().empty());
}

TEST(MemoryPool, ARowHasTheSameBitsInAPoolOfAnySize) {
  MemoryPool small(PoolOptions{.n_keys = 4, .width = 33, .seed = 5});
  MemoryPool large(PoolOptions{.n_keys = 11, .width = 33, .seed = 5});
  EXPECT_TRUE(torch::equal(large->values.narrow(0, 0, 16), small->values));
  EXPECT_NEAR(large->values.std().item<double>(), 1 / std::sqrt(33.0), 0.02);
}

TEST(MemoryPool, QuantizedRowsAreReadAndGiveWeightsTheirGradientButAreNotTrained) {
  for (RowType type : {RowType::kInt8, RowType::kInt4}) {
    MemoryPool pool(PoolOptions{.n_keys = 5, .width = 70, .seed = 3});
    const at::Tensor rows = quantize_rows(pool->values, type);
    pool->quantize(type);
    EXPECT_TRUE(torch::equal(pool->values, rows));
    const at::Tensor slots = torch::tensor({{3, 24, 3}, {0, 1, 2}});
    at::Tensor weights = torch::rand({2, 3}).requires_grad_();
    at::Tensor weights2 = weights.detach().clone().requires_grad_();
    const at::Tensor y = pool->gather(slots, weights);
    const at::Tensor wanted = gather(dequantize_rows(rows, type, 70), slots, weights2);
    // Weights times scales are factors of 16 bits (src/kernels/pairs.inl).
    const double most = dequantize_rows(rows, type, 70).abs().max().item<double>();
    const double rounding = 3 * most / 65534;  // of three rows and weights below one
    EXPECT_TRUE(torch::allclose(y, wanted, 1e-5, rounding));
    y.sum().backward();
    wanted.sum().backward();
    EXPECT_TRUE(torch::allclose(weights.grad(), weights2.grad(), 1e-4, 1e-5));
    EXPECT_TRUE(pool->gradient().empty());
    EXPECT_THROW(RowOptimizer(pool, {}), c10::ValueError);
    EXPECT_THROW(pool->quantize(type), c10::ValueError);
  }
}

TEST(MemoryPool, NewQuantizedRowsAreTheNewFloatsQuantizedWithAnyThreads) {
  constexpr std::int64_t kKeys = 90, kWidth = 70;  // work for several threads
  const MemoryPool floats(PoolOptions{.n_keys = kKeys, .width = kWidth, .seed = 3});
  for (RowType type : {RowType::kInt8, RowType::kInt4}) {
    const at::Tensor wanted = quantize_rows(floats->values, type);
    testing::expect_same_bits_for_any_threads([&] {
      const MemoryPool made(PoolOptions{
          .n_keys = kKeys, .width = kWidth, .row_dtype = type, .init_std = {}, .seed = 3});
      EXPECT_TRUE(torch::equal(made->values, wanted));
      return made->values;
    });
  }
}

TEST(MemoryLayer, DecodesFewTokensAsItReadsMany) {
  torch::manual_seed(4);
  for (const MemoryConfig& config : all_variants()) {
    MemoryLayer layer(kDim, config, pool_for(config));
    const torch::NoGradGuard no_grad;
    const at::Tensor x = torch::randn({50, kDim});
    const auto expect_same = [&](const char* when) {
      const at::Tensor together = layer->forward(x);
      for (std::int64_t t = 0, count = 1; t + count <= 50; t += count, count = count % 4 + 1) {
        ASSERT_TRUE(torch::allclose(layer->forward(x.narrow(0, t, count)),
                                    together.narrow(0, t, count), 1e-4, 1e-5))
            << when << ", tokens " << t << " to " << t + count - 1;
        const auto [slots, weights] = layer->select(x.narrow(0, t, count));
        ASSERT_EQ(slots.sizes(), at::IntArrayRef({count, config.heads, config.knn}));
        ASSERT_EQ(weights.sizes(), slots.sizes());
      }
    };
    expect_same("as made");
    layer->keys.mul_(-1.5);  // what was kept of the old sub-keys must not be used
    expect_same("keys changed");
    if (config.qk_norm) {
      layer->key_norm.mul_(2).add_(0.1);
      layer->query_norm.add_(torch::linspace(0, 1, config.k_dim));
      expect_same("norms changed");
    }
  }
}

TEST(MemoryLayer, DecodesInBfloat16WithTheRoundingOfEachOperator) {
  torch::manual_seed(5);
  for (const MemoryConfig& config : all_variants()) {
    MemoryLayer layer(kDim, config, pool_for(config));
    layer->to(torch::kBFloat16);
    const torch::NoGradGuard no_grad;
    const at::Tensor x = torch::randn({40, kDim}).to(torch::kBFloat16);
    const at::Tensor together = layer->forward(x).to(torch::kFloat);
    std::int64_t same = 0;
    for (std::int64_t t = 0; t < 40; ++t) {
      const at::Tensor one = layer->forward(x.narrow(0, t, 1));
      ASSERT_EQ(one.scalar_type(), torch::kBFloat16);
      // Sums in another order are rounded apart here and there, by a step of 8 bits each time.
      same += torch::allclose(one.to(torch::kFloat), together.narrow(0, t, 1), 0x1p-6, 0x1p-8);
    }
    EXPECT_GE(same, 38);  // a query rounded apart may choose another slot
  }
}

TEST(MemoryLayer, DecodesToTheSameBitsForAnyNumberOfThreads) {
  torch::manual_seed(6);
  MemoryConfig config;  // wide enough for threads to share a token
  config.n_keys = 64;
  config.k_dim = 128;
  constexpr std::int64_t kWide = 512;
  MemoryPool pool(PoolOptions{.n_keys = 64, .width = kWide, .seed = 1});
  MemoryLayer layer(kWide, config, pool);
  const torch::NoGradGuard no_grad;
  const at::Tensor x = torch::randn({3, kWide});
  testing::expect_same_bits_for_any_threads([&] { return layer->forward(x); });
}

}  // namespace
}  // namespace memlayers
