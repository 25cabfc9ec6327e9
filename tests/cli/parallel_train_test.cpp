// SPDX-License-Identifier: Apache-2.0
// `mpirun -n N memlayers train`, beside the same command alone.
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <limits>
#include <thread>

#include "cli/command_testing.h"
#include "memlayers/checkpoint.h"
#include "train/metrics.h"
#include "train/run_testing.h"

namespace memlayers {
namespace {

using testing::Finished;
using testing::read_file;
using testing::says;

class ParallelTrain : public ::testing::Test {
 protected:
  ParallelTrain() { testing::write_facts(dir_ / "facts.jsonl"); }

  // A run of `steps` steps in folder `name`; the configuration of all of them but for `change`.
  std::string configure(const std::string& name, std::int64_t steps,
                        const std::function<void(TrainConfig&)>& change = {}) {
    TrainConfig config = testing::tiny_config(dir_ / name, dir_ / "facts.jsonl");
    config.train.steps = steps;
    config.model.memory->v_dim = 96;
    config.data.valid = {dir_ / "facts.jsonl"};
    if (change) change(config);
    io::write_atomic(io::posix(), dir_ / (name + ".toml"), to_toml(config));
    return dir_ / (name + ".toml");
  }
  static std::vector<char*> pointers(std::vector<std::string>& words) {
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    return argv;
  }
  pid_t start(int processes, std::vector<std::string> arguments) {
    const std::string program =
        std::filesystem::read_symlink("/proc/self/exe").parent_path() / "memlayers";
    std::vector<std::string> words{MEMLAYERS_MPIRUN, std::to_string(processes), program, "train"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    const std::vector<char*> argv = pointers(words);
    const pid_t child = fork();
    if (child == 0) {
      dup2(open("/dev/null", O_RDONLY), 0);
      dup2(open((dir_ / "out").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 1);
      dup2(open((dir_ / "err").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
      execv(argv[0], argv.data());
      _exit(127);
    }
    return child;
  }
  Finished finish(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    return {.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status),
            .out = read_file(dir_ / "out"),
            .err = read_file(dir_ / "err")};
  }
  Finished run(int processes, std::vector<std::string> arguments) {
    return finish(start(processes, std::move(arguments)));
  }
  std::vector<StepMetrics> metrics(const std::string& name) {
    return train::RunLog(io::posix(), dir_ / name, std::numeric_limits<std::int64_t>::max())
        .metrics();
  }
  void expect_same_losses(const std::string& a, const std::string& b) {
    const auto of_a = metrics(a), of_b = metrics(b);
    ASSERT_EQ(of_a.size(), of_b.size());
    for (std::size_t i = 0; i < of_a.size(); ++i) {
      EXPECT_NEAR(of_a[i].loss, of_b[i].loss, 1e-5) << i;
      EXPECT_EQ(of_a[i].tokens, of_b[i].tokens);
      EXPECT_EQ(of_a[i].touched_rows, of_b[i].touched_rows);
      EXPECT_EQ(of_a[i].eval_loss.has_value(), of_b[i].eval_loss.has_value());
      if (!of_a[i].eval_loss) continue;
      EXPECT_NEAR(*of_a[i].eval_loss, *of_b[i].eval_loss, 1e-5);
    }
  }

  testing::TempDir dir_;
};

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

TEST_F(ParallelTrain, ResumesOnlyInThePartsItBeganWith) {
  const std::string config = configure("run", 2);
  ASSERT_EQ(run(2, {config}).code, 0);
  const Finished three = run(3, {config, "--set", "train.steps=4"});
  EXPECT_NE(three.code, 0);
  EXPECT_TRUE(says(three.err, {"memlayers: error: ", "rows-0-of-3", "parts of columns"}));
}

TEST_F(ParallelTrain, SaysOnceWhatIsWrong) {
  const Finished done = run(3, {configure("run", 2), "--set", "parallel.groups=2"});
  EXPECT_EQ(done.code, 1);
  EXPECT_TRUE(says(done.err, {"memlayers: error: [parallel] groups", "3 processes", "got 2"}));
  EXPECT_EQ(done.err.find("memlayers: error: "), done.err.rfind("memlayers: error: ")) << done.err;
}

TEST_F(ParallelTrain, AProcessThatHangsEndsTheRunWithItsRankHostAndStep) {
  const std::string config = configure("run", 1000000, [](TrainConfig& c) {
    c.parallel.timeout_s = 1;
    c.data.valid = {};
  });
  const pid_t child = start(3, {config});
  const auto is_running = [&] { return read_file(dir_ / "run/metrics.jsonl").size() > 1000; };
  for (int i = 0; i < 600 && !is_running(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  ASSERT_TRUE(is_running());
  pid_t last = 0;  // mpirun's youngest child
  std::ifstream children("/proc/" + std::to_string(child) + "/task/" + std::to_string(child) +
                         "/children");
  for (pid_t process; children >> process;) last = process;
  ASSERT_GT(last, 0);
  kill(last, SIGSTOP);
  const Finished done = finish(child);
  kill(last, SIGKILL);
  EXPECT_NE(done.code, 0);
  EXPECT_TRUE(says(done.err, {"memlayers: error: rank ", " on ", "did not answer", " in step "}));
  EXPECT_EQ(done.err.find("memlayers: error: "), done.err.rfind("memlayers: error: ")) << done.err;
}

}  // namespace
}  // namespace memlayers
