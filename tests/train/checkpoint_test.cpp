// SPDX-License-Identifier: Apache-2.0
#include "memlayers/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cstring>
#include <filesystem>
#include <limits>

#include "io/folder.h"
#include "io/run_folder.h"
#include "memlayers/error.h"
#include "memlayers/store.h"
#include "nn/model_folder.h"
#include "support/failing_files.h"
#include "support/temp_dir.h"
#include "support/testing.h"
#include "train/run_checkpoint.h"
#include "train/run_testing.h"
#include "train/tensor_file.h"

namespace memlayers {
namespace {

using testing::FailingFiles;
using ::testing::HasSubstr;
using testing::TempDir;
using train::RunParts;
using train::RunState;

std::shared_ptr<const Tokenizer> tiny_tokenizer() {
  static const auto tokenizer =
      train_tokenizer({"the quick brown fox jumps over the lazy dog", "the red otter"}, 270);
  return tokenizer;
}

// A model with optimizers that have done a step.
struct SmallRun {
  explicit SmallRun(std::int64_t n_keys = 6, PoolOptimizer kind = PoolOptimizer::kAdamW)
      : config(testing::tiny_config("out", "facts.jsonl")) {
    torch::manual_seed(1);
    config.model.memory->n_keys = n_keys;
    model = Llama(config.model, 1);
    dense = std::make_unique<DenseAdamW>(model->dense_parameters(), DenseAdamW::Options{});
    rows = std::make_unique<RowOptimizer>(model->pool(), RowOptimizer::Options{.kind = kind});
    model->hidden_states(torch::randint(300, {2, 9}, torch::kLong)).square().sum().backward();
    dense->step(0.1);
    rows->step(0.1);
    rows->step(0.1);  // without a gradient: dense AdamW's rows lag
    parts = {
        .model = model, .tokenizer = tiny_tokenizer(), .dense = dense.get(), .rows = rows.get()};
  }
  TrainConfig config;
  Llama model{nullptr};
  std::unique_ptr<DenseAdamW> dense;
  std::unique_ptr<RowOptimizer> rows;
  RunParts parts;
};

RunState some_state(std::int64_t step) {
  RunState state;
  state.step = step;
  state.position = {.epoch = 3, .batch = 14};
  state.data = "40 documents";
  state.tokens = 123456789012;
  state.time_s = 1e6 / 7;
  state.bad_steps = 3;
  state.bad_in_a_row = 1;
  state.row_steps = step;
  state.loss = 1.0 / 3;
  return state;
}

void save(io::FileSystem& files, const std::string& folder, SmallRun& run, std::int64_t step) {
  train::save_checkpoint(files, train::checkpoint_path(folder, step), run.config, run.parts,
                         some_state(step));
}

std::vector<std::string> names(const std::string& folder) { return io::posix().list(folder); }

TEST(Checkpoint, BringsBackStateOptimizersUsageAndRandomNumbers) {
  const TempDir dir;
  SmallRun saved;
  save(io::posix(), dir.path(), saved, 5);
  const at::Tensor next_random = torch::rand({4});

  SmallRun loaded;  // with other numbers in it
  loaded.model->hidden_states(torch::randint(300, {2, 9}, torch::kLong)).sum().backward();
  loaded.dense->step(0.1);
  loaded.rows->step(0.1);
  train::load_optimizers(io::posix(), dir / "step-5", loaded.parts);
  EXPECT_TRUE(torch::rand({4}).equal(next_random));
  const auto a = saved.dense->state(), b = loaded.dense->state();
  for (std::size_t i = 0; i < a.size(); ++i)
    EXPECT_TRUE(a[i].second.equal(b[i].second)) << a[i].first;
  EXPECT_EQ(loaded.rows->steps(), 5);  // as some_state() says
  EXPECT_TRUE(saved.rows->state().exp_avg.equal(loaded.rows->state().exp_avg));
  EXPECT_TRUE(saved.rows->state().exp_avg_sq.equal(loaded.rows->state().exp_avg_sq));
  EXPECT_TRUE(saved.rows->state().steps.equal(loaded.rows->state().steps));
  EXPECT_TRUE(saved.model->pool()->usage().equal(loaded.model->pool()->usage()));
  EXPECT_GT(saved.model->pool()->usage().sum().item<std::int64_t>(), 0);

  const RunState state = train::load_run_state(io::posix(), dir / "step-5");
  EXPECT_EQ(state.step, 5);
  EXPECT_EQ(state.position.epoch, 3);
  EXPECT_EQ(state.position.batch, 14);
  EXPECT_EQ(state.data, "40 documents");
  EXPECT_EQ(state.tokens, 123456789012);
  EXPECT_EQ(state.time_s, 1e6 / 7);
  EXPECT_EQ(state.bad_steps, 3);
  EXPECT_EQ(state.bad_in_a_row, 1);
  EXPECT_EQ(state.loss, 1.0 / 3);
  EXPECT_FALSE(state.eval_loss);
}

TEST(Checkpoint, HasAPoolThatTheStoreOpensAndGrows) {
  const TempDir dir;
  SmallRun run;
  save(io::posix(), dir.path(), run, 5);
  const at::Tensor values = run.model->pool()->values.detach();
  const auto row_bytes = static_cast<std::size_t>(values.size(1)) * sizeof(float);
  {
    Store store = Store::open(dir / "step-5/pool");
    store.grow(13, [&](std::int64_t, std::span<std::byte> out) {
      std::fill(out.begin(), out.end(), std::byte{0});
    });
  }
  const Snapshot grown = Store::open(dir / "step-5/pool").snapshot();
  EXPECT_EQ(grown.rows(), 36 + 13);
  std::vector<std::byte> rows(36 * row_bytes);
  grown.read(0, rows);
  EXPECT_EQ(std::memcmp(rows.data(), values.const_data_ptr(), rows.size()), 0);
}

constexpr PoolOptimizer kKinds[] = {PoolOptimizer::kAdamW, PoolOptimizer::kSgd,
                                    PoolOptimizer::kRowwiseAdamW, PoolOptimizer::kRowwiseAdagrad,
                                    PoolOptimizer::kDenseAdamW};

TEST(Checkpoint, BringsBackTheTablesOfEveryRowOptimizer) {
  for (const PoolOptimizer kind : kKinds) {
    const TempDir dir;
    SmallRun saved(6, kind), loaded(6, kind);
    save(io::posix(), dir.path(), saved, 2);
    loaded.model->hidden_states(torch::randint(300, {2, 9}, torch::kLong)).sum().backward();
    loaded.rows->step(0.1);
    const RowState &a = saved.rows->state(), &b = loaded.rows->state();
    for (at::Tensor RowState::* table :
         {&RowState::exp_avg, &RowState::exp_avg_sq, &RowState::steps, &RowState::master}) {
      ASSERT_EQ((a.*table).defined(), (b.*table).defined());
      if (!(a.*table).defined()) continue;
      EXPECT_FALSE((a.*table).equal(b.*table));
    }
    loaded.model->pool()->values.detach().copy_(load_model(dir / "step-2")->pool()->values);
    train::load_optimizers(io::posix(), dir / "step-2", loaded.parts);
    EXPECT_EQ(loaded.rows->steps(), 2);
    for (at::Tensor RowState::* table :
         {&RowState::exp_avg, &RowState::exp_avg_sq, &RowState::steps, &RowState::master}) {
      if (!(a.*table).defined()) continue;
      EXPECT_TRUE((a.*table).equal(b.*table));
    }
    EXPECT_TRUE(loaded.model->pool()->values.equal(saved.model->pool()->values));
    EXPECT_TRUE(loaded.rows->missed_steps().equal(saved.rows->missed_steps()));
    loaded.model->pool()->catch_up();
    saved.model->pool()->catch_up();
    EXPECT_TRUE(loaded.model->pool()->values.equal(saved.model->pool()->values));
    EXPECT_TRUE(load_model(dir / "step-2")->pool()->values.equal(saved.model->pool()->values));
  }
}

// Rewrites a checkpoint as version 1 had it: the row optimizer's tables in one file.
void make_version_1(const std::string& checkpoint, SmallRun& of) {
  const RowState& state = of.rows->state();
  std::filesystem::remove(checkpoint + "/optimizer/rows.safetensors");
  train::NamedTensors tables{{"exp_avg", state.exp_avg},
                             {"exp_avg_sq", state.exp_avg_sq},
                             {"steps", state.steps},
                             {"usage", of.model->pool()->usage()}};
  train::write_tensors(io::posix(), checkpoint + "/optimizer/rows.safetensors", tables,
                       {{"optimizer", "adamw"}});
  std::string state_text = io::read_text(io::posix(), checkpoint + "/trainer.json");
  const std::string now = "\"version\": 2";
  state_text.replace(state_text.find(now), now.size(), "\"version\": 1");
  io::write_atomic(io::posix(), checkpoint + "/trainer.json", state_text);
  for (const std::string& name : io::posix().list(checkpoint + "/optimizer")) {
    if (name.starts_with("exp_avg")) std::filesystem::remove(checkpoint + "/optimizer/" + name);
  }
  std::filesystem::remove(checkpoint + "/usage.safetensors");
}

TEST(Checkpoint, OfVersion1ThatOneProcessWroteIsRead) {
  const TempDir dir;
  SmallRun saved, loaded;
  save(io::posix(), dir.path(), saved, 5);
  make_version_1(dir / "step-5", saved);
  loaded.rows->step(0.1);
  loaded.rows->state().exp_avg.zero_();
  loaded.rows->state().steps.zero_();
  loaded.model->pool()->reset_usage();
  train::load_optimizers(io::posix(), dir / "step-5", loaded.parts);
  EXPECT_TRUE(saved.rows->state().exp_avg.equal(loaded.rows->state().exp_avg));
  EXPECT_TRUE(saved.rows->state().exp_avg_sq.equal(loaded.rows->state().exp_avg_sq));
  EXPECT_TRUE(saved.rows->state().steps.equal(loaded.rows->state().steps));
  EXPECT_TRUE(saved.model->pool()->usage().equal(loaded.model->pool()->usage()));

  std::filesystem::rename(dir / "step-5/optimizer/rows.safetensors",
                          dir / "step-5/optimizer/rows-0-of-2.safetensors");
  EXPECT_TRUE(testing::says(
      testing::error_of([&] { train::load_optimizers(io::posix(), dir / "step-5", loaded.parts); }),
      {"rows.safetensors: no such file", "by several processes", "init"}));
}

TEST(Checkpoint, OfAnotherRowOptimizerIsAnErrorThatNamesBoth) {
  const TempDir dir;
  SmallRun saved(6, PoolOptimizer::kDenseAdamW), other(6, PoolOptimizer::kAdamW);
  save(io::posix(), dir.path(), saved, 2);
  try {
    train::load_optimizers(io::posix(), dir / "step-2", other.parts);
    FAIL() << "expected an Error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("rows.safetensors: state of the optimizer "
                                        "\"dense_adamw\", expected \"adamw\""));
  }
}

