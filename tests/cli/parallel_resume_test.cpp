// SPDX-License-Identifier: Apache-2.0
// Checkpoints that any number of processes writes and any other number goes on from.
#include "cli/parallel_testing.h"
#include "io/folder.h"
#include "memlayers/checkpoint.h"
#include "train/run_checkpoint.h"

namespace memlayers {
namespace {

using testing::Finished;
using testing::read_file;
using testing::says;

class ParallelResume : public testing::ParallelRun {};

TEST_F(ParallelResume, GoesOnWithAnyOtherNumberOfProcesses) {
  struct Case {
    const char* name;
    PoolOptimizer optimizer;
    RowType rows;
    bool master;
  };
  for (const Case& of : {Case{"adamw", PoolOptimizer::kAdamW, RowType::kFloat32, false},
                         Case{"dense", PoolOptimizer::kDenseAdamW, RowType::kFloat32, false},
                         Case{"rowwise", PoolOptimizer::kRowwiseAdamW, RowType::kBFloat16, true}}) {
    const auto change = [&](TrainConfig& c) {
      small_rates(c);
      c.train.value_optimizer = of.optimizer;
      c.model.memory->row_dtype = of.rows;
      c.train.master_rows = of.master;
    };
    const std::string whole = std::string(of.name) + "-whole", parts = std::string(of.name);
    ASSERT_EQ(testing::run_command({"train", configure(whole, 12, change)}).code, 0);
    const std::string config = configure(parts, 12, change);
    int steps = 0;
    for (const int processes : {4, 2, 1, 3}) {
      steps += 3;
      const Finished done =
          run(processes, {config, "--set", "train.steps=" + std::to_string(steps),
                          processes == 2 ? "parallel.split=rows" : "parallel.split=auto"});
      ASSERT_EQ(done.code, 0) << done.err;
      if (steps > 3) {
        EXPECT_TRUE(says(done.err, {"at step " + std::to_string(steps - 3)}));
      }
    }
    // Only the last step is an evaluation in both.
    auto a = metrics(whole), b = metrics(parts);
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      EXPECT_NEAR(a[i].loss, b[i].loss, 1e-5) << of.name << " step " << i + 1;
      EXPECT_EQ(a[i].tokens, b[i].tokens) << "step " << i + 1;  // none twice, none left out
      EXPECT_EQ(a[i].touched_rows, b[i].touched_rows) << "step " << i + 1;
      EXPECT_EQ(a[i].epoch, b[i].epoch);
    }
    Llama one = load_model(dir_ / (whole + "/step-12")),
          other = load_model(dir_ / (parts + "/step-12"));
    EXPECT_TRUE(at::allclose(one->pool()->values.to(at::kFloat),
                             other->pool()->values.to(at::kFloat), 1e-3, 1e-4));
    const auto reads = [&](const std::string& run) {
      return read_file(dir_ / (run + "/step-12/usage.safetensors"));
    };
    EXPECT_EQ(reads(whole), reads(parts)) << "reads of all slots";
  }
}

TEST_F(ParallelResume, MemoryGroupsGoOnAsOneAndOneAsMemoryGroups) {
  const auto change = [](TrainConfig& c) { small_rates(c); };
  ASSERT_EQ(testing::run_command({"train", configure("whole", 6, change)}).code, 0);
  const std::string config = configure("parts", 6, change);
  const std::vector<std::pair<int, int>> layouts{{4, 2}, {2, 1}, {4, 2}};
  int steps = 0;
  for (const auto& [processes, groups] : layouts) {
    const Finished done =
        run(processes, {config, "--set", "train.steps=" + std::to_string(steps += 2),
                        "parallel.groups=" + std::to_string(groups)});
    ASSERT_EQ(done.code, 0) << done.err;
  }
  const auto a = metrics("whole"), b = metrics("parts");
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i].loss, b[i].loss, 1e-5) << i;
  EXPECT_EQ(read_file(dir_ / "whole/step-6/usage.safetensors"),
            read_file(dir_ / "parts/step-6/usage.safetensors"));
}

