// SPDX-License-Identifier: Apache-2.0
// A pool whose rows live in a scratch file: all that it computes has the bits of one in RAM.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <torch/types.h>
#include <torch/utils.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <set>
#include <thread>
#include <utility>

#include "memlayers/error.h"
#include "memlayers/llama.h"
#include "memlayers/optimizer.h"
#include "nn/lookup_hook.h"
#include "nn/pool_tables.h"
#include "nn/table.h"
#include "support/temp_dir.h"
#include "support/testing.h"

namespace memlayers {
namespace {

using memlayers::testing::error_of;
using memlayers::testing::read_file;
using memlayers::testing::says;
using memlayers::testing::TempDir;

constexpr std::int64_t kDim = 12;
// More tokens, and more rows, than are read ahead at once.
constexpr std::int64_t kTokens = 3000, kKeys = 80;

struct Case {
  MemoryVariant variant = MemoryVariant::kMemoryPlus;
  RowType rows = RowType::kFloat32;
  RowOptimizer::Options optimizer = {};
};

MemoryPool pool_for(const Case& c, const std::optional<std::string>& folder) {
  return MemoryPool(PoolOptions{.n_keys = kKeys,
                                .width = c.variant == MemoryVariant::kPeer ? 2 * kDim : kDim,
                                .row_dtype = c.rows,
                                .seed = 3,
                                .folder = folder});
}

// Everything that two steps of training compute or change.
std::vector<at::Tensor> train(const Case& c, const std::optional<std::string>& folder) {
  torch::manual_seed(1);
  MemoryPool pool = pool_for(c, folder);
  EXPECT_EQ(pool->is_in_file(), folder.has_value());
  MemoryLayer layer(kDim,
                    MemoryConfig{.n_keys = kKeys,
                                 .heads = 2,
                                 .knn = 4,
                                 .k_dim = 6,
                                 .variant = c.variant,
                                 .row_dtype = c.rows},
                    pool);
  RowOptimizer optimizer(pool, c.optimizer);
  std::vector<at::Tensor> results;
  for (int step = 0; step < 2; ++step) {
    const at::Tensor x = torch::randn({kTokens, kDim}, torch::requires_grad());
    const at::Tensor y = layer->forward(x);
    (y * torch::randn_like(y)).sum().backward();
    results.insert(results.end(), {y, x.grad(), layer->keys.grad(), pool->dense_gradient()});
    EXPECT_GT(optimizer.step(1e-2, 1, 0.5).touched_rows, 4000);
  }
  pool->catch_up();
  results.insert(results.end(), {pool->values.detach().clone(), pool->usage()});
  const RowState& state = optimizer.state();
  for (const at::Tensor& table : {state.exp_avg, state.exp_avg_sq, state.steps, state.master}) {
    if (table.defined()) results.push_back(table);
  }
  return results;
}

TEST(PoolInFile, TrainsToTheBitsOfOneInRam) {
  const TempDir dir;
  const std::vector<Case> cases = {
      {},
      {.rows = RowType::kBFloat16, .optimizer = {.kind = PoolOptimizer::kSgd}},
      {.rows = RowType::kBFloat16, .optimizer = {.master_rows = true}},
      {.variant = MemoryVariant::kPeer},
      {.optimizer = {.kind = PoolOptimizer::kRowwiseAdagrad}},
      {.rows = RowType::kBFloat16, .optimizer = {.kind = PoolOptimizer::kRowwiseAdamW}},
      {.optimizer = {.beta1 = 0, .kind = PoolOptimizer::kRowwiseAdamW}},
      // Rows without a gradient lag, for they decay: later reads find them behind.
      {.optimizer = {.weight_decay = 0.1, .kind = PoolOptimizer::kDenseAdamW}},
  };
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const std::vector<at::Tensor> in_ram = train(cases[i], {}),
                                  in_file = train(cases[i], dir.path());
    ASSERT_EQ(in_ram.size(), in_file.size());
    for (std::size_t t = 0; t < in_ram.size(); ++t) {
      EXPECT_TRUE(torch::equal(in_ram[t], in_file[t])) << "case " << i << ", tensor " << t;
    }
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path())) << "nothing is left behind";
}

TEST(PoolInFile, IsWorkedThroughInSeveralWindows) {
  const at::Tensor values = torch::zeros({kKeys * kKeys, kDim});
  const at::Tensor steps = torch::zeros({kKeys * kKeys}, torch::kInt);
  const at::Tensor squares = torch::zeros({kKeys * kKeys});  // of a row-wise optimizer
  EXPECT_LT(nn::rows_a_window(std::vector{values}), kTokens * 8 / 2);
  EXPECT_LT(nn::rows_a_window(std::vector{values, values, values, steps}), 4000 / 1.5);
  EXPECT_LT(nn::rows_a_window(std::vector{values, squares}), 4000);
  EXPECT_LT(nn::rows_a_window(std::vector{values, squares, steps}), 4000 / 1.5);
}

