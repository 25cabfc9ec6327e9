// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <thread>

#include "io/file_system.h"
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

constexpr std::uint64_t kMegabyte = 1'000'000;

// A disk of one megabyte, where the system lets us make one.
class TinyDisk {
 public:
  TinyDisk() : is_there_(::mount("none", dir_.path().c_str(), "tmpfs", 0, "size=1m") == 0) {}
  ~TinyDisk() {
    if (is_there_) ::umount(dir_.path().c_str());
  }
  TinyDisk(const TinyDisk&) = delete;
  TinyDisk& operator=(const TinyDisk&) = delete;
  bool is_there() const { return is_there_; }
  std::string path() const { return dir_.path(); }
  std::uint64_t free() const {
    struct statvfs disk{};
    ::statvfs(dir_.path().c_str(), &disk);
    return std::uint64_t{disk.f_bavail} * disk.f_frsize;
  }

 private:
  TempDir dir_;
  bool is_there_;
};

TEST(Scratch, IsZeroFilledWritableByThreadsAndHasNoName) {
  const TempDir dir;
  const auto scratch = posix().make_scratch(dir.path(), 3 * kMegabyte + 1);
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
  ASSERT_EQ(scratch->bytes().size(), 3 * kMegabyte + 1);
  EXPECT_TRUE(std::ranges::all_of(scratch->bytes(), [](std::byte b) { return b == std::byte{0}; }));
  {
    const std::jthread first(
        [&] { std::ranges::fill(scratch->bytes().first(kMegabyte), std::byte{1}); });
    const std::jthread rest(
        [&] { std::ranges::fill(scratch->bytes().subspan(kMegabyte), std::byte{2}); });
  }
  scratch->write_back();
  EXPECT_EQ(std::ranges::count(scratch->bytes(), std::byte{1}), kMegabyte);
  EXPECT_EQ(std::ranges::count(scratch->bytes(), std::byte{2}), 2 * kMegabyte + 1);
}

TEST(Scratch, OfNoBytesIsEmpty) {
  const TempDir dir;
  EXPECT_TRUE(posix().make_scratch(dir.path(), 0)->bytes().empty());
}

TEST(Scratch, NeedsAFolderThatIsThere) {
  const TempDir dir;
  write_file(dir / "file", "");
  for (const char* name : {"nowhere", "file"}) {
    EXPECT_TRUE(says(error_of([&] { posix().make_scratch(dir / name, 10); }),
                     {dir / name, "expected a folder", "found none"}));
  }
}

TEST(Scratch, NeedsAFolderThatMayBeWritten) {
  EXPECT_TRUE(says(error_of([] { posix().make_scratch("/proc/self", 10); }),
                   {"/proc/self", "cannot make a scratch file"}));
}

TEST(Scratch, OfMoreThanTheDiskHoldsSaysSoBeforeAnythingIsWritten) {
  const TempDir dir;
  const std::uint64_t petabyte = 1'000'000'000'000'000;
  EXPECT_TRUE(says(error_of([&] { posix().make_scratch(dir.path(), petabyte); }),
                   {dir.path(), "expected room", "1000000.0 GB (1000000000000000 bytes)", "got "}));
  EXPECT_TRUE(says(error_of([&] { posix().make_scratch(dir.path(), ~std::uint64_t{0}); }),
                   {dir.path(), "18446744073709551615 bytes"}));
}

TEST(Scratch, TakesItsRoomAtOnceAndGivesItBack) {
  const TinyDisk disk;
  if (!disk.is_there()) GTEST_SKIP() << "no right to mount a small disk";
  const std::uint64_t room = disk.free();
  {
    const auto first = posix().make_scratch(disk.path(), 700'000);
    EXPECT_LE(disk.free(), room - 700'000);
    const std::string message = error_of([&] { posix().make_scratch(disk.path(), 400'000); });
    EXPECT_TRUE(
        says(message, {disk.path(), "400000 bytes", std::to_string(disk.free()) + " bytes"}));
    std::ranges::fill(first->bytes(), std::byte{1});  // no SIGBUS: the room is its own
  }
  EXPECT_EQ(disk.free(), room);
}

TEST(Scratch, OfAFileSystemThatHasNoneIsAnError) {
  FailingFiles files(100);
  EXPECT_TRUE(says(error_of([&] { files.make_scratch("/somewhere", 1); }),
                   {"/somewhere", "expected a file system that can map a scratch file"}));
}

}  // namespace
}  // namespace memlayers::io
