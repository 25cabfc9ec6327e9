// SPDX-License-Identifier: Apache-2.0
// Every call that changes the disk fails once in every way, or is the last before the machine stops
// and loses what was not synced: what is there afterwards is whole, old or new.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/folder.h"
#include "io/safetensors.h"
#include "memlayers/error.h"
#include "support/failing_file_system.h"
#include "support/temp_dir.h"

namespace memlayers::io {
namespace {

using memlayers::testing::FailingFileSystem;
using memlayers::testing::Failure;
using memlayers::testing::kFailures;
using memlayers::testing::TempDir;
using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

bool goes_on(Failure failure) {  // the process lives and can clean up
  return failure == Failure::kIoError || failure == Failure::kDiskFull;
}

// Whether act threw.
template <class Act>
bool fails(const Act& act) {
  try {
    act();
  } catch (const Error&) {
    return true;
  }
  return false;
}

void write_tensors(FileSystem& fs, const std::string& path) {
  const std::string rows = "0123456789abcdef";
  write_safetensors(fs, path, {{"rows", ElementType::kU8, {4, 4}, std::as_bytes(std::span(rows))}});
}

void write_folder(FileSystem& fs, const std::string& path) {
  FolderWriter folder(fs, path);
  folder.write_text("config.json", "{\"a\": 1}");
  write_tensors(fs, folder.file("pool/rows.safetensors"));
  folder.commit();
}

class Crash : public ::testing::TestWithParam<Failure> {};

TEST_P(Crash, InWriteAtomicLeavesTheOldTextOrTheNew) {
  std::int64_t call = 1;
  for (bool has_failed = true; has_failed; ++call) {
    const TempDir dir;
    write_atomic(posix(), dir / "a", "the old text");
    FailingFileSystem fs(call, GetParam());
    has_failed = fails([&] { write_atomic(fs, dir / "a", "a new text"); });
    EXPECT_EQ(fs.open_files(), 0);
    const std::string text = read_text(posix(), dir / "a");
    EXPECT_THAT(text, AnyOf("the old text", "a new text")) << "call " << call;
    if (!has_failed) {
      EXPECT_EQ(text, "a new text");
    }
    if (goes_on(GetParam())) {
      EXPECT_THAT(posix().list(dir.path()), ElementsAre("a")) << "call " << call;
    }
    write_atomic(posix(), dir / "a", "a third text");  // what a crash left is no hindrance
    EXPECT_EQ(read_text(posix(), dir / "a"), "a third text");
    EXPECT_THAT(posix().list(dir.path()), ElementsAre("a"));
  }
  EXPECT_EQ(call - 2, 5);  // that failed: create, write, sync, rename, sync of the folder
}

TEST_P(Crash, InWriteSafetensorsLeavesTheWholeFileOrNoneThatOpens) {
  std::int64_t call = 1;
  for (bool has_failed = true; has_failed; ++call) {
    const TempDir dir;
    FailingFileSystem fs(call, GetParam());
    has_failed = fails([&] { write_tensors(fs, dir / "a"); });
    EXPECT_EQ(fs.open_files(), 0);
    EXPECT_NE(has_failed, !fails([&] { SafetensorsFile::open(posix(), dir / "a"); }));
    if (has_failed && goes_on(GetParam())) {
      EXPECT_THAT(posix().list(dir.path()), IsEmpty()) << "call " << call;
    }
  }
  EXPECT_EQ(call - 2, 5);  // that failed: create, three writes, sync
}

TEST_P(Crash, InAFolderWriterLeavesACompleteFolderOrNone) {
  std::int64_t call = 1, complete = 0;
  for (bool has_failed = true; has_failed; ++call) {
    const TempDir dir;
    FailingFileSystem fs(call, GetParam());
    has_failed = fails([&] { write_folder(fs, dir / "model"); });
    EXPECT_EQ(fs.open_files(), 0);
    const bool is_there = posix().exists(dir / "model");
    if (is_there) {
      ++complete;
      EXPECT_TRUE(is_complete(posix(), dir / "model")) << "call " << call;
      EXPECT_FALSE(fails([&] { verify_folder(posix(), dir / "model"); })) << "call " << call;
    }
    EXPECT_TRUE(is_there || has_failed);
    if (goes_on(GetParam())) {
      EXPECT_EQ(posix().list(dir.path()).size(), is_there ? 1U : 0U) << "call " << call;
    }
    if (!is_there) {  // the next writer clears away what is left
      write_folder(posix(), dir / "model");
    }
    EXPECT_THAT(posix().list(dir.path()), ElementsAre("model")) << "call " << call;
  }
  // That failed: temporary folder; text: create, write, sync; pool/; tensors: create, three writes,
  // sync; pool/ synced; manifest: create, write, sync; folder synced; rename; parent synced.
  EXPECT_EQ(call - 2, 17);
  // The rename is done where only the sync after it fails or nothing does.
  EXPECT_EQ(complete, 2);
}

INSTANTIATE_TEST_SUITE_P(Failures, Crash, ::testing::ValuesIn(kFailures));

}  // namespace
}  // namespace memlayers::io