TEST(Checkpoint, OfAnotherShapeIsAnErrorThatNamesTheTensor) {
  const TempDir dir;
  SmallRun saved(6);
  save(io::posix(), dir.path(), saved, 5);
  SmallRun other(7);
  try {
    train::load_optimizers(io::posix(), dir / "step-5", other.parts);
    FAIL() << "expected an Error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(),
                HasSubstr("dense.safetensors: tensor exp_avg.model.layers.1.memory.keys"));
    EXPECT_THAT(error.what(), HasSubstr("another shape"));
  }
  SmallRun sgd(6, PoolOptimizer::kSgd);
  const std::string plain = dir / "sgd";
  io::posix().make_folder(plain);
  save(io::posix(), plain, sgd, 5);
  EXPECT_THROW(train::load_optimizers(io::posix(), plain + "/step-5", saved.parts), Error);
}

TEST(Checkpoint, OnAFullDiskLeavesTheEarlierOneAndNothingHalfWritten) {
  const TempDir dir;
  SmallRun run;
  save(io::posix(), dir.path(), run, 1);
  FailingFiles counting(std::numeric_limits<int>::max());
  save(counting, dir.path(), run, 2);
  std::filesystem::remove_all(dir / "step-2");
  ASSERT_GT(counting.calls(), 20);

  for (int n = 1; n <= counting.calls(); ++n) {
    FailingFiles files(n);
    EXPECT_THROW(save(files, dir.path(), run, 2), Error) << "call " << n;
    if (std::filesystem::exists(dir / "step-2")) {  // only the sync behind the rename failed
      EXPECT_EQ(n, counting.calls());
      EXPECT_NO_THROW(io::verify_folder(io::posix(), dir / "step-2"));
      continue;
    }
    EXPECT_EQ(names(dir.path()), std::vector<std::string>{"step-1"}) << "call " << n;
  }
  EXPECT_NO_THROW(io::verify_folder(io::posix(), dir / "step-1"));
}

