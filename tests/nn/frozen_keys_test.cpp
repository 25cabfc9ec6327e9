// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "memlayers/memory_layer.h"

namespace memlayers {
namespace {

TEST(FrozenKeys, StayAsTheyWereDrawn) {
  MemoryConfig config{.layers = std::vector<std::int64_t>{0},
                      .n_keys = 8,
                      .heads = 2,
                      .knn = 4,
                      .k_dim = 8,
                      .frozen_keys = true};
  MemoryPool pool(PoolOptions{.n_keys = 8, .width = 24});
  MemoryLayer layer(24, config, pool);
  layer->forward(torch::randn({5, 24})).sum().backward();
  EXPECT_FALSE(layer->keys.requires_grad());
  EXPECT_FALSE(layer->key_norm.requires_grad());
  EXPECT_FALSE(layer->keys.grad().defined());
  EXPECT_TRUE(layer->query_proj->weight.grad().defined());
  EXPECT_TRUE(layer->query_norm.grad().defined());
}

}  // namespace
}  // namespace memlayers
