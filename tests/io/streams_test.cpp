// SPDX-License-Identifier: Apache-2.0
#include "io/streams.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <thread>

#include "io/descriptor.h"
#include "support/temp_dir.h"
#include "support/testing.h"

namespace memlayers::io {
namespace {

using memlayers::testing::error_of;
using memlayers::testing::says;
using memlayers::testing::TempDir;
using memlayers::testing::write_file;

struct Pipe {
  Pipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw Error("pipe");
    out = Descriptor(ends[0]);
    in = Descriptor(ends[1]);
  }
  Descriptor out{-1}, in{-1};
};

TEST(Streams, ThatAShellNamesAreDescriptors) {
  EXPECT_EQ(stream_of("-"), 0);
  EXPECT_EQ(stream_of("/dev/stdin"), 0);
  EXPECT_EQ(stream_of("/dev/fd/63"), 63);
  EXPECT_EQ(stream_of("/proc/self/fd/12"), 12);
  EXPECT_EQ(stream_of("/proc/" + std::to_string(::getpid()) + "/fd/3"), 3);
  for (const char* path : {"", "f", "/dev/fd/", "/dev/fd/x", "/dev/fd/1x", "/dev/fd/-1",
                           "/dev/fd/99999999999", "/dev/fd/1/2", "/dev/null", "/proc/1/fd/0"}) {
    EXPECT_FALSE(stream_of(path)) << path;
  }
}

TEST(Streams, AreReadToTheirEndHoweverTheyCome) {
  Pipe pipe;
  ::fcntl(pipe.out.number(), F_SETFL, O_NONBLOCK);  // as another program may leave it
  std::string wanted;
  std::jthread writer([&, in = std::move(pipe.in)] {
    for (int i = 0; i < 300; ++i) {
      const std::string part(1000, static_cast<char>('a' + i % 26));
      wanted += part;
      ASSERT_EQ(::write(in.number(), part.data(), part.size()), 1000);
    }
  });
  const std::string path = "/dev/fd/" + std::to_string(pipe.out.number());
  const std::string text = read_stream_or_file(posix(), path);
  writer.join();
  EXPECT_EQ(text, wanted);
}

TEST(Streams, ThatGoOnAndOnAreCutByAnError) {
  const Descriptor zero(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
  const std::string path = "/proc/self/fd/" + std::to_string(zero.number());
  EXPECT_TRUE(says(error_of([&] { read_stream_or_file(posix(), path, 100'000); }),
                   {path, "at most 100000 bytes", "got more"}));
}

TEST(Streams, OfARegularFileGoOnWhereItStands) {
  const TempDir dir;
  write_file(dir / "f", "one two");
  const Descriptor file(::open((dir / "f").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(::lseek(file.number(), 4, SEEK_SET), 4);
  EXPECT_EQ(read_stream_or_file(posix(), "/dev/fd/" + std::to_string(file.number())), "two");
  EXPECT_EQ(read_stream_or_file(posix(), dir / "f"), "one two");
  EXPECT_EQ(read_stream_or_file(posix(), dir / "f", 7), "one two");
  EXPECT_TRUE(says(error_of([&] { read_stream_or_file(posix(), dir / "f", 6); }),
                   {dir / "f", "at most 6 bytes", "got 7"}));
}

TEST(Streams, ThatAreNotOpenAndFifosOfAFolderAreErrors) {
  EXPECT_TRUE(says(error_of([] { read_stream_or_file(posix(), "/dev/fd/9999"); }),
                   {"/dev/fd/9999", "Bad file descriptor"}));
  const TempDir dir;
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0600), 0);
  EXPECT_TRUE(says(error_of([&] { read_stream_or_file(posix(), dir / "fifo"); }),
                   {dir / "fifo", "a FIFO"}));
  const Descriptor folder(::open(dir.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const std::string path = "/dev/fd/" + std::to_string(folder.number());
  EXPECT_TRUE(says(error_of([&] { read_stream_or_file(posix(), path); }), {path, "directory"}));
}

}  // namespace
}  // namespace memlayers::io
