// SPDX-License-Identifier: Apache-2.0
// Single slots: inserted where a lookup finds them, updated, erased, in memory and in a store.
#include "memlayers/slots.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "io/file_system.h"
#include "memlayers/grow.h"
#include "support/temp_dir.h"
#include "support/testing.h"
#include "support/tiny_model.h"

namespace memlayers {
namespace {

using testing::TempDir;
using testing::tiny_generator;
using testing::tiny_model_config;

constexpr std::int64_t kWidth = 32;

ModelConfig config_of(RowType type) {
  ModelConfig config = tiny_model_config();
  config.memory->row_dtype = type;
  return config;
}

MemoryLayer layer_of(Generator& generator) {
  return generator.model()->memory_layers().front().second;
}

at::Tensor query_of(MemoryLayer& layer, int seed = 5) {
  torch::manual_seed(seed);
  const torch::NoGradGuard no_grad;
  return layer->query_proj(torch::randn({1, 32})).view({2, 16});
}

// What a query reads, each slot once, the greatest weight first.
std::vector<std::int64_t> ranking(MemoryLayer& layer, int seed = 5) {
  torch::manual_seed(seed);
  const torch::NoGradGuard no_grad;
  const auto [slots, weights] = layer->select(torch::randn({1, 32}));
  const at::Tensor order = weights.flatten().argsort(true, 0, true);
  std::vector<std::int64_t> ranked;
  for (std::int64_t i = 0; i < order.numel(); ++i) {
    const auto slot = slots.flatten()[order[i].item<std::int64_t>()].item<std::int64_t>();
    if (std::ranges::find(ranked, slot) == ranked.end()) ranked.push_back(slot);
  }
  return ranked;
}

at::Tensor some_row() { return torch::linspace(-1, 2, kWidth); }

// All rows of a table but one are those of `before`, to the bit.
void expect_only_changed(const at::Tensor& now, const at::Tensor& before, std::int64_t slot) {
  for (std::int64_t i = 0; i < now.size(0); ++i) {
    EXPECT_TRUE(i == slot || torch::equal(now[i], before[i])) << "row " << i;
  }
}

TEST(SlotEditor, AnInsertedRowGoesIntoTheBestFreeSlotOfTheLookup) {
  for (const RowType type :
       {RowType::kFloat32, RowType::kBFloat16, RowType::kInt8, RowType::kInt4}) {
    Generator generator = tiny_generator(config_of(type));
    MemoryLayer layer = layer_of(generator);
    const std::vector<std::int64_t> ranked = ranking(layer);
    ASSERT_GE(ranked.size(), 4U);
    SlotEditor editor(layer);
    EXPECT_FALSE(editor.erase(ranked[3]).was_free);
    editor.erase(ranked[1]);
    EXPECT_TRUE(editor.is_free(ranked[1]));
    EXPECT_EQ(editor.row(ranked[1]).abs().max().item<float>(), 0);
    const at::Tensor before = generator.model()->pool()->values.detach().clone();
    const SlotEdit edit = editor.insert(query_of(layer), some_row());
    EXPECT_EQ(edit.slot, ranked[1]);
    EXPECT_TRUE(edit.was_free);
    EXPECT_EQ(edit.patch, "");
    const double step = type == RowType::kInt4 ? 0.3 : type == RowType::kFloat32 ? 0 : 0.02;
    EXPECT_LE((editor.row(edit.slot) - some_row()).abs().max().item<double>(), step);
    expect_only_changed(generator.model()->pool()->values.detach(), before, edit.slot);
    EXPECT_EQ(editor.insert(query_of(layer), some_row()).slot, ranked[3]) << "the next free one";
  }
}

TEST(SlotEditor, WithoutAFreeSlotTheBestIsOverwrittenOrNothingHappens) {
  Generator generator = tiny_generator();
  MemoryLayer layer = layer_of(generator);
  SlotEditor editor(layer);
  const at::Tensor before = generator.model()->pool()->values.detach().clone();
  EXPECT_THROW(editor.insert(query_of(layer), some_row(), {.only_free = true}), c10::ValueError);
  EXPECT_TRUE(torch::equal(generator.model()->pool()->values.detach(), before));
  const SlotEdit edit = editor.insert(query_of(layer), some_row());
  EXPECT_EQ(edit.slot, ranking(layer).front());
  EXPECT_FALSE(edit.was_free);
  expect_only_changed(generator.model()->pool()->values.detach(), before, edit.slot);
}

TEST(SlotEditor, AQueryOfOneHeadIsLookedUpByThatHead) {
  Generator generator = tiny_generator();
  MemoryLayer layer = layer_of(generator);
  torch::manual_seed(5);
  const auto [slots, weights] = layer->select(torch::randn({1, 32}));
  SlotEditor editor(layer);
  for (std::int64_t head = 0; head < 2; ++head) {
    EXPECT_EQ(editor.insert(query_of(layer)[head], some_row(), {.head = head}).slot,
              slots[0][head][0].item<std::int64_t>());
  }
}

TEST(SlotEditor, WhatIsInsertedIsReadByTheNextForward) {
  Generator generator = tiny_generator();
  MemoryLayer layer = layer_of(generator);
  SlotEditor editor(layer);
  const torch::NoGradGuard no_grad;
  torch::manual_seed(5);
  const at::Tensor x = torch::randn({1, 32}), before = layer->forward(x);
  editor.insert(layer->query_proj(x).view({2, 16}), some_row() * 10);
  EXPECT_FALSE(torch::allclose(layer->forward(x), before, 1e-3, 1e-3));
}

TEST(SlotEditor, AnEditedRowLosesItsOptimizerStateAndNoOtherDoes) {
  for (const PoolOptimizer kind : {PoolOptimizer::kAdamW, PoolOptimizer::kRowwiseAdamW,
                                   PoolOptimizer::kRowwiseAdagrad, PoolOptimizer::kDenseAdamW}) {
    Generator generator = tiny_generator(config_of(RowType::kBFloat16));
    MemoryPool pool = generator.model()->pool();
    MemoryLayer layer = layer_of(generator);
    RowOptimizer optimizer(pool, {.kind = kind, .master_rows = true});
    torch::manual_seed(5);
    const at::Tensor x = torch::randn({1, 32});
    for (int step = 0; step < 2; ++step) {
      layer->forward(x).sum().backward();
      optimizer.step(0.01);
    }
    pool->catch_up();
    const RowState& state = optimizer.state();
    std::vector<at::Tensor> before, now;
    for (const at::Tensor& table :
         {pool->values.detach(), state.exp_avg, state.exp_avg_sq, state.steps, state.master}) {
      if (!table.defined()) continue;
      now.push_back(table);
      before.push_back(table.clone());
    }
    const std::int64_t slot = ranking(layer).front();
    ASSERT_GT(state.exp_avg_sq[slot].abs().sum().item<double>(), 0) << "it was trained";
    SlotEditor(layer, &optimizer).update(slot, some_row());
    for (std::size_t i = 0; i < now.size(); ++i) expect_only_changed(now[i], before[i], slot);
    EXPECT_EQ(state.exp_avg_sq[slot].abs().sum().item<double>(), 0);
    if (state.exp_avg.defined()) {
      EXPECT_EQ(state.exp_avg[slot].abs().sum().item<double>(), 0);
    }
    if (kind == PoolOptimizer::kAdamW) {
      EXPECT_EQ(state.steps[slot].item<int>(), 0);
    }
    EXPECT_TRUE(torch::equal(state.master[slot], some_row()));
    optimizer.step(0.01);  // nothing was read: a lazy step, or a dense one without momentum
    pool->catch_up();
    EXPECT_TRUE(torch::equal(pool->values.detach()[slot], some_row().to(torch::kBFloat16)));
  }
}

class StoredSlots : public ::testing::Test {
 protected:
  Generator serving(RowType type) {
    folder_ = dir_ / row_type_name(type);
    io::make_folders(io::posix(), folder_);
    Generator made = tiny_generator(config_of(type));
    save_model(made.model(), folder_);
    return {open_model(folder_), testing::tiny_tokenizer()};
  }
  std::string pool() const { return io::join(folder_, "pool"); }
  TempDir dir_;
  std::string folder_;
};

TEST_F(StoredSlots, AnEditIsAPatchOfOneRowThatTheNextRequestSees) {
  for (const RowType type : {RowType::kFloat32, RowType::kInt4}) {
    Generator generator = serving(type);
    MemoryLayer layer = layer_of(generator);
    const std::vector<std::int64_t> ranked = ranking(layer);
    Store store = Store::open(pool());
    const std::string digest = store.snapshot().digest();
    SlotEditor editor(layer, store);
    const SlotEdit erased = editor.erase(ranked[2]);
    const SlotEdit inserted = editor.insert(query_of(layer), some_row() * 10);
    EXPECT_EQ(inserted.slot, ranked[2]);
    EXPECT_TRUE(inserted.was_free);
    EXPECT_EQ(store.snapshot().writer_of(ranked[2]), inserted.patch);
    EXPECT_EQ(store.snapshot().patch(inserted.patch).slots, std::vector{ranked[2]});

    const torch::NoGradGuard no_grad;
    torch::manual_seed(5);
    const at::Tensor x = torch::randn({1, 32}), before = layer->forward(x);
    EXPECT_TRUE(layer->pool()->refresh());
    EXPECT_FALSE(torch::allclose(layer->forward(x), before, 1e-3, 1e-3));
    EXPECT_TRUE(torch::equal(
        editor.row(ranked[2]),
        SlotEditor(load_model(folder_)->memory_layers().front().second).row(ranked[2])))
        << "another process reads the same";
    store.rollback(inserted.patch);
    EXPECT_TRUE(editor.is_free(ranked[2]));
    store.rollback(erased.patch);
    EXPECT_EQ(store.snapshot().digest(), digest);
  }
}

TEST_F(StoredSlots, ErasingAFreeSlotIsNoEdit) {
  Generator generator = serving(RowType::kFloat32);
  Store store = Store::open(pool());
  SlotEditor editor(layer_of(generator), store);
  editor.erase(3);
  const SlotEdit again = editor.erase(3);
  EXPECT_TRUE(again.was_free);
  EXPECT_EQ(again.patch, "");
  EXPECT_EQ(store.snapshot().patches().size(), 1U);
}

TEST_F(StoredSlots, AStoreOfAnotherPoolIsRefused) {
  Generator generator = serving(RowType::kFloat32), other = tiny_generator();
  Store store = Store::open(pool());
  EXPECT_THROW(SlotEditor(layer_of(other), store), c10::ValueError);
  EXPECT_THROW(SlotEditor{layer_of(generator)}, c10::ValueError) << "rows that are not here";
}

TEST(SlotEditor, WhatDoesNotFitIsRefusedAndChangesNothing) {
  Generator generator = tiny_generator();
  MemoryLayer layer = layer_of(generator);
  SlotEditor editor(layer);
  const at::Tensor before = generator.model()->pool()->values.detach().clone();
  const at::Tensor query = query_of(layer), row = some_row();
  const auto broken = [](const at::Tensor& tensor) {
    at::Tensor copy = tensor.clone();
    copy.flatten()[1] = std::numeric_limits<float>::quiet_NaN();
    return copy;
  };
  EXPECT_THROW(editor.update(36, row), c10::IndexError);
  EXPECT_THROW(editor.erase(-1), c10::IndexError);
  EXPECT_THROW(editor.update(0, row.slice(0, 1)), c10::ValueError);
  EXPECT_THROW(editor.update(0, broken(row)), c10::ValueError);
  EXPECT_THROW(editor.update(0, row.to(torch::kLong)), c10::TypeError);
  EXPECT_THROW(editor.insert(query, torch::zeros({kWidth})), c10::ValueError);
  EXPECT_THROW(editor.insert(query, broken(row)), c10::ValueError);
  EXPECT_THROW(editor.insert(broken(query), row), c10::ValueError);
  EXPECT_THROW(editor.insert(query.slice(1, 1), row), c10::ValueError);
  EXPECT_THROW(editor.insert(query[0], row), c10::ValueError) << "whose head?";
  EXPECT_THROW(editor.insert(query, row, {.head = 1}), c10::ValueError);
  EXPECT_THROW(editor.insert(query[0], row, {.head = 2}), c10::IndexError);
  EXPECT_TRUE(torch::equal(generator.model()->pool()->values.detach(), before));
}

TEST(SlotEditor, SlotsOfAGrowthThatAreNotOpenAreNotEdited) {
  const Llama grown = grow(tiny_generator().model(), 8, 1);
  MemoryLayer layer = grown->memory_layers().front().second;
  SlotEditor editor(layer);
  EXPECT_NO_THROW(editor.update(35, some_row()));
  EXPECT_THROW(editor.update(36, some_row()), c10::IndexError);
  EXPECT_LT(editor.insert(query_of(layer), some_row()).slot, 36);
  layer->open_keys();
  EXPECT_NO_THROW(editor.update(36, some_row()));
}

}  // namespace
}  // namespace memlayers
