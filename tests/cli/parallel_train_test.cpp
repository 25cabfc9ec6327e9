// SPDX-License-Identifier: Apache-2.0
// `mpirun -n N memlayers train`, beside the same command alone.
#include "cli/parallel_testing.h"
#include "memlayers/checkpoint.h"

namespace memlayers {
namespace {

using testing::Finished;
using testing::read_file;
using testing::says;

class ParallelTrain : public testing::ParallelRun {};

TEST_F(ParallelTrain, IsTheRunOfOneProcessAndItsModelIsReadByOne) {
  const auto more = [](TrainConfig& c) {
    c.train.sample_every = 4;
    c.train.sample_prompts = {"the red otter has number"};
  };
  const Finished alone = testing::run_command({"train", configure("one", 8, more)});
  ASSERT_EQ(alone.code, 0) << alone.err;
  EXPECT_EQ(alone.err.find("processes"), std::string::npos);
  const Finished three = run(3, {configure("three", 8, more), "--json"});
  ASSERT_EQ(three.code, 0) << three.err;
  EXPECT_TRUE(says(three.err, {"3 processes of 1 thread", "done: loss"}));
  EXPECT_EQ(std::count(three.out.begin(), three.out.end(), '\n'), 8) << "one process speaks";
  expect_same_losses("one", "three");
  // Tokenizer, sizes and rows: what one process wrote, as far as sums in another order allow.
  Llama a = load_model(dir_ / "one/step-8"), b = load_model(dir_ / "three/step-8");
  EXPECT_TRUE(at::allclose(a->pool()->values, b->pool()->values, 1e-3, 1e-4));
  EXPECT_EQ(read_file(dir_ / "one/step-8/tokenizer.model"),
            read_file(dir_ / "three/step-8/tokenizer.model"));
  EXPECT_EQ(
      testing::run_command({"eval", dir_ / "three/step-8", "--facts", dir_ / "facts.jsonl"}).code,
      0);
}

TEST_F(ParallelTrain, GoesOnFromItsCheckpointAsIfItHadNotStopped) {
  for (const PoolSplitKind split : {PoolSplitKind::kColumns, PoolSplitKind::kRows}) {
    const auto change = [&](TrainConfig& c) {
      c.parallel.split = split;
      c.train.schedule = Schedule::kConstant;  // which does not know how many steps there will be
    };
    const std::string n = split == PoolSplitKind::kRows ? "rows" : "columns";
    ASSERT_EQ(run(2, {configure(n + "-whole", 6, change)}).code, 0);
    const std::string parts = configure(n + "-parts", 6, change);
    ASSERT_EQ(run(2, {parts, "--set", "train.steps=3"}).code, 0);
    const Finished rest = run(2, {parts});
    ASSERT_EQ(rest.code, 0) << rest.err;
    EXPECT_TRUE(says(rest.err, {"resumed from", "at step 3"}));
    Llama whole = load_model(dir_ / (n + "-whole/step-6"));
    Llama stopped = load_model(dir_ / (n + "-parts/step-6"));
    testing::expect_same_bits(testing::weights(whole), testing::weights(stopped));
  }
}

TEST_F(ParallelTrain, MetricsSayWhatEachProcessSentWaitedForAndHolds) {
  ASSERT_EQ(run(3, {configure("run", 4)}).code, 0);
  const auto lines = metrics("run");
  ASSERT_EQ(lines.size(), 4U);
  for (const StepMetrics& m : lines) {
    ASSERT_EQ(m.bytes_sent.size(), 3U);
    ASSERT_EQ(m.waited_s.size(), 3U);
    for (std::size_t rank = 0; rank < 3; ++rank) {
      EXPECT_GT(m.bytes_sent[rank], 22'600 * 4) << "the dense gradients alone are more";
      EXPECT_GT(m.waited_s[rank], 0);
    }
    // 100 rows of 96 columns: 32 of each row, their two moments, and a count of steps.
    EXPECT_EQ(m.pool_bytes, std::vector<std::int64_t>(3, 100 * (3 * 32 * 4 + 4)));
  }
  ASSERT_EQ(testing::run_command({"train", configure("alone", 1)}).code, 0);
  EXPECT_TRUE(metrics("alone").front().bytes_sent.empty());
}

TEST_F(ParallelTrain, AWrongConfigurationEndsEachProcessBeforeAnyExchange) {
  const Finished done = run(3, {configure("run", 2), "--set", "memory.knn=11"});
  EXPECT_EQ(done.code, 2);
  expect_one_error(done);
  EXPECT_TRUE(says(done.err, {"memlayers: error: ", "[memory] knn"}));
  EXPECT_EQ(done.err.find("MPI_ABORT"), std::string::npos) << done.err;
}

// What one process finds wrong, or all, before the first step: each leaves by itself.
TEST_F(ParallelTrain, SaysOnceWhatIsWrongAndEndsNoProcessByForce) {
  const std::string config = configure("run", 2);
  const auto expect_wrong = [&](const std::string& change, const std::string& sentence) {
    const Finished done = run(3, {config, "--set", change});
    EXPECT_EQ(done.code, 2) << change;
    expect_one_error(done);
    EXPECT_TRUE(says(done.err, {"memlayers: error: " + sentence}));
    EXPECT_EQ(done.err.find("MPI_ABORT"), std::string::npos) << done.err;
    EXPECT_EQ(done.err.find("rank "), std::string::npos) << done.err;
  };
  expect_wrong("parallel.groups=2",
               "[parallel] groups: expected a number that divides the 3 processes of the run, "
               "got 2");
  expect_wrong("train.resume=\"nowhere\"", "train.resume: nowhere: no such folder");
  expect_wrong("data.train=[\"nowhere.txt\"]", "nowhere.txt: ");
  expect_wrong("model.context=1", "data.train: expected a document with a token to predict");
  expect_wrong("train.pool_folder=\"/nowhere\"", "/nowhere: expected a folder");
  expect_wrong("out=\"/proc/nowhere\"", "/proc/nowhere: cannot make the folder");
  const std::string model = dir_ / "model";
  std::filesystem::create_directory(model);
  io::write_atomic(io::posix(), model + "/config.json", "{}");
  expect_wrong("init=\"" + model + "\"", model);
}

TEST_F(ParallelTrain, ADamagedCheckpointEndsNoProcessByForce) {
  const std::string config = configure("run", 2);
  ASSERT_EQ(testing::run_command({"train", config}).code, 0);
  const std::string file = dir_ / "run/step-2/model.safetensors";
  std::string bytes = read_file(file);
  bytes.back() ^= 1;
  io::write_atomic(io::posix(), file, bytes);
  const Finished done = run(3, {config, "--set", "train.steps=3"});
  EXPECT_EQ(done.code, 2);
  expect_one_error(done);
  EXPECT_TRUE(says(done.err, {"memlayers: error: " + file + ": expected checksum "}));
  EXPECT_EQ(done.err.find("MPI_ABORT"), std::string::npos) << done.err;
}

}  // namespace
}  // namespace memlayers