TEST(PoolInFile, TablesBesideItAreZeroWritableAndOutliveIt) {
  const TempDir dir;
  for (const std::optional<std::string>& folder :
       std::vector<std::optional<std::string>>{std::nullopt, dir.path()}) {
    at::Tensor table;
    {
      const MemoryPool pool = pool_for({}, folder);
      table = pool->tables().make({3, 5}, torch::kInt);
      EXPECT_TRUE(torch::equal(table, torch::zeros({3, 5}, torch::kInt)));
      table.fill_(7);
      pool->tables().make({100}, torch::kFloat);  // gone at once
      pool->tables().write_back();
      EXPECT_EQ(pool->tables().make({0, 5}, torch::kFloat).numel(), 0);
    }
    EXPECT_EQ(table.sum().item<int>(), 7 * 15);
  }
}

TEST(PoolInFile, NeedsAFolderWithRoom) {
  const TempDir dir;
  EXPECT_TRUE(says(error_of([&] { pool_for({}, dir / "nowhere"); }),
                   {dir / "nowhere", "expected a folder"}));
  const PoolOptions huge{.n_keys = 1 << 20, .width = 1 << 10, .folder = dir.path()};
  EXPECT_TRUE(says(error_of([&] { MemoryPool{huge}; }),
                   {dir.path(), "expected room", "4503599627370496 bytes"}));
}

