// SPDX-License-Identifier: Apache-2.0
#include "io/file_system.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <functional>
#include <thread>

#include "io/posix_file.h"
#include "support/failing_file_system.h"
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
  PosixFile file("/dev/full", Descriptor(::open("/dev/full", O_RDWR)));
  EXPECT_TRUE(says(error_of([&] { file.pwrite(bytes("x"), 0); }), {"/dev/full", "disk full"}));
}

TEST(PosixFiles, WhatIsNoRegularFileIsRefusedAtOnceAndNamed) {
  const TempDir dir;
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0600), 0);
  ASSERT_EQ(::symlink((dir / "fifo").c_str(), (dir / "link").c_str()), 0);
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  const std::string socket_path = dir / "socket";
  ASSERT_LT(socket_path.size(), sizeof(address.sun_path));
  std::ranges::copy(socket_path, address.sun_path);
  const Descriptor socket(::socket(AF_UNIX, SOCK_STREAM, 0));
  ASSERT_EQ(::bind(socket.number(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  const auto expect = [](const std::string& path, const std::string& kind) {
    for (const OpenMode mode : {OpenMode::kRead, OpenMode::kReadWrite}) {
      EXPECT_TRUE(says(error_of([&] { posix().open(path, mode); }),
                       {path + ": expected a regular file, got " + kind}));
    }
    EXPECT_TRUE(says(error_of([&] { posix().map(path); }), {path, "got " + kind}));
    EXPECT_TRUE(says(error_of([&] { posix().lock(path); }), {path, "got " + kind}));
    EXPECT_TRUE(says(error_of([&] { read_text(posix(), path); }), {path, "got " + kind}));
  };
  expect(dir / "fifo", "a FIFO");
  expect(dir / "link", "a FIFO");
  expect(dir / "socket", "a socket");
  expect("/dev/zero", "a device");
  expect(dir.path(), "a folder");
}

TEST(PosixFiles, ADeviceOrFifoKeepsItsName) {
  const TempDir dir;
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0600), 0);
  ASSERT_EQ(::symlink("/dev/null", (dir / "null").c_str()), 0);
  for (const char* name : {"fifo", "null"}) {
    EXPECT_TRUE(says(error_of([&] { write_atomic(posix(), dir / name, "x"); }),
                     {dir / name, "regular file"}));
  }
  EXPECT_EQ(posix().list(dir.path()), (std::vector<std::string>{"fifo", "null"}));
}

TEST(PosixFiles, ANewNameReplacesNothing) {
  const auto by_system = [](const std::string& from, const std::string& to) {
    posix().rename_new(from, to);
  };
  for (const auto& rename_new :
       {std::function<void(const std::string&, const std::string&)>(by_system),
        {rename_new_by_link}}) {
    const TempDir dir;
    write_file(dir / "mine", "mine");
    posix().make_folder(dir / "folder");
    posix().make_folder(dir / "empty");
    write_file(dir / "theirs", "theirs");
    for (const auto& [from, to] : {std::pair("mine", "theirs"),
                                   {"mine", "empty"},
                                   {"folder", "theirs"},
                                   {"folder", "empty"}}) {
      EXPECT_THROW(rename_new(dir / from, dir / to), Exists) << from << " to " << to;
      EXPECT_TRUE(posix().exists(dir / from));
    }
    EXPECT_EQ(read_file(dir / "theirs"), "theirs");
    rename_new(dir / "mine", dir / "other");
    rename_new(dir / "folder", dir / "inner");
    EXPECT_EQ(posix().list(dir.path()),
              (std::vector<std::string>{"empty", "inner", "other", "theirs"}));
    EXPECT_THROW(rename_new(dir / "none", dir / "x"), NotFound);
  }
}

rlimit file_size_limit(rlim_t bytes) { return {bytes, bytes}; }

// In a process of its own, of which the standard streams are closed.
TEST(PosixFiles, NeverLandOnTheStandardStreams) {
  const TempDir dir;
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_EXIT(
      {
        for (const int stream : {0, 1, 2}) ::close(stream);
        const auto file = posix().open(dir / "f", OpenMode::kCreate);
        const auto lock = posix().lock(dir / "lock");
        file->pwrite(bytes("0123456789"), 0);
        bool is_closed = true;
        for (const int stream : {0, 1, 2}) is_closed &= ::write(stream, "text", 4) < 0;
        std::_Exit(is_closed && read_text(posix(), dir / "f") == "0123456789" ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST(StandardStreams, ThatAreClosedBecomeNull) {
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_EXIT(
      {
        ::close(0);
        ::close(2);
        open_standard_streams();
        const int next = ::open("/dev/zero", O_RDONLY);
        char byte = 0;
        std::_Exit(::read(0, &byte, 1) == 0 && ::write(2, "x", 1) == 1 && next > 2 ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST(PosixFiles, BeyondTheLimitOfAFilesSizeIsAnError) {
  const TempDir dir;
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_EXIT(
      {
        const rlimit limit = file_size_limit(1024);
        ::setrlimit(RLIMIT_FSIZE, &limit);
        const std::string error =
            error_of([&] { write_atomic(posix(), dir / "f", std::string(2000, 'x')); });
        std::_Exit(says(error, {dir / "f", "larger than"}) && posix().list(dir.path()).empty() ? 0
                                                                                               : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

// What another process does while a folder is removed: a folder in it becomes a link to elsewhere.
TEST(PosixFiles, RemovingFollowsNoLinkThatCameMeanwhile) {
  const TempDir dir, elsewhere;
  write_file(elsewhere / "precious", "x");
  for (int i = 0; i < 200; ++i) {
    const std::string top = dir / ("top-" + std::to_string(i));
    make_folders(posix(), top + "/a/b");
    std::jthread other([&] {
      std::error_code ignored;
      std::filesystem::rename(top + "/a", top + "/moved", ignored);
      std::filesystem::create_directory_symlink(elsewhere.path(), top + "/a", ignored);
    });
    try {
      remove_all(posix(), top);
    } catch (const Error&) {  // it found the folder filled again
    }
    other.join();
    remove_all(posix(), top);
    ASSERT_TRUE(posix().exists(elsewhere / "precious"));
  }
  EXPECT_TRUE(posix().list(dir.path()).empty());
}

TEST(PosixFiles, RemovingTakesTheFirstBeforeAllElse) {
  const TempDir dir;
  make_folders(posix(), dir / "f/a");
  write_file(dir / "f/a/x", "x");
  write_file(dir / "f/m", "x");
  remove_all(posix(), dir / "f/", "m");
  EXPECT_TRUE(posix().list(dir.path()).empty());
  EXPECT_NO_THROW(remove_all(posix(), dir / "f", "m"));
  for (const char* wrong : {"/", ".", "..", "a/.."}) {
    EXPECT_THROW(remove_all(posix(), wrong), Error) << wrong;
  }
}

TEST(FileHelpers, RoomIsAskedForBeforeItIsTaken) {
  class Small : public memlayers::testing::FailingFileSystem {
   public:
    std::optional<std::uint64_t> free_bytes(const std::string&) override { return 1'500'000'000; }
  } small;
  const TempDir dir;
  EXPECT_NO_THROW(ask_for_room(small, dir.path(), 1'500'000'000));
  EXPECT_TRUE(says(error_of([&] { ask_for_room(small, dir / "new/er", 1'500'000'001); }),
                   {dir / "new/er", "expected room for 1.5 GB (1500000001 bytes)",
                    "got 1.5 GB (1500000000 bytes)"}));
  EXPECT_GT(posix().free_bytes(dir.path()), 0U);
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
