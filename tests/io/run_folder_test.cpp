// SPDX-License-Identifier: Apache-2.0
#include "io/run_folder.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "io/folder.h"
#include "support/failing_files.h"
#include "support/temp_dir.h"
#include "support/testing.h"

namespace memlayers::io {
namespace {

using memlayers::testing::error_of;
using memlayers::testing::FailingFiles;
using memlayers::testing::says;
using memlayers::testing::TempDir;
using memlayers::testing::write_file;

void write_checkpoint(const std::string& path) {
  FolderWriter folder(posix(), path);
  folder.write_text("config.json", "{}");
  folder.commit();
}

TEST(RunFolder, IsOfOneTrainingAtATimeWhichTheOtherNames) {
  const TempDir dir;
  auto lock = lock_run(posix(), dir / "runs/a");
  EXPECT_TRUE(says(error_of([&] { lock_run(posix(), dir / "runs/a"); }),
                   {dir / "runs/a", "no other training", "process " + std::to_string(::getpid())}));
  EXPECT_NO_THROW(lock_run(posix(), dir / "runs/b"));
  lock.reset();
  write_file(dir / "runs/a/LOCK", "process 1 on a host with a long name, gone for long\n");
  lock = lock_run(posix(), dir / "runs/a");
  const std::string error = error_of([&] { lock_run(posix(), dir / "runs/a"); });
  EXPECT_TRUE(says(error, {"process " + std::to_string(::getpid())}));
  EXPECT_EQ(error.find("gone for long"), std::string::npos);
}

TEST(RunFolder, OfAFileSystemWithoutLocksIsToldApart) {
  const TempDir dir;
  FailingFiles files(1 << 20);
  EXPECT_THROW(lock_run(files, dir / "run"), NoLocks);
}

// A checkpoint that was moved to another disk, and a link left in its place.
TEST(RunFolder, CleaningLeavesWhatLinksPointTo) {
  const TempDir dir, disk;
  for (const int step : {2, 4, 6, 8}) {
    write_checkpoint(dir / ("step-" + std::to_string(step)));
  }
  std::filesystem::rename(dir / "step-2", disk / "step-2");
  std::filesystem::create_directory_symlink(disk / "step-2", dir / "step-2");
  EXPECT_EQ(find_checkpoints(posix(), dir.path()).size(), 4U);
  EXPECT_EQ(find_own_checkpoints(posix(), dir.path()).size(), 3U);
  remove_old_checkpoints(posix(), dir.path(), 2);
  EXPECT_EQ(posix().list(dir.path()), (std::vector<std::string>{"step-2", "step-6", "step-8"}));
  EXPECT_NO_THROW(verify_folder(posix(), disk / "step-2"));
}

TEST(RunFolder, WhatKilledRunsLeftIsRemovedAndNothingElse) {
  const TempDir dir;
  for (const char* name : {"step-2.tmp-71", "step-4.tmp-71-0123abcd", "step-x.tmp-71-0123abcd",
                           "step-6.tmp-mine", "mine.tmp-71-0123abcd"}) {
    make_folders(posix(), dir / name);
  }
  write_file(dir / "report.html.tmp-71-0123abcd", "half");
  write_file(dir / "report.html.tmp", "mine");
  remove_unfinished_checkpoints(posix(), dir.path());
  EXPECT_EQ(posix().list(dir.path()),
            (std::vector<std::string>{"mine.tmp-71-0123abcd", "report.html.tmp", "step-6.tmp-mine",
                                      "step-x.tmp-71-0123abcd"}));
}

}  // namespace
}  // namespace memlayers::io
