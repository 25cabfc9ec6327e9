// SPDX-License-Identifier: Apache-2.0
// The command is killed by strace as it enters a system call that changes the disk; between two of
// those nothing changes what is left. The model that is there then is exactly the one before growth
// or the one after it, and grows on.
#include <cstdlib>
#include <vector>

#include "cli/command_testing.h"
#include "io/folder.h"
#include "memlayers/grow.h"
#include "memlayers/store.h"
#include "nn/model_folder.h"
#include "support/store_testing.h"
#include "train/row_state_files.h"

namespace memlayers {
namespace {

using testing::read_file;
using testing::TempDir;

struct Kill {
  std::string call;
  int first, last;  // which calls of that name
};

// What growth changes of a model.
std::string content(const std::string& model) {
  const Snapshot pool = open_model(model)->pool()->snapshot().value();
  return read_file(model + "/config.json") + read_file(model + "/model.safetensors") +
         read_file(model + "/usage.safetensors") + pool.digest() + pool.patches().at(0).id;
}

// Whether the command came to its end, unkilled.
bool grow_killed(const std::string& model, const std::string& call, int when) {
  const auto command = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "memlayers";
  const std::string line =
      // A sanitizer's search for leaks cannot run under strace.
      "ASAN_OPTIONS=detect_leaks=0 strace -o /dev/null -e trace=" + call + " -e inject=" + call +
      ":signal=KILL:when=" + std::to_string(when) + " '" + command.string() + "' grow '" + model +
      "' --n-keys 9 --seed 1 --threads 1 > /dev/null 2>&1";
  const int status = std::system(line.c_str());
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST(GrowKill, AtAnySystemCallLeavesTheModelBeforeOrAfterAndItGrowsOn) {
  if (std::system("strace -o /dev/null true 2> /dev/null") != 0) GTEST_SKIP() << "no strace here";
  const TempDir dir;
  const std::string start = dir / "start", model = dir / "model";
  testing::write_model(start);
  train::write_usage(io::posix(), start, torch::ones({36}, at::kLong), 3);
  const std::vector<float> row(32, 1);
  Store::open(start + "/pool").update(7, std::as_bytes(std::span(row)));
  const auto begin = [&] {
    std::filesystem::remove_all(model);
    for (const std::string& name : io::posix().list(dir.path())) {
      if (name.starts_with("model.")) std::filesystem::remove_all(dir / name);
    }
    std::filesystem::copy(start, model, std::filesystem::copy_options::recursive);
  };
  const std::string before = content(start);
  begin();
  grow_folder(model, 9, 1);
  const std::string after = content(model);
  ASSERT_NE(before, after);

  constexpr int kAll = 1000;
  std::vector<Kill> kills{{"link", 2, 2},    {"pwrite64", 3, 3},  {"fdatasync", 5, 5},
                          {"fsync", 4, 4},   {"renameat2", 2, 3}, {"unlinkat", 2, 2},
                          {"unlinkat", 5, 5}};
  if (testing::soaked(0, 1) == 1) {
    kills.clear();
    for (const char* call : {"mkdir", "pwrite64", "fdatasync", "fsync", "rename", "link",
                             "renameat2", "unlinkat", "rmdir"}) {
      kills.push_back({call, 1, kAll});
    }
  }
  std::int64_t was_before = 0, was_after = 0;
  for (const Kill& kill : kills) {
    for (int when = kill.first; when <= kill.last; ++when) {
      ASSERT_LT(when, kAll) << kill.call << ": expected the command to come to its end";
      const std::string where = kill.call + " " + std::to_string(when);
      begin();
      const bool is_over = grow_killed(model, kill.call, when);
      const std::string found = content(model);
      EXPECT_TRUE(found == after || (!is_over && found == before)) << where;
      if (is_over) break;
      (found == after ? was_after : was_before) += 1;
      grow_folder(model, 10, 1);
      EXPECT_EQ(open_model(model)->config().memory->n_keys, 10) << where;
      EXPECT_EQ(io::posix().list(dir.path()), (std::vector<std::string>{"model", "start"}))
          << where << ": something is left over";
      if (HasFailure()) return;
    }
  }
  EXPECT_GE(was_before, 3);
  EXPECT_GE(was_after, 2);
}

}  // namespace
}  // namespace memlayers
