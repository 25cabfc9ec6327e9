// SPDX-License-Identifier: Apache-2.0
// A pool in a file that is larger than the memory this process may use: a child in a control group
// with a limit trains it, and must come to the bits of one that is in RAM.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <torch/types.h>
#include <torch/utils.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

#include "memlayers/memory_layer.h"
#include "memlayers/optimizer.h"
#include "nn/table.h"
#include "pool/chunks.h"
#include "support/temp_dir.h"
#include "support/testing.h"

namespace memlayers {
namespace {

namespace fs = std::filesystem;
using memlayers::testing::read_file;
using memlayers::testing::TempDir;

constexpr std::int64_t kKeys = 512, kDim = 256;
constexpr std::int64_t kPoolBytes = kKeys * kKeys * kDim * 4;  // and AdamW has twice that
constexpr std::int64_t kLimit = 128 << 20;  // of which this program takes 60 MB by itself
constexpr const char* kFolderVariable = "MEMLAYERS_TEST_FOLDER";

bool write_to(const fs::path& path, const std::string& text) {
  std::ofstream file(path);
  file << text << std::flush;
  return file.good();
}

// A control group of our own, of version 1 or 2, whose processes may use `bytes` of memory, page
// cache included. is_there() is false where the system lets us make none.
class MemoryGroup {
 public:
  explicit MemoryGroup(std::int64_t bytes) {
    const std::string name = "memlayers-test-" + std::to_string(::getpid());
    const fs::path root = "/sys/fs/cgroup";
    const bool is_first = fs::exists(root / "memory/memory.limit_in_bytes");
    const std::string limit = is_first ? "memory.limit_in_bytes" : "memory.max";
    const fs::path parent = is_first ? root / "memory" : root;
    std::error_code error;
    if (!is_first) write_to(parent / "cgroup.subtree_control", "+memory");
    if (!fs::create_directory(parent / name, error)) return;
    path_ = parent / name;
    if (!is_first) write_to(path_ / "memory.swap.max", "0");
    is_there_ = write_to(path_ / limit, std::to_string(bytes)) &&
                std::stoll(read_file((path_ / limit).string())) == bytes;
  }
  ~MemoryGroup() {
    if (!path_.empty()) ::rmdir(path_.c_str());  // of its files it rids itself
  }
  MemoryGroup(const MemoryGroup&) = delete;
  MemoryGroup& operator=(const MemoryGroup&) = delete;
  bool is_there() const { return is_there_; }

  // Runs one test of this program in the group, disabled or not; returns what waitpid() says.
  int run(const std::string& test) const {
    const std::string processes = (path_ / "cgroup.procs").string();
    const std::string filter = "--gtest_filter=" + test;
    const char* arguments[] = {"limited_memory_test", filter.c_str(),
                               "--gtest_also_run_disabled_tests", nullptr};
    const pid_t child = ::fork();
    if (child == 0) {
      const int file = ::open(processes.c_str(), O_WRONLY | O_CLOEXEC);
      if (file >= 0 && ::write(file, "0", 1) == 1) {  // this process
        ::execv("/proc/self/exe", const_cast<char* const*>(arguments));
      }
      ::_exit(126);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return status;
  }

 private:
  fs::path path_;
  bool is_there_ = false;
};

// A digest of rows and optimizer state after some steps, and of all outputs on the way.
std::string train(const std::optional<std::string>& folder) {
  torch::manual_seed(4);
  MemoryPool pool(PoolOptions{.n_keys = kKeys, .width = kDim, .seed = 9, .folder = folder});
  MemoryLayer layer(kDim, MemoryConfig{.n_keys = kKeys, .heads = 2, .knn = 16, .k_dim = 32}, pool);
  RowOptimizer optimizer(pool, {});
  std::ostringstream text;
  for (int step = 0; step < 2; ++step) {
    const at::Tensor y = layer->forward(torch::randn({512, kDim}));
    (y * y).mean().backward();
    text << std::hexfloat << y.sum().item<float>() << ' ' << optimizer.step(1e-3).gradient_norm
         << ' ';
  }
  for (const at::Tensor& table :
       {pool->values, optimizer.state().exp_avg, optimizer.state().exp_avg_sq}) {
    text << pool::digest(
                {nn::bytes_of(table).data(), table.size(0), table.size(1), RowType::kFloat32})
         << ' ';
  }
  return text.str();
}

// Not a test by itself: what the child does.
TEST(LimitedMemory, DISABLED_TrainsAPoolInAFile) {
  const char* folder = std::getenv(kFolderVariable);
  ASSERT_NE(folder, nullptr);
  const std::string digest = train(folder);
  std::ofstream(std::string(folder) + "/digest") << digest;
}

TEST(LimitedMemory, APoolLargerThanItTrainsToTheBitsOfOneInRam) {
  static_assert(kPoolBytes > kLimit * 3 / 2);
  const MemoryGroup group(kLimit);
  if (!group.is_there()) GTEST_SKIP() << "no right to make a control group with a memory limit";
  const TempDir dir;
  ::setenv(kFolderVariable, dir.path().c_str(), 1);
  const int status = group.run("LimitedMemory.DISABLED_TrainsAPoolInAFile");
  ::unsetenv(kFolderVariable);
  ASSERT_TRUE(WIFEXITED(status)) << "killed by signal " << WTERMSIG(status);
  ASSERT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(read_file(dir / "digest"), train({}));
}

}  // namespace
}  // namespace memlayers
