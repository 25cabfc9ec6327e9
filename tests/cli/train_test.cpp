// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "memlayers/checkpoint.h"
#include "support/temp_dir.h"
#include "train/run_testing.h"

namespace memlayers {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

struct Finished {
  int code;
  std::string out, err;
};

class TrainCommand : public ::testing::Test {
 protected:
  TrainCommand() {
    testing::write_facts(dir_ / "facts.jsonl");
    TrainConfig config = testing::tiny_config(dir_ / "run", dir_ / "facts.jsonl");
    config.train.steps = 4;
    io::write_atomic(io::posix(), dir_ / "c.toml", to_toml(config));
  }

  // Starts `memlayers train ...`, which stands beside this test; its output goes to files.
  pid_t start(std::vector<std::string> arguments, const std::string& input = "/dev/null",
              rlim_t largest_file = RLIM_INFINITY) {
    const std::string program =
        std::filesystem::read_symlink("/proc/self/exe").parent_path() / "memlayers";
    arguments.insert(arguments.begin(), {program, "train"});
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    const pid_t child = fork();
    if (child == 0) {
      const auto redirect = [](const std::string& path, int flags, int to) {
        dup2(open(path.c_str(), flags, 0600), to);
      };
      redirect(input, O_RDONLY, 0);
      redirect(dir_ / "out", O_WRONLY | O_CREAT | O_TRUNC, 1);
      redirect(dir_ / "err", O_WRONLY | O_CREAT | O_TRUNC, 2);
      if (largest_file != RLIM_INFINITY) {
        signal(SIGXFSZ, SIG_IGN);  // then write() fails instead
        const rlimit limit{largest_file, largest_file};
        setrlimit(RLIMIT_FSIZE, &limit);
      }
      execv(argv[0], argv.data());
      _exit(127);
    }
    return child;
  }
  Finished wait_for(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    return {.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status),
            .out = io::read_text(io::posix(), dir_ / "out"),
            .err = io::read_text(io::posix(), dir_ / "err")};
  }
  Finished train(const std::vector<std::string>& arguments) { return wait_for(start(arguments)); }

  testing::TempDir dir_;
  std::string config_ = dir_ / "c.toml";
  std::string run_ = dir_ / "run";
};

TEST_F(TrainCommand, TrainsAndSaysWhereTheModelIs) {
  const Finished done = train({config_});
  EXPECT_EQ(done.code, 0) << done.err;
  EXPECT_EQ(done.out, "");
  EXPECT_THAT(done.err, HasSubstr("model: " + run_ + "/step-4"));
  EXPECT_THAT(done.err, HasSubstr("in a pool of 100 rows of 32"));
  EXPECT_EQ(list_checkpoints(run_), std::vector<std::string>{run_ + "/step-4"});

  const Finished again = train({config_});
  EXPECT_EQ(again.code, 0);
  EXPECT_THAT(again.err, HasSubstr("nothing is left to do"));
  const Finished more = train({config_, "--set", "train.steps=6"});
  EXPECT_EQ(more.code, 0);
  EXPECT_THAT(more.err, HasSubstr("resumed from " + run_ + "/step-4 at step 4"));
}

TEST_F(TrainCommand, PrintsOneJsonObjectALoggedStep) {
  const Finished done = train({"--json", "--set", "train.log_every=2", config_});
  EXPECT_EQ(done.code, 0) << done.err;
  std::istringstream lines(done.out);
  std::string line;
  std::vector<int> steps;
  while (std::getline(lines, line)) {
    const auto object = nlohmann::json::parse(line);
    for (const char* key : {"step", "loss", "lr", "tokens", "tokens_per_s", "time_s"}) {
      EXPECT_TRUE(object.contains(key)) << key;
    }
    steps.push_back(object["step"]);
  }
  EXPECT_EQ(steps, (std::vector<int>{2, 4}));
  EXPECT_EQ(done.out, io::read_text(io::posix(), run_ + "/metrics.jsonl"));
}

