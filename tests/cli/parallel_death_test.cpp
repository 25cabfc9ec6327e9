// SPDX-License-Identifier: Apache-2.0
// A process of a run dies, hangs or finds no room: one line names it, and fewer processes go on
// from the newest checkpoint.
#include "cli/parallel_testing.h"
#include "io/folder.h"
#include "io/run_folder.h"
#include "memlayers/trainer.h"
#include "support/source_folder.h"

namespace memlayers {
namespace {

using testing::Finished;
using testing::read_file;
using testing::says;

constexpr std::int64_t kSteps = 100;

class ParallelDeath : public testing::ParallelRun {
 protected:
  static void change(TrainConfig& c) {
    small_rates(c);
    c.train.save_every = 10;
    c.data.valid = {};
    c.parallel.timeout_s = 5;
  }
  // By rank, once the run has come to a step behind its first checkpoint.
  std::vector<pid_t> processes_in_mid_run(pid_t mpirun, const std::string& run) {
    for (int i = 0; i < 3000; ++i) {
      if (read_file(dir_ / (run + "/metrics.jsonl")).find("{\"step\":15,") != std::string::npos) {
        break;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    std::ifstream children("/proc/" + std::to_string(mpirun) + "/task/" + std::to_string(mpirun) +
                           "/children");
    std::vector<pid_t> found;  // in the order in which they were started
    for (pid_t process; children >> process;) found.push_back(process);
    return found;
  }
  // rank 1 does `before` and is then the command; the others are it at once.
  std::vector<std::string> with_rank_1(const std::string& before, const std::string& config) {
    const std::string train = "'" + program() + "' train '" + config + "'";
    return {testing::in_repository("scripts/mpirun_here.sh"), "2", "/bin/bash", "-c",
            "if [ $OMPI_COMM_WORLD_RANK = 1 ]; then " + before + " " + train + "; else exec " +
                train + "; fi"};
  }
};

TEST_F(ParallelDeath, IsToldOnceWithRankHostAndStepAndFewerGoOnToTheSameLoss) {
  ASSERT_EQ(testing::run_command({"train", configure("whole", kSteps, change)}).code, 0);
  struct Case {
    const char* name;
    int signal, rank;
    const char* words;
  };
  for (const Case& of :
       {Case{"killed", SIGKILL, 2, "died in step "}, Case{"first", SIGKILL, 0, "died in step "},
        Case{"stopped", SIGSTOP, 1, "did not answer within "}}) {
    const std::string config = configure(of.name, kSteps, change);
    const pid_t mpirun = start(3, {config});
    const std::vector<pid_t> processes = processes_in_mid_run(mpirun, of.name);
    ASSERT_EQ(processes.size(), 3U) << of.name << read_file(dir_ / "err");
    const pid_t victim = processes[static_cast<std::size_t>(of.rank)];
    kill(victim, of.signal);
    const Finished done = finish(mpirun);
    kill(victim, SIGKILL);
    expect_one_error(done);
    EXPECT_TRUE(says(done.err, {"memlayers: error: rank " + std::to_string(of.rank) + " on ",
                                of.words, " step "}));
    const auto left = io::find_checkpoints(io::posix(), dir_ / of.name);
    ASSERT_FALSE(left.empty());
    EXPECT_LT(left.back().step, kSteps);
    const Finished rest = run(2, {config, "--resume", "auto"});
    ASSERT_EQ(rest.code, 0) << rest.err;
    EXPECT_TRUE(says(rest.err, {"at step " + std::to_string(left.back().step)}));
    expect_same_losses("whole", of.name);
  }
}

TEST_F(ParallelDeath, ADiskThatIsFullForOneProcessIsToldByThatOne) {
  if (std::system("strace -f -o /dev/null true 2> /dev/null") != 0) GTEST_SKIP() << "no strace";
  const std::string config = configure("run", 4, change);
  ASSERT_EQ(run(2, {config, "--set", "train.steps=2"}).code, 0);
  const Finished done =
      finish(start_command(with_rank_1("ASAN_OPTIONS=detect_leaks=0 exec strace -f -o /dev/null -e "
                                       "trace=pwrite64 -e inject=pwrite64:error=ENOSPC:when=1+",
                                       config)));
  expect_one_error(done);
  EXPECT_TRUE(says(done.err, {"memlayers: error: rank 1 on ", "step-4.tmp-", "disk full"}));
  EXPECT_NO_THROW(io::verify_folder(io::posix(), dir_ / "run/step-2"));
  EXPECT_EQ(run(2, {config}).code, 0);
  EXPECT_EQ(io::find_checkpoints(io::posix(), dir_ / "run").back().step, 4);
}

TEST_F(ParallelDeath, MemoryThatOneProcessHasNotIsToldByThatOne) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer's own memory is larger than any limit";
#endif
  const std::string config = configure("run", 4, [](TrainConfig& c) {
    change(c);
    c.model.memory->n_keys = 1000;  // with its moments 580 MB a process
  });
  // Room for the libraries, not for the rows.
  const Finished done = finish(start_command(with_rank_1("ulimit -v 900000; exec", config)));
  expect_one_error(done);
  EXPECT_TRUE(says(done.err, {"memlayers: error: rank 1 on ", "memory"}));
}

}  // namespace
}  // namespace memlayers
