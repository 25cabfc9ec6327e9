// SPDX-License-Identifier: Apache-2.0
// A process is killed by strace as it enters a system call of an edit or of opening: the pool that
// is opened then is exactly the one before the edit or the one after it.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "memlayers/store.h"
#include "support/store_testing.h"
#include "support/temp_dir.h"

namespace memlayers {
namespace {

using memlayers::testing::Bytes;
using memlayers::testing::content;
using memlayers::testing::small_options;
using memlayers::testing::SmallPool;
using memlayers::testing::soaked;
using memlayers::testing::Step;
using memlayers::testing::TempDir;

constexpr const char* kFolder = "MEMLAYERS_KILL_FOLDER";
constexpr const char* kStep = "MEMLAYERS_KILL_STEP";

TEST(StoreKill, Child) {
  const char* folder = std::getenv(kFolder);
  const char* step = std::getenv(kStep);
  if (folder == nullptr || step == nullptr) GTEST_SKIP() << "it is what the other test kills";
  Store store = Store::open(folder, small_options());
  every_kind_of_edit(SmallPool())[static_cast<std::size_t>(std::atoi(step))].act(store);
}

// Whether the child came to its end, unkilled.
bool run_child(const std::string& folder, std::size_t step, const std::string& call, int when) {
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  std::string command = kFolder;
  command += "='" + folder + "' " + kStep + "=" + std::to_string(step);
  command += " ASAN_OPTIONS=detect_leaks=0";  // whose search cannot run under strace
  command += " strace -f -o /dev/null -e trace=" + call + " -e inject=" + call +
             ":signal=KILL:when=" + std::to_string(when);
  command += " '" + self + "' --gtest_filter=StoreKill.Child > /dev/null 2>&1";
  const int status = std::system(command.c_str());
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST(StoreKill, AtAnySystemCallLeavesThePoolBeforeAnEditOrAfterIt) {
  if (std::system("strace -o /dev/null true 2> /dev/null") != 0) GTEST_SKIP() << "no strace here";
  const SmallPool pool;
  const std::vector<Step> steps = every_kind_of_edit(pool);
  const std::vector<Bytes> contents = contents_after(pool, steps);
  const TempDir dir;
  const std::string before = dir / "before", killed = dir / "killed";
  std::filesystem::create_directory(before);
  pool.write(io::posix(), before);
  const bool is_soak = soaked(0, 1) == 1;
  std::vector<std::string> calls{"fdatasync", "pwrite64", "fsync", "rename", "unlink"};
  if (is_soak) {
    for (const char* call : {"openat", "pread64", "mmap", "munmap", "close", "fcntl", "newfstatat",
                             "getdents64", "fadvise64"}) {
      calls.emplace_back(call);
    }
  }
  std::int64_t kills = 0;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    for (const std::string& call : calls) {
      // One that writes a segment, one that writes to the log alone, and those that change the
      // base.
      const std::set<std::string> some{"apply in a segment", "roll back in the middle", "compact",
                                       "grow"};
      if (!is_soak && !some.contains(steps[i].name)) continue;
      for (int when = 1;; ++when) {
        ASSERT_LT(when, 1000) << call << ": expected the child to come to its end";
        std::filesystem::remove_all(killed);
        std::filesystem::copy(before, killed);
        const bool is_over = run_child(killed, i, call, when);
        const std::string where = steps[i].name + ", " + call + " " + std::to_string(when);
        // Opening what is left is killed as well, at the same call.
        if (!is_over) run_child(killed, i, call, when / 2 + 1);
        const Bytes found = content(Store::open(killed, small_options()).snapshot());
        EXPECT_TRUE(found == contents[i + 1] || (!is_over && found == contents[i])) << where;
        if (HasFailure()) return;
        if (is_over) break;
        ++kills;
      }
    }
    Store store = Store::open(before, small_options());
    steps[i].act(store);
  }
  EXPECT_GT(kills, 20);
}

}  // namespace
}  // namespace memlayers