TEST_F(TrainCommand, SavesAndLeavesOnCtrlCAndGoesOnLater) {
  // A pipe, so that the test wakes up when the first step was logged.
  const std::string pipe = dir_ / "out";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const pid_t child = start({config_, "--json", "--set", "train.steps=100000"});
  const int reader = open(pipe.c_str(), O_RDONLY);
  char byte = 0;
  ASSERT_EQ(read(reader, &byte, 1), 1);
  kill(child, SIGINT);
  std::vector<char> rest(1 << 16);
  while (read(reader, rest.data(), rest.size()) > 0) {
  }
  close(reader);
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 128 + SIGINT);
  std::filesystem::remove(pipe);
  const auto saved = list_checkpoints(run_);
  ASSERT_EQ(saved.size(), 1U);
  EXPECT_THAT(io::read_text(io::posix(), dir_ / "err"), HasSubstr("model: " + saved[0]));

  const std::string step = saved[0].substr(saved[0].rfind('-') + 1);
  const Finished more =
      train({config_, "--set", "train.steps=" + std::to_string(std::stoi(step) + 2)});
  EXPECT_EQ(more.code, 0) << more.err;
  EXPECT_THAT(more.err, HasSubstr("at step " + step));
}

TEST_F(TrainCommand, SaysWhatIsWrongInOneLine) {
  const auto expect_error = [&](const std::vector<std::string>& arguments, int code,
                                const std::string& text) {
    const Finished done = train(arguments);
    EXPECT_EQ(done.code, code) << text;
    EXPECT_EQ(done.out, "");
    EXPECT_THAT(done.err, StartsWith("memlayers: error: "));
    EXPECT_THAT(done.err, HasSubstr(text));
    EXPECT_EQ(done.err.find('\n'), done.err.size() - 1) << done.err;
    EXPECT_FALSE(std::filesystem::exists(run_)) << text;
  };
  expect_error({config_, "--set", "train.stepz=3"}, 1, "did you mean");
  expect_error({config_, "--set", "memory.knn=11"}, 1, "knn");
  expect_error({dir_ / "no.toml"}, 1, "no.toml");
  expect_error({config_, "--set", "data.train=[\"" + dir_ / "gone.txt" + "\"]"}, 1, "gone.txt");
  expect_error({}, 2, "CONFIG.toml");
  expect_error({config_, "--set", "nothing"}, 2, "nothing");
  expect_error({config_, "--resume", dir_ / "gone"}, 1, "train.resume");
}

TEST_F(TrainCommand, SaysThatTheMemoryIsNotEnough) {
  const Finished done = train({config_, "--set", "model.ff_dim=2000000000"});
  EXPECT_EQ(done.code, 1);
  EXPECT_EQ(done.err.rfind("memlayers: error: [model], [memory]: out of memory: no room for ", 0),
            0U)
      << done.err;
  EXPECT_EQ(std::count(done.err.begin(), done.err.end(), '\n'), 1) << done.err;
  EXPECT_FALSE(std::filesystem::exists(run_));
}

TEST_F(TrainCommand, OnAFullDiskLeavesNoCheckpointBehind) {
  // Large enough for tokens and metrics, too small for the weights.
  const Finished full = wait_for(start({config_}, "/dev/null", /*largest_file=*/30000));
  EXPECT_EQ(full.code, 1);
  EXPECT_THAT(full.err, HasSubstr("memlayers: error: " + run_ + "/step-4"));
  EXPECT_THAT(full.err, Not(HasSubstr("terminate")));
  for (const std::string& name : io::posix().list(run_))
    EXPECT_THAT(name, Not(StartsWith("step-")));
  EXPECT_EQ(train({config_}).code, 0);
}

TEST_F(TrainCommand, DryRunTrainsNothing) {
  const Finished done = train({config_, "--dry-run"});
  EXPECT_EQ(done.code, 0) << done.err;
  EXPECT_THAT(done.err, HasSubstr("40 documents"));
  EXPECT_EQ(io::posix().list(run_), std::vector<std::string>{"cache"});
  const Finished sizes = train({config_, "--dry-run", "--json"});
  const auto json = nlohmann::json::parse(sizes.out);
  EXPECT_GT(json["parameters"]["dense"].get<double>(), 0);
  EXPECT_GT(json["flops_per_token"]["total"].get<double>(), 0);
  EXPECT_GT(json["steps"].get<int>(), 0);
}

TEST_F(TrainCommand, ReadsFactsFromStandardInput) {
  const Finished done = wait_for(start(
      {config_, "--set", "data.train=[\"-\"]", "data.format=\"jsonl\""}, dir_ / "facts.jsonl"));
  EXPECT_EQ(done.code, 0) << done.err;
  EXPECT_THAT(done.err, HasSubstr("40 documents"));
}

TEST_F(TrainCommand, DescribesEveryKey) {
  const Finished done = train({"--help-config"});
  EXPECT_EQ(done.code, 0);
  for (const char* key : {"n_keys", "value_lr", "max_bad_steps"}) {
    EXPECT_THAT(done.out, HasSubstr(key));
  }
}

}  // namespace
}  // namespace memlayers
