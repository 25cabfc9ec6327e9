// SPDX-License-Identifier: Apache-2.0
#include "io/file_system.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <thread>

#include "support/temp_dir.h"
#include "support/testing.h"

namespace memlayers::io {
namespace {

using memlayers::testing::error_of;
using memlayers::testing::read_file;
using memlayers::testing::says;
using memlayers::testing::TempDir;
using memlayers::testing::write_file;

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

TEST(PosixFiles, WhatIsWrittenIsReadBackAtAnyOffset) {
  const TempDir dir;
  const auto file = posix().open(dir / "f", OpenMode::kCreate);
  file->pwrite(bytes("world"), 6);
  file->pwrite(bytes("hello "), 0);
  file->sync();
  EXPECT_EQ(file->size(), 11U);
  EXPECT_EQ(read_text(posix(), dir / "f"), "hello world");
  std::array<char, 5> out{};
  file->pread(std::as_writable_bytes(std::span(out)), 6);
  EXPECT_EQ(std::string(out.data(), 5), "world");
  const auto mapping = posix().map(dir / "f");
  EXPECT_EQ(mapping->bytes().size(), 11U);
  EXPECT_EQ(static_cast<char>(mapping->bytes()[4]), 'o');
}

TEST(PosixFiles, PreadWorksFromSeveralThreads) {
  const TempDir dir;
  std::string text(100'000, '\0');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i % 251);
  write_file(dir / "f", text);
  const auto file = posix().open(dir / "f", OpenMode::kRead);
  std::array<int, 4> wrong{};
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      std::array<char, 997> out{};
      for (std::size_t at = 0; at + out.size() < text.size(); at += 97) {
        file->pread(std::as_writable_bytes(std::span(out)), at);
        if (text.compare(at, out.size(), out.data(), out.size()) != 0) ++wrong[t];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, (std::array<int, 4>{}));
}

TEST(PosixFiles, ReadingPastTheEndSaysWhere) {
  const TempDir dir;
  write_file(dir / "f", "abc");
  const auto file = posix().open(dir / "f", OpenMode::kRead);
  std::array<std::byte, 3> out{};
  EXPECT_TRUE(says(error_of([&] { file->pread(out, 1); }), {dir / "f", "1 bytes", "offset 3"}));
  EXPECT_THROW(file->pread(out, std::uint64_t{1} << 63), Error);
  EXPECT_NO_THROW(file->pread(std::span(out).first(0), 3));
}

TEST(PosixFiles, AnEmptyFileMapsToNothing) {
  const TempDir dir;
  write_file(dir / "f", "");
  EXPECT_TRUE(posix().map(dir / "f")->bytes().empty());
  EXPECT_EQ(read_text(posix(), dir / "f"), "");
}

TEST(PosixFiles, EveryFailureNamesThePath) {
  const TempDir dir;
  FileSystem& fs = posix();
  const std::string none = dir / "none";
  write_file(dir / "f", "abc");
  for (const OpenMode mode : {OpenMode::kRead, OpenMode::kReadWrite}) {
    EXPECT_TRUE(says(error_of([&] { fs.open(none, mode); }), {none, "No such file"}));
  }
  EXPECT_TRUE(
      says(error_of([&] { fs.open(dir / "f", OpenMode::kCreate); }), {dir / "f", "exists"}));
  EXPECT_TRUE(says(error_of([&] { fs.map(none); }), {none, "No such file"}));
  EXPECT_TRUE(says(error_of([&] { fs.rename(none, dir / "to"); }), {dir / "to", "No such file"}));
  EXPECT_TRUE(says(error_of([&] { fs.unlink(none); }), {none, "No such file"}));
  EXPECT_TRUE(says(error_of([&] { fs.remove_folder(none); }), {none, "No such file"}));
  EXPECT_TRUE(says(error_of([&] { fs.list(none); }), {none, "No such file"}));
  EXPECT_TRUE(says(error_of([&] { fs.list(dir / "f"); }), {dir / "f", "Not a directory"}));
  EXPECT_TRUE(says(error_of([&] { fs.sync_folder(none); }), {none, "No such file"}));
  EXPECT_TRUE(says(error_of([&] { fs.make_folder(dir / "f"); }), {dir / "f", "exists"}));
  EXPECT_TRUE(says(error_of([&] { fs.make_folder(dir / "a/b"); }), {dir / "a/b", "No such file"}));
}

TEST(PosixFiles, FoldersAreExchangedAndFilesLinked) {
  const TempDir dir;
  for (const char* name : {"one", "other"}) {
    posix().make_folder(dir / name);
    write_file((dir / name) + "/f", name);
  }
  posix().exchange(dir / "one", dir / "other");
  EXPECT_EQ(read_file(dir / "one/f"), "other");
  EXPECT_EQ(read_file(dir / "other/f"), "one");
  posix().link(dir / "one/f", dir / "linked");
  posix().open(dir / "one/f", OpenMode::kReadWrite)->pwrite(bytes("O"), 0);
  EXPECT_EQ(read_file(dir / "linked"), "Other");
  EXPECT_TRUE(says(error_of([&] { posix().exchange(dir / "one", dir / "none"); }),
                   {dir / "none", "No such file"}));
  EXPECT_TRUE(says(error_of([&] { posix().link(dir / "one/f", dir / "linked"); }),
                   {dir / "linked", "exists"}));
}

TEST(PosixFiles, AFolderInsteadOfAFileIsAnError) {
  const TempDir dir;
  EXPECT_TRUE(says(error_of([&] { read_text(posix(), dir.path()); }), {dir.path(), "folder"}));
  EXPECT_TRUE(says(error_of([&] { posix().map(dir.path()); }), {dir.path(), "regular file"}));
  EXPECT_THROW(posix().open(dir.path(), OpenMode::kReadWrite), Error);
}

TEST(PosixFiles, NoPermissionIsAnError) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read all";
  const TempDir dir;
  write_file(dir / "f", "abc");
  ASSERT_EQ(::chmod((dir / "f").c_str(), 0), 0);
  EXPECT_TRUE(says(error_of([&] { posix().map(dir / "f"); }), {dir / "f", "Permission denied"}));
}

TEST(PosixFiles, AFullDiskIsNamedAsThat) {
  // A device that is always full; there is one on every Linux.
  if (!posix().exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  const auto file = posix().open("/dev/full", OpenMode::kReadWrite);
  EXPECT_TRUE(says(error_of([&] { file->pwrite(bytes("x"), 0); }), {"/dev/full", "disk full"}));
}

TEST(FileHelpers, FoldersAreMadeWithParentsAndRemovedWhole) {
  const TempDir dir;
  make_folders(posix(), dir / "a/b/c");
  make_folders(posix(), dir / "a/b/c");
  EXPECT_TRUE(posix().is_folder(dir / "a/b/c"));
  write_file(dir / "a/b/f", "x");
  ASSERT_EQ(::symlink(dir.path().c_str(), (dir / "a/b/c/up").c_str()), 0);
  write_file(dir / "kept", "x");
  remove_all(posix(), dir / "a");
  EXPECT_EQ(posix().list(dir.path()), std::vector<std::string>{"kept"}) << "a link is not followed";
  EXPECT_NO_THROW(remove_all(posix(), dir / "a"));
}

TEST(FileHelpers, ACopyHasTheBytesAndIsAnotherFile) {
  const TempDir dir;
  for (const std::size_t size : {0U, 3U, (4U << 20) + 7U}) {
    std::string text(size, 'x');
    if (size > 0) text.back() = 'y';
    write_file(dir / "from", text);
    std::filesystem::remove(dir / "to");
    copy_file(posix(), dir / "from", dir / "to");
    write_file(dir / "from", "changed");
    EXPECT_TRUE(read_file(dir / "to") == text) << size;
  }
  EXPECT_TRUE(says(error_of([&] { copy_file(posix(), dir / "from", dir / "to"); }),
                   {dir / "to", "exists"}));
}

TEST(FileHelpers, PathsAreJoinedWithOneSlash) {
  EXPECT_EQ(join("a", "b"), "a/b");
  EXPECT_EQ(join("a/", "b"), "a/b");
  EXPECT_EQ(join("", "b"), "b");
  EXPECT_EQ(join("/", "b"), "/b");
}

}  // namespace
}  // namespace memlayers::io