// A disk that has room for each of the tables, but not for all.
class SmallDisk : public FailingFiles {
 public:
  explicit SmallDisk(std::uint64_t free) : FailingFiles(1'000'000), free_(free) {}
  std::optional<std::uint64_t> free_bytes(const std::string&) override { return free_; }

 private:
  std::uint64_t free_;
};

TEST(Checkpoint, AsksForTheRoomOfAllItsFilesBeforeTheFirst) {
  const TempDir dir;
  SmallRun run;
  const auto table = static_cast<std::uint64_t>(run.model->pool()->values.nbytes());
  std::uint64_t dense = 0;
  for (const auto& [name, tensor] : run.model->dense_parameters()) dense += tensor.nbytes();
  SmallDisk small(3 * dense + 3 * table);  // without the slots' reads and steps
  const std::string error = testing::error_of([&] { save(small, dir.path(), run, 1); });
  EXPECT_TRUE(testing::says(error, {"step-1: expected room for", "got"})) << error;
  EXPECT_EQ(small.calls(), 0);
  EXPECT_TRUE(names(dir.path()).empty());
  SmallDisk tiny(dense + table - 1);
  EXPECT_TRUE(testing::says(testing::error_of([&] { save_model(tiny, run.model, dir / "m"); }),
                            {"expected room for"}));
  EXPECT_EQ(tiny.calls(), 0);
  SmallDisk enough(3 * dense + 4 * table);
  save(enough, dir.path(), run, 1);
}

