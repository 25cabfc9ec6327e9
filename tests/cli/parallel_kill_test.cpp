// SPDX-License-Identifier: Apache-2.0
// One process of a run is killed by strace as it enters a system call of a save: the newest
// complete checkpoint that is left is whole, and the run goes on from it.
#include <cstdlib>

#include "cli/parallel_testing.h"
#include "io/folder.h"
#include "io/run_folder.h"
#include "memlayers/trainer.h"
#include "support/source_folder.h"
#include "support/store_testing.h"

namespace memlayers {
namespace {

using testing::Finished;

constexpr int kProcesses = 2;

class ParallelKill : public testing::ParallelRun {
 protected:
  // Whether the run came to its end, unkilled.
  bool run_killed(const std::string& config, int rank, const std::string& call, int when) {
    const std::string train = "'" + program() + "' train '" + config + "'";
    // A sanitizer's search for leaks cannot run under strace.
    const std::string traced =
        "ASAN_OPTIONS=detect_leaks=0 exec strace -f -o "
        "/dev/null -e trace=" +
        call + " -e inject=" + call + ":signal=KILL:when=" + std::to_string(when) + " " + train;
    return finish(start_command({testing::in_repository("scripts/mpirun_here.sh"),
                                 std::to_string(kProcesses), "/bin/bash", "-c",
                                 "if [ $OMPI_COMM_WORLD_RANK = " + std::to_string(rank) +
                                     " ]; then " + traced + "; else exec " + train + "; fi"}))
               .code == 0;
  }
};

TEST_F(ParallelKill, AtAnySystemCallOfASaveLeavesTheNewestCheckpointWhole) {
  if (std::system("strace -f -o /dev/null true 2> /dev/null") != 0) {
    GTEST_SKIP() << "no strace here";
  }
  const std::string config = configure("run", 2, [](TrainConfig& c) {
    c.data.valid = {};
    c.train.keep = 1;  // so that the old one is removed as well
  });
  ASSERT_EQ(run(kProcesses, {config}).code, 0);
  std::filesystem::copy(dir_ / "run", dir_ / "before", std::filesystem::copy_options::recursive);
  configure("run", 4, [](TrainConfig& c) {
    c.data.valid = {};
    c.train.keep = 1;
  });
  const bool is_soak = testing::soaked(0, 1) == 1;
  std::vector<std::string> calls{"fdatasync", "rename", "renameat2", "pwrite64"};
  if (is_soak) {
    // Calls that change a file. What only opens or reads comes while MPI starts as well, and a
    // process that is killed there can leave mpirun itself hanging (Open MPI 4.1).
    for (const char* call : {"fsync", "mkdir", "unlink", "unlinkat"}) {
      calls.emplace_back(call);
    }
  }
  int kills = 0;
  for (int rank = 0; rank < kProcesses; ++rank) {
    for (const std::string& call : calls) {
      // Every call of a soak; else the first, the second, the fifth and so on.
      for (int when = 1;; when = is_soak ? when + 1 : 2 * when + when * when / 3) {
        std::filesystem::remove_all(dir_ / "run");
        std::filesystem::copy(dir_ / "before", dir_ / "run",
                              std::filesystem::copy_options::recursive);
        const bool is_over = run_killed(config, rank, call, when);
        const std::string where =
            "rank " + std::to_string(rank) + ", " + call + " " + std::to_string(when);
        const auto found = io::find_checkpoints(io::posix(), dir_ / "run");
        ASSERT_FALSE(found.empty()) << where;
        EXPECT_NO_THROW(io::verify_folder(io::posix(), found.back().path)) << where;
        const TrainResult rest = Trainer(load_train_config(config, {})).run();
        EXPECT_EQ(rest.step, 4) << where;
        EXPECT_EQ(rest.already_done, found.back().step == 4) << where;
        if (HasFailure()) return;
        if (is_over) break;
        ++kills;
      }
    }
  }
  EXPECT_GT(kills, 6);
}

}  // namespace
}  // namespace memlayers
