// SPDX-License-Identifier: Apache-2.0
// Runs of `mpirun -n N memlayers train`, small enough to take a second.
#pragma once

#include <signal.h>

#include <chrono>
#include <filesystem>
#include <limits>
#include <thread>

#include "cli/command_testing.h"
#include "support/source_folder.h"
#include "train/metrics.h"
#include "train/run_testing.h"

namespace memlayers::testing {

class ParallelRun : public ::testing::Test {
 protected:
  ParallelRun() { write_facts(dir_ / "facts.jsonl"); }

  // A run of `steps` steps in folder `name`; the configuration of all of them but for `change`.
  std::string configure(const std::string& name, std::int64_t steps,
                        const std::function<void(TrainConfig&)>& change = {}) {
    TrainConfig config = tiny_config(dir_ / name, dir_ / "facts.jsonl");
    config.train.steps = steps;
    config.model.memory->v_dim = 96;
    config.data.valid = {dir_ / "facts.jsonl"};
    if (change) change(config);
    io::write_atomic(io::posix(), dir_ / (name + ".toml"), to_toml(config));
    return dir_ / (name + ".toml");
  }
  // Starts words[0], found by its path, with standard output and error in files.
  pid_t start_command(std::vector<std::string> words) {
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
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
  static std::string program() {
    return std::filesystem::read_symlink("/proc/self/exe").parent_path() / "memlayers";
  }
  pid_t start(int processes, const std::vector<std::string>& arguments) {
    std::vector<std::string> words{testing::in_repository("scripts/mpirun_here.sh"),
                                   std::to_string(processes), program(), "train"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    return start_command(std::move(words));
  }
  Finished finish(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    return {.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status),
            .out = read_file(dir_ / "out"),
            .err = read_file(dir_ / "err")};
  }
  Finished run(int processes, const std::vector<std::string>& arguments) {
    return finish(start(processes, arguments));
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
  // At these rates the last bits, in which runs of different numbers of processes differ, tip no
  // choice of a slot (docs/parallel.md).
  static void small_rates(TrainConfig& c) {
    c.train.lr = 2e-4;
    c.train.value_lr = 1e-3;
    c.train.schedule = Schedule::kConstant;  // which does not know how many steps there will be
  }
  static void expect_one_error(const Finished& done) {
    EXPECT_NE(done.code, 0);
    const std::string mark = "memlayers: error: ";
    ASSERT_NE(done.err.find(mark), std::string::npos) << done.err;
    EXPECT_EQ(done.err.find(mark), done.err.rfind(mark)) << done.err;
  }

  TempDir dir_;
};

}  // namespace memlayers::testing
