// SPDX-License-Identifier: Apache-2.0
// Growth of checkpoints: what was there keeps its bits, and training goes on.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <memory>

#include "io/folder.h"
#include "memlayers/checkpoint.h"
#include "memlayers/grow.h"
#include "support/temp_dir.h"
#include "support/testing.h"
#include "support/tiny_model.h"
#include "train/metrics.h"
#include "train/run_checkpoint.h"
#include "train/run_testing.h"
#include "train/training_step.h"

namespace memlayers {
namespace {

using testing::error_of;
using testing::read_file;
using testing::says;
using testing::TempDir;

constexpr std::int64_t kBefore = 10, kAfter = 13;  // sub-keys

struct Kind {
  const char* name;
  PoolOptimizer optimizer;
  RowType rows = RowType::kFloat32;
  DenseType dense = DenseType::kFloat32;
  bool master_rows = false;
};

// A run in the middle of training.
struct Training {
  Training(const Kind& kind, Llama with) : model(std::move(with)) {
    dense = std::make_unique<DenseAdamW>(model->dense_parameters(), DenseAdamW::Options{});
    rows = std::make_unique<RowOptimizer>(model->pool(),
                                          RowOptimizer::Options{.weight_decay = 0.1,
                                                                .kind = kind.optimizer,
                                                                .master_rows = kind.master_rows,
                                                                .seed = 7});
    parts = {.model = model,
             .tokenizer = testing::tiny_tokenizer(),
             .dense = dense.get(),
             .rows = rows.get()};
  }
  void step(int seed) {
    torch::manual_seed(seed);
    const at::Tensor tokens = torch::randint(300, {2, 10}, torch::kLong);
    text::Batch batch;
    batch.rows = 2;
    batch.length = 9;
    batch.tokens = batch.target_tokens = 18;
    for (std::int64_t row = 0; row < 2; ++row) {
      for (std::int64_t i = 0; i < 9; ++i) {
        batch.input.push_back(tokens[row][i].item<std::int64_t>());
        batch.target.push_back(tokens[row][i + 1].item<std::int64_t>());
      }
    }
    std::vector batches{batch};
    train::train_step(model, *dense, rows.get(), batches,
                      {.lr = 0.01, .value_lr = 0.01, .clip = {}, .value_clip = {}});
  }

  Llama model;
  std::unique_ptr<DenseAdamW> dense;
  std::unique_ptr<RowOptimizer> rows;
  train::RunParts parts;
};

class GrownCheckpoint : public ::testing::TestWithParam<Kind> {
 protected:
  GrownCheckpoint() {
    TrainConfig config = testing::tiny_config(dir_ / "run", "facts.jsonl");
    config.model.memory->n_keys = kBefore;
    config.model.memory->row_dtype = GetParam().rows;
    config.model.dtype = GetParam().dense;
    torch::manual_seed(1);
    Training run(GetParam(), Llama(config.model, 1));
    run.model->train();
    for (int i = 0; i < 4; ++i) run.step(i);
    train::RunState state;
    state.step = state.row_steps = 4;
    train::save_checkpoint(io::posix(), grown(), config, run.parts, state);
    std::filesystem::create_directory(dir_ / "copy");
    std::filesystem::copy(grown(), before(), std::filesystem::copy_options::recursive);
    const GrownFolder done = grow_folder(grown(), kAfter, 1);
    EXPECT_EQ(done.n_keys_before, kBefore);
    EXPECT_EQ(done.n_keys, kAfter);
    EXPECT_EQ(done.open_keys, kBefore);
  }
  std::string before() const { return dir_ / "copy/step-4"; }
  std::string grown() const { return dir_ / "run/step-4"; }
  // As training does, but new sub-keys stay closed.
  static Training resumed(const std::string& checkpoint) {
    Training run(GetParam(), load_model(checkpoint));
    train::load_optimizers(io::posix(), checkpoint, run.parts);
    run.model->train();
    return run;
  }
  static at::Tensor old_keys(const std::string& name, const at::Tensor& tensor) {
    return name.ends_with(".memory.keys") ? tensor.slice(2, 0, kBefore) : tensor;
  }
  // Of dense weights, rows, their optimizers' states and counted reads, what there was before.
  static void expect_same(Training& before, Training& after) {
    const auto compare = [](const auto& a, const auto& b) {
      ASSERT_EQ(a.size(), b.size());
      for (std::size_t i = 0; i < a.size(); ++i) {
        EXPECT_TRUE(torch::equal(a[i].second, old_keys(b[i].first, b[i].second))) << a[i].first;
      }
    };
    compare(before.model->dense_parameters(), after.model->dense_parameters());
    compare(before.dense->state(), after.dense->state());
    const std::int64_t slots = kBefore * kBefore;
    const RowState &a = before.rows->state(), &b = after.rows->state();
    const std::vector<std::pair<at::Tensor, at::Tensor>> tables{
        {a.exp_avg, b.exp_avg},
        {a.exp_avg_sq, b.exp_avg_sq},
        {a.steps, b.steps},
        {a.master, b.master},
        {before.model->pool()->values, after.model->pool()->values},
        {before.model->pool()->usage(), after.model->pool()->usage()}};
    for (const auto& [was, is] : tables) {
      ASSERT_EQ(was.defined(), is.defined());
      if (was.defined()) {
        EXPECT_TRUE(torch::equal(was, is.slice(0, 0, slots)));
      }
    }
    EXPECT_TRUE(torch::equal(before.rows->missed_steps(), after.rows->missed_steps()));
    EXPECT_EQ(before.rows->steps(), after.rows->steps());
  }