TEST_F(ParallelResume, AGrownCheckpointGoesOnWithAnyNumberOfProcesses) {
  const auto change = [](TrainConfig& c) {
    small_rates(c);
    c.train.value_optimizer = PoolOptimizer::kDenseAdamW;
    c.train.value_weight_decay = 0.1;
  };
  ASSERT_EQ(run(2, {configure("one", 3, change)}).code, 0);
  ASSERT_EQ(testing::run_command({"grow", dir_ / "one", "--n-keys", "13"}).code, 0);
  std::filesystem::copy(dir_ / "one", dir_ / "three", std::filesystem::copy_options::recursive);
  for (const auto& [name, processes] : {std::pair("one", 1), std::pair("three", 3)}) {
    const Finished done = run(processes, {configure(name, 7, change), "--set", "memory.n_keys=13"});
    ASSERT_EQ(done.code, 0) << done.err;
    EXPECT_TRUE(says(done.err, {"at step 3"}));
  }
  expect_same_losses("one", "three");
  EXPECT_EQ(read_file(dir_ / "one/step-7/usage.safetensors"),
            read_file(dir_ / "three/step-7/usage.safetensors"));
  EXPECT_TRUE(at::allclose(load_model(dir_ / "one/step-7")->pool()->values,
                           load_model(dir_ / "three/step-7")->pool()->values, 1e-3, 1e-4));
}

TEST_F(ParallelResume, TheCheckpointSaysWhoWroteItAndInspectShowsIt) {
  const Finished done = run(3, {configure("run", 2, small_rates)});
  ASSERT_EQ(done.code, 0) << done.err;
  const Finished shown = testing::run_command({"inspect", dir_ / "run", "--verify"});
  ASSERT_EQ(shown.code, 0) << shown.err;
  EXPECT_TRUE(says(shown.out, {"written by", "3 processes", "1 group", "3 parts of columns",
                               "checksums", "hold"}));
  const Finished json = testing::run_command({"inspect", dir_ / "run", "--json"});
  EXPECT_TRUE(
      says(json.out, {"\"layout\":{\"processes\":3,\"groups\":1,\"column_parts\":3",
                      "\"pool/chunk-0-2.safetensors\":0", "\"optimizer/exp_avg-0-2.safetensors\":1",
                      "\"optimizer/exp_avg_sq-0-2.safetensors\":2"}));
}

TEST_F(ParallelResume, RefusesADamagedCheckpointOnceAndGoesOnFromTheOneBefore) {
  const auto change = [](TrainConfig& c) {
    small_rates(c);
    c.train.save_every = 2;
  };
  const std::string config = configure("run", 4, change);
  ASSERT_EQ(run(2, {config}).code, 0);
  const std::string damaged = dir_ / "run/step-4/optimizer/exp_avg-0-4.safetensors";
  std::filesystem::copy_file(dir_ / "run/step-4/optimizer/exp_avg_sq-0-4.safetensors", damaged,
                             std::filesystem::copy_options::overwrite_existing);
  const Finished refused = run(3, {config, "--set", "train.steps=6"});
  expect_one_error(refused);
  EXPECT_TRUE(says(refused.err, {damaged, "checksum", "the one before, " + dir_ / "run/step-2",
                                 "is complete: --resume " + dir_ / "run/step-2"}));
  const Finished rest = run(3, {config, "--set", "train.steps=6", "--resume", dir_ / "run/step-2"});
  ASSERT_EQ(rest.code, 0) << rest.err;
  EXPECT_TRUE(says(rest.err, {"step-4 is damaged: now ", "step-4.damaged", "at step 2"}));
  EXPECT_NO_THROW(io::verify_folder(io::posix(), dir_ / "run/step-4"));
  EXPECT_TRUE(std::filesystem::exists(dir_ / "run/step-4.damaged"));
}

}  // namespace
}  // namespace memlayers