TEST(PoolInFile, PrefetchChecksSlotsAndTakesAnyShape) {
  const TempDir dir;
  const MemoryPool pool = pool_for({}, dir.path());
  const std::int64_t slots = kKeys * kKeys;
  EXPECT_THROW(pool->prefetch(torch::tensor({slots})), c10::IndexError);
  EXPECT_THROW(pool->prefetch(torch::tensor({std::int64_t{-1}})), c10::IndexError);
  EXPECT_THROW(pool->prefetch(torch::zeros({2, 2})), c10::TypeError);
  EXPECT_NO_THROW(pool->prefetch(torch::zeros({2, 3, 4}, torch::kLong)));
  EXPECT_NO_THROW(pool->prefetch(torch::zeros({0, 4}, torch::kLong)));
  EXPECT_NO_THROW(pool->prefetch(torch::randint(slots, {100'000}, torch::kLong)));
}

TEST(PoolInFile, GatherRefusesSlotsOutsideThePool) {
  const TempDir dir;
  MemoryPool pool = pool_for({}, dir.path());
  pool->eval();  // training would count, and check, before
  for (const std::int64_t slot : {kKeys * kKeys, std::int64_t{-1}}) {
    EXPECT_THROW(pool->gather(torch::tensor({{slot}}), torch::ones({1, 1})), c10::IndexError);
  }
}

TEST(PoolInFile, TakesNoTokens) {
  const TempDir dir;
  MemoryPool pool = pool_for({}, dir.path());
  const at::Tensor none = torch::zeros({0, 4}, torch::kLong);
  EXPECT_EQ(pool->gather(none, torch::zeros({0, 4})).sizes(), (at::IntArrayRef{0, kDim}));
}

const std::int64_t kPage = ::sysconf(_SC_PAGESIZE);

// The pages of the pool's table that memory holds.
std::set<std::int64_t> pages_in_memory(const MemoryPool& pool) {
  const std::span<const std::byte> rows = nn::bytes_of(pool->values);
  const auto page = static_cast<std::size_t>(kPage);
  std::vector<unsigned char> state((rows.size() + page - 1) / page);
  EXPECT_EQ(::mincore(const_cast<std::byte*>(rows.data()), rows.size(), state.data()), 0);
  std::set<std::int64_t> pages;
  for (std::size_t i = 0; i < state.size(); ++i) {
    if ((state[i] & 1) != 0) pages.insert(static_cast<std::int64_t>(i));
  }
  return pages;
}

// Those in which the rows of `slots` lie.
std::set<std::int64_t> pages_of(const at::Tensor& slots_in) {
  constexpr std::int64_t kRowBytes = kDim * std::int64_t{sizeof(float)};
  const at::Tensor slots = slots_in.contiguous();
  std::set<std::int64_t> pages;
  for (const std::int64_t slot : nn::as_span(slots)) {
    pages.insert({slot * kRowBytes / kPage, ((slot + 1) * kRowBytes - 1) / kPage});
  }
  return pages;
}

// Makes memory hold none of them, where the system can be talked into that. The file has no name,
// but this process has it open.
void drop_from_memory(const MemoryPool& pool, const std::string& folder) {
  const std::span<const std::byte> rows = nn::bytes_of(pool->values);
  // Of a file this forgets the mapping's pages and not what they hold.
  ::madvise(const_cast<std::byte*>(rows.data()), rows.size(), MADV_DONTNEED);
  const std::string path = std::filesystem::canonical(folder).string() + "/";
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code error;
    if (!std::filesystem::read_symlink(entry.path(), error).string().starts_with(path)) continue;
    const int descriptor = std::stoi(entry.path().filename().string());
    ::fdatasync(descriptor);
    ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
  }
}

TEST(PoolInFile, ALayerAsksForItsRowsBeforeItReadsThem) {
  const TempDir dir;
  torch::manual_seed(5);
  MemoryPool pool = pool_for({}, dir.path());
  MemoryLayer layer(kDim, MemoryConfig{.n_keys = kKeys, .heads = 2, .knn = 4, .k_dim = 6}, pool);
  const at::Tensor x = torch::randn({2, kDim});
  bool is_held = false;
  // Called when the layer knows its slots and has read no row. Waits for the disk, which need not
  // hurry.
  const nn::LookupHook hook([&](const MemoryLayerImpl&, const at::Tensor& slots, at::Tensor&) {
    const std::set<std::int64_t> wanted = pages_of(slots);
    is_held = false;
    for (int i = 0; i < 100 && !is_held; ++i) {
      if (i > 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      is_held = std::ranges::includes(pages_in_memory(pool), wanted);
    }
  });
  for (const bool has_gradient : {true, false}) {  // without: decoding
    const torch::AutoGradMode mode(has_gradient);
    bool came = false;
    // Again where not: it is a wish, of which a system short of memory leaves some out.
    for (int i = 0; i < 10 && !came; ++i) {
      drop_from_memory(pool, dir.path());
      const bool is_cold = pages_in_memory(pool).empty();
      if (i == 0 && !is_cold) GTEST_SKIP() << "the disk of the temporary folder is memory";
      layer->forward(x);
      came = is_cold && is_held;
    }
    EXPECT_TRUE(came) << (has_gradient ? "training" : "decoding");
  }
}

TEST(PoolInRam, PrefetchDoesNothing) {
  const MemoryPool pool = pool_for({}, {});
  EXPECT_NO_THROW(pool->prefetch(torch::tensor({std::int64_t{-1}})));
}

TEST(PoolInRam, TakesTheMemoryOfItsRowsAndOfARowwiseState) {
  constexpr std::int64_t kManyKeys = 512, kSlots = kManyKeys * kManyKeys, kWidth = 256;
  constexpr std::int64_t kWanted = kSlots * (kWidth * 4 + 8);  // of which rows are 256 MiB
  constexpr std::int64_t kMore = 16 << 20;  // huge pages written in part, and what torch takes
  const auto make = [](std::int64_t n_keys) {
    MemoryPool pool(PoolOptions{.n_keys = n_keys, .width = kWidth, .seed = 1});
    auto optimizer = std::make_unique<RowOptimizer>(
        pool, RowOptimizer::Options{.beta1 = 0, .kind = PoolOptimizer::kRowwiseAdamW});
    const RowState& state = optimizer->state();
    for (const at::Tensor& table : {state.exp_avg, state.exp_avg_sq, state.steps, state.master}) {
      if (table.defined()) table.fill_(1);  // as if every row had been updated
    }
    return std::pair(pool, std::move(optimizer));
  };
  make(64);  // what torch and its threads take the first time
  const std::int64_t before = testing::resident_bytes();
  const auto [pool, optimizer] = make(kManyKeys);
  const std::int64_t taken = testing::resident_bytes() - before;
  EXPECT_GE(taken, kWanted - kMore);
  EXPECT_LE(taken, kWanted + kMore);
  // A state twice as large as the rows, of which nothing is written yet.
  const RowOptimizer unused(pool, {.kind = PoolOptimizer::kAdamW});
  EXPECT_LE(testing::resident_bytes() - before, kWanted + kMore);
}

TEST(PoolInFile, MovedToAnotherTypeItIsInRam) {
  const TempDir dir;
  MemoryPool pool = pool_for({}, dir.path());
  const at::Tensor before = pool->values.detach().clone();
  pool->to(torch::kBFloat16);
  EXPECT_FALSE(pool->is_in_file());
  EXPECT_TRUE(torch::equal(pool->values, before.to(torch::kBFloat16)));
  EXPECT_NO_THROW(pool->gather(torch::tensor({{1, 2}}), torch::ones({1, 2})));
}

ModelConfig small_model() {
  ModelConfig config;
  config.dim = 16;
  config.layers = 2;
  config.heads = 2;
  config.ff_dim = 24;
  config.vocab_size = 50;
  config.memory.emplace();
  config.memory->n_keys = 8;
  config.memory->knn = 4;
  config.memory->k_dim = 8;
  return config;
}

TEST(PoolInFile, AModelIsSavedWithoutItsFolderAndLoadedIntoAnother) {
  const TempDir dir, first, second;
  torch::manual_seed(2);
  const Llama model(small_model(), 5, first.path());
  EXPECT_TRUE(model->pool()->is_in_file());
  save_model(model, dir.path());
  EXPECT_EQ(read_file(dir / "config.json").find(first.path()), std::string::npos);
  const Llama in_file = load_model(dir.path(), second.path()), in_ram = load_model(dir.path());
  EXPECT_TRUE(in_file->pool()->is_in_file());
  EXPECT_FALSE(in_ram->pool()->is_in_file());
  EXPECT_EQ(in_file->pool()->options().folder, second.path());
  for (const Llama& loaded : {in_file, in_ram}) {
    EXPECT_TRUE(torch::equal(loaded->pool()->values, model->pool()->values));
  }
  EXPECT_TRUE(says(error_of([&] { load_model(dir.path(), dir / "nowhere"); }), {dir / "nowhere"}));
}

}  // namespace
}  // namespace memlayers