  TempDir dir_;
};

TEST_P(GrownCheckpoint, KeepsTheBytesOfRowsAndStateAndGivesNewOnesThatOfANewRun) {
  for (const std::string& name : io::posix().list(before() + "/optimizer")) {
    EXPECT_EQ(read_file(grown() + "/optimizer/" + name), read_file(before() + "/optimizer/" + name))
        << name;
  }
  EXPECT_EQ(read_file(grown() + "/pool/chunk-0-4.safetensors"),
            read_file(before() + "/pool/chunk-0-4.safetensors"));
  EXPECT_NO_THROW(io::verify_folder(io::posix(), grown()));
  EXPECT_EQ(io::posix().list(dir_ / "run"), std::vector<std::string>{"step-4"});
  Training was = resumed(before()), is = resumed(grown());
  expect_same(was, is);
  const auto is_zero = [](const at::Tensor& tensor) {
    return !tensor.defined() || !tensor.slice(0, kBefore * kBefore).any().item<bool>();
  };
  const RowState& state = is.rows->state();
  EXPECT_TRUE(is_zero(state.exp_avg) && is_zero(state.exp_avg_sq));
  EXPECT_TRUE(is_zero(is.model->pool()->usage()));
  if (GetParam().optimizer == PoolOptimizer::kDenseAdamW) {
    EXPECT_TRUE((state.steps.slice(0, kBefore * kBefore) == 4).all().item<bool>())
        << "a new row owes no decay for steps before it came";
  } else {
    EXPECT_TRUE(is_zero(state.steps));
  }
  if (state.master.defined()) {
    EXPECT_TRUE(torch::equal(state.master.slice(0, kBefore * kBefore),
                             is.model->pool()->values.slice(0, kBefore * kBefore).to(at::kFloat)));
  }
  for (const auto& [name, tensor] : is.dense->state()) {
    if (!name.ends_with(".memory.keys")) continue;
    const at::Tensor added = tensor.slice(2, kBefore);
    EXPECT_EQ(added.any().item<bool>(), name.starts_with("master.")) << name;
  }
}

TEST_P(GrownCheckpoint, TrainsAsBeforeWhileNothingNewIsChosen) {
  Training was = resumed(before()), is = resumed(grown());
  for (int i = 10; i < 13; ++i) {
    was.step(i);
    is.step(i);
  }
  was.model->pool()->catch_up();
  is.model->pool()->catch_up();
  expect_same(was, is);
  EXPECT_FALSE(torch::equal(was.model->pool()->values, load_model(before())->pool()->values));
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, GrownCheckpoint,
    ::testing::Values(Kind{"adamw", PoolOptimizer::kAdamW},
                      Kind{"bfloat16_with_master", PoolOptimizer::kAdamW, RowType::kBFloat16,
                           DenseType::kBFloat16, true},
                      Kind{"rowwise_adamw", PoolOptimizer::kRowwiseAdamW, RowType::kBFloat16},
                      Kind{"rowwise_adagrad", PoolOptimizer::kRowwiseAdagrad},
                      Kind{"sgd", PoolOptimizer::kSgd},
                      Kind{"dense_adamw", PoolOptimizer::kDenseAdamW},
                      Kind{"dense_adamw_with_master", PoolOptimizer::kDenseAdamW,
                           RowType::kBFloat16, DenseType::kFloat32, true}),
    [](const auto& of) { return std::string(of.param.name); });

TEST(GrownRun, GoesOnWithItsOptimizersStepAndDataAndReadsNewSlots) {
  const TempDir dir;
  testing::write_facts(dir / "facts.jsonl");
  TrainConfig c = testing::tiny_config(dir / "run", dir / "facts.jsonl");
  c.train.steps = 60;
  c.train.schedule = Schedule::kConstant;
  std::atomic<bool> stop = false;
  TrainCallbacks callbacks;
  callbacks.stop = &stop;
  callbacks.step = [&](const StepMetrics& m, std::int64_t) { stop = m.step >= 19; };
  const std::string checkpoint = Trainer(c, callbacks).run().checkpoint;
  ASSERT_EQ(checkpoint, dir / "run/step-20");
  grow_folder(checkpoint, 14, 1);

  EXPECT_TRUE(says(error_of([&] { Trainer(c).run(); }),
                   {"memory.n_keys: 10", checkpoint, "has grown to 14"}));
  c.model.memory->n_keys = 14;
  Trainer trainer(c);
  EXPECT_EQ(trainer.prepare().first_step, 20);
  EXPECT_EQ(trainer.run().step, 60);
  const auto metrics = train::RunLog(io::posix(), c.out, 100).metrics();
  ASSERT_EQ(metrics.size(), 60U);
  for (std::size_t i = 1; i < 60; ++i) EXPECT_GT(metrics[i].tokens, metrics[i - 1].tokens);
  EXPECT_LT(metrics[20].loss, metrics[0].loss * 0.9) << "learning was lost";
  EXPECT_LT(metrics[59].loss, metrics[20].loss * 0.9) << "it learns no more";
  const at::Tensor usage = trainer.model()->pool()->usage();
  EXPECT_GT(usage.slice(0, 100).sum().item<std::int64_t>(), 0) << "no new slot was read";
  const Llama model = load_model(dir / "run/step-60");
  EXPECT_EQ(model->config().memory->n_keys, 14);
  EXPECT_FALSE(model->config().memory->open_keys);
}

}  // namespace
}  // namespace memlayers
