// SPDX-License-Identifier: Apache-2.0
// One run over two "hosts" that only a network joins (scripts/mpirun_two_hosts.sh).
#include "cli/parallel_testing.h"
#include "io/folder.h"
#include "io/run_folder.h"
#include "support/source_folder.h"

namespace memlayers {
namespace {

using testing::Finished;
using testing::read_file;
using testing::says;

constexpr int kCannot = 77;

class ParallelHosts : public testing::ParallelRun {
 protected:
  // Two processes on each of two hosts.
  pid_t start_on_two(const std::string& config) {
    const std::string script = testing::in_repository("scripts/mpirun_two_hosts.sh");
    return start_command({script, "2", program(), "train", config});
  }
};

TEST_F(ParallelHosts, TrainOneModelAndAnyHostAloneGoesOn) {
  ASSERT_EQ(testing::run_command({"train", configure("whole", 12, small_rates)}).code, 0);
  const std::string config = configure("run", 6, small_rates);
  const Finished done = finish(start_on_two(config));
  if (done.code == kCannot) GTEST_SKIP() << done.err;
  ASSERT_EQ(done.code, 0) << done.err;
  EXPECT_TRUE(says(done.err, {"4 processes of 1 thread"}));
  EXPECT_NO_THROW(io::verify_folder(io::posix(), dir_ / "run/step-6"));
  const Finished rest = run(2, {config, "--set", "train.steps=12"});
  ASSERT_EQ(rest.code, 0) << rest.err;
  const auto a = metrics("whole"), b = metrics("run");
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_NEAR(a[i].loss, b[i].loss, 1e-5) << i;
    EXPECT_EQ(a[i].tokens, b[i].tokens);
  }
}

// Of a process that dies on the other host, its neighbour there tells.
TEST_F(ParallelHosts, AProcessThatDiesIsNamedWithItsHost) {
  const std::string config = configure("run", 1000000, [](TrainConfig& c) {
    small_rates(c);
    c.data.valid = {};
    c.parallel.timeout_s = 5;
  });
  const pid_t script = start_on_two(config);
  std::vector<pid_t> found;  // trainers, in any order
  for (int i = 0; i < 2000; ++i) {
    if (waitpid(script, nullptr, WNOHANG) != 0) GTEST_SKIP() << read_file(dir_ / "err");
    if (read_file(dir_ / "run/metrics.jsonl").find("{\"step\":5,") != std::string::npos) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string line = read_file(entry.path() / "cmdline");
    if (line.find(program()) != 0 || line.find(config) == std::string::npos) continue;
    const std::string environment = read_file(entry.path() / "environ");
    if (environment.find("OMPI_COMM_WORLD_RANK=3") == std::string::npos) continue;
    found.push_back(std::stoi(entry.path().filename()));
  }
  ASSERT_EQ(found.size(), 1U);
  kill(found[0], SIGKILL);
  const Finished done = finish(script);
  expect_one_error(done);
  EXPECT_TRUE(says(done.err, {"memlayers: error: rank 3 on host-b: died in step "}));
}

}  // namespace
}  // namespace memlayers