TEST(Checkpoint, WithoutPermissionIsAnErrorThatNamesThePath) {
  const TempDir dir;
  SmallRun run;
  FailingFiles denied(1);
  try {
    save(denied, dir.path(), run, 1);
    FAIL() << "expected an Error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr(dir.path()));
  }
}

TEST(ListCheckpoints, OrdersByStepAndLeavesIncompleteOnesOut) {
  const TempDir dir;
  SmallRun run;
  for (std::int64_t step : {9, 10, 100}) save(io::posix(), dir.path(), run, step);
  io::posix().unlink(dir / "step-100/MANIFEST.json");
  io::posix().make_folder(dir / "step-11x");
  io::posix().make_folder(dir / "step-");
  EXPECT_EQ(list_checkpoints(dir.path()),
            (std::vector<std::string>{dir / "step-9", dir / "step-10"}));
  EXPECT_TRUE(list_checkpoints(dir / "nothing").empty());
}

TEST(RemoveOldCheckpoints, KeepsTheOldOnesUntilTheNewestIsFoundWhole) {
  const TempDir dir;
  SmallRun run;
  for (std::int64_t step : {1, 2, 3}) save(io::posix(), dir.path(), run, step);
  const std::string path = dir / "step-3/model.safetensors";
  const auto file = io::posix().open(path, io::OpenMode::kReadWrite);
  std::byte last[1];
  file->pread(last, file->size() - 1);
  const std::byte flipped[] = {last[0] ^ std::byte{1}};
  file->pwrite(flipped, file->size() - 1);
  EXPECT_THROW(io::remove_old_checkpoints(io::posix(), dir.path(), 1), Error);
  EXPECT_EQ(list_checkpoints(dir.path()).size(), 3U);

  file->pwrite(last, file->size() - 1);
  io::remove_old_checkpoints(io::posix(), dir.path(), 2);
  EXPECT_EQ(names(dir.path()), (std::vector<std::string>{"step-2", "step-3"}));
}

TEST(RemoveUnfinishedCheckpoints, TakesOnlyTemporaryFolders) {
  const TempDir dir;
  SmallRun run;
  save(io::posix(), dir.path(), run, 1);
  io::posix().make_folder(dir / "step-2.tmp-123");
  io::write_atomic(io::posix(), dir / "step-2.tmp-123/config.json", "{}");
  io::posix().make_folder(dir / "cache");
  io::remove_unfinished_checkpoints(io::posix(), dir.path());
  EXPECT_EQ(names(dir.path()), (std::vector<std::string>{"cache", "step-1"}));
}

TEST(ResolveModelFolder, TakesTheFolderItselfElseTheNewestCheckpoint) {
  const TempDir dir;
  SmallRun run;
  for (std::int64_t step : {2, 10}) save(io::posix(), dir.path(), run, step);
  EXPECT_EQ(resolve_model_folder(dir.path()), dir / "step-10");
  EXPECT_EQ(resolve_model_folder(dir / "step-2"), dir / "step-2");
  EXPECT_THROW(resolve_model_folder(dir / "nothing"), Error);
  io::posix().make_folder(dir / "empty");
  EXPECT_THROW(resolve_model_folder(dir / "empty"), Error);
}

TEST(RunState, RejectsAFileThatIsNotOne) {
  const TempDir dir;
  for (const char* text : {"{", "{}", "{\"format\": \"other\", \"version\": 1}",
                           "{\"format\": \"memlayers.trainer\", \"version\": 3}"}) {
    io::write_atomic(io::posix(), dir / "trainer.json", text);
    EXPECT_THROW(train::load_run_state(io::posix(), dir.path()), Error) << text;
  }
}

}  // namespace
}  // namespace memlayers
