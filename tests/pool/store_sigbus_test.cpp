// SPDX-License-Identifier: Apache-2.0
// Files that are mapped lose their bytes while they are read: the readers get an error that names
// the file, and the process goes on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "io/mapped_read.h"
#include "memlayers/store.h"
#include "support/expect_error.h"
#include "support/store_testing.h"
#include "support/temp_dir.h"

namespace memlayers {
namespace {

using memlayers::testing::Bytes;
using memlayers::testing::content;
using memlayers::testing::expect_error;
using memlayers::testing::SmallPool;
using memlayers::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// Rows of a page each, 16 in a chunk.
constexpr SmallPool kPaged{.rows = 40, .width = 1024, .rows_a_chunk = 16};

class Sigbus : public ::testing::Test {
 protected:
  Sigbus() { kPaged.write(io::posix(), dir_.path()); }
  Snapshot open(RowAccess access = RowAccess::kMapped) const {
    StoreOptions options;
    options.access = access;
    return StoreReader::open(dir_.path(), options).snapshot();
  }
  // All but its first page, which holds the header, is gone.
  void cut(const std::string& name) const { ASSERT_EQ(::truncate((dir_ / name).c_str(), 4096), 0); }
  static Bytes row(const Snapshot& pool, std::int64_t slot) {
    Bytes bytes(static_cast<std::size_t>(pool.row_bytes()));
    pool.read_rows(std::span(&slot, 1), bytes);
    return bytes;
  }

  TempDir dir_;
};

TEST_F(Sigbus, OfAChunkThatWasCutIsAnErrorThatNamesItAndTheByte) {
  const Snapshot pool = open();
  EXPECT_EQ(row(pool, 17), kPaged.row(17, 0));  // its block is checked, its page in memory
  cut("chunk-1-0.safetensors");
  const auto named = AllOf(StartsWith(dir_ / "chunk-1-0.safetensors"), HasSubstr("read byte 8192"),
                           HasSubstr("a file that was cut"));
  for (int again = 0; again < 3; ++again) {
    expect_error([&] { row(pool, 17); }, named);
    EXPECT_EQ(row(pool, 3), kPaged.row(3, 0)) << "what is whole can be read";
  }
  EXPECT_THROW(content(pool), Error);
  EXPECT_THROW(pool.digest(), Error);
  EXPECT_THROW(pool.verify(), Error);
}

TEST_F(Sigbus, OfABlockThatWasNotCheckedYetIsTheSame) {
  const Snapshot pool = open();
  cut("chunk-2-0.safetensors");
  expect_error([&] { pool.row(33); }, StartsWith(dir_ / "chunk-2-0.safetensors"));
}

TEST_F(Sigbus, OfASegmentIsAnErrorAndLeavesTheOthersReadable) {
  StoreOptions options;
  options.inline_bytes = 0;
  {
    Store store = Store::open(dir_.path(), options);
    store.apply(kPaged.patch(1, {0, 1, 30}));
  }
  const Snapshot pool = open();
  for (const std::string& name : io::posix().list(dir_.path())) {
    if (name.starts_with("seg-")) cut(name);
  }
  expect_error([&] { row(pool, 30); }, StartsWith(dir_ / "seg-"));
  expect_error([&] { pool.patch("p1"); }, StartsWith(dir_ / "seg-"));
  EXPECT_EQ(row(pool, 31), kPaged.row(31, 0));
}

TEST_F(Sigbus, IsMetInEachThreadForItself) {
  const Snapshot pool = open();
  content(pool);
  cut("chunk-0-0.safetensors");
  std::atomic<int> errors = 0, rows = 0;
  std::vector<std::jthread> readers;
  for (int thread = 0; thread < 4; ++thread) {
    readers.emplace_back([&, thread] {
      for (int i = 0; i < 200; ++i) {
        try {
          if (row(pool, thread % 2 == 0 ? i % 16 : 16 + i % 24).size() == 4096) ++rows;
        } catch (const Error&) {
          ++errors;
        }
      }
    });
  }
  readers.clear();
  EXPECT_EQ(errors, 400);
  EXPECT_EQ(rows, 400);
}

TEST_F(Sigbus, AnotherPoolGoesOnBeingRead) {
  const TempDir other;
  kPaged.write(io::posix(), other.path());
  const Snapshot whole = StoreReader::open(other.path()).snapshot(), pool = open();
  cut("chunk-0-0.safetensors");
  EXPECT_THROW(content(pool), Error);
  EXPECT_EQ(content(whole), kPaged.base());
}

TEST_F(Sigbus, IsNoMatterForRowsThatAreInMemory) {
  const Snapshot pool = open(RowAccess::kMemory);
  cut("chunk-0-0.safetensors");
  EXPECT_EQ(content(pool), kPaged.base());
}

TEST_F(Sigbus, OfRowsThatAreReadIsAnErrorOfReadingAndTheyStayOnceRead) {
  const Snapshot pool = open(RowAccess::kRead);
  EXPECT_EQ(row(pool, 1), kPaged.row(1, 0));  // with its block of 16 rows
  cut("chunk-0-0.safetensors");
  cut("chunk-1-0.safetensors");
  EXPECT_EQ(row(pool, 15), kPaged.row(15, 0));
  expect_error([&] { row(pool, 16); },
               AllOf(StartsWith(dir_ / "chunk-1-0.safetensors"), HasSubstr("the end of the file")));
  EXPECT_EQ(row(pool, 39), kPaged.row(39, 0));
}

TEST_F(Sigbus, RowsThatAreReadHaveTheBitsOfMappedOnes) {
  const Snapshot pool = open(RowAccess::kRead);
  EXPECT_EQ(row(pool, 20), kPaged.row(20, 0));
  EXPECT_EQ(content(pool), kPaged.base());
  EXPECT_EQ(pool.digest(), open().digest());
  EXPECT_NO_THROW(pool.verify());
}

volatile std::sig_atomic_t handled = 0;

// The handler that stood before is the program's own: it gets what is not raised by reading.
TEST_F(Sigbus, OfOthersGoesToTheHandlerThatWasThereBefore) {
  // In a process of its own, which has read nothing yet.
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_EXIT(
      {
        std::signal(SIGBUS, [](int) { handled = 1; });
        const Snapshot pool = open();  // the first read of a mapped file puts ours over it
        cut("chunk-0-0.safetensors");
        bool is_error = false;
        try {
          row(pool, 3);
        } catch (const Error&) {
          is_error = true;
        }
        ::raise(SIGBUS);
        std::_Exit(is_error && handled == 1 ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST_F(Sigbus, OutsideOfReadingEndsTheProcessAsEver) {
  const Snapshot pool = open();
  const std::byte* bytes = pool.row(3);
  cut("chunk-0-0.safetensors");
  EXPECT_DEATH(std::_Exit(static_cast<int>(*static_cast<const volatile std::byte*>(bytes))), "");
}

class WatchedRead : public ::testing::Test {
 protected:
  WatchedRead() {
    kPaged.write(io::posix(), dir_.path());
    map_ = io::posix().map(path_);
    EXPECT_EQ(::truncate(path_.c_str(), 4096), 0);
  }
  std::span<const std::byte> bytes() const { return map_->bytes(); }
  static int sum_of(std::span<const std::byte> bytes) {
    int sum = 0;
    for (const std::byte byte : bytes) sum += std::to_integer<int>(byte);
    return sum;
  }
  const TempDir dir_;
  const std::string path_ = dir_ / "chunk-0-0.safetensors";
  std::unique_ptr<io::Mapping> map_;
};

TEST_F(WatchedRead, GoesOnWithZerosAndIsAnErrorInTheEnd) {
  int sum = -1;
  const auto named = AllOf(StartsWith(path_), HasSubstr("read byte 4096 of the mapped file"));
  expect_error([&] { io::read_watched(bytes(), [&] { sum = sum_of(bytes().subspan(4096)); }); },
               named);
  EXPECT_EQ(sum, 0);
  const auto whole = bytes().first(4096);
  EXPECT_NO_THROW(io::read_watched(whole, [&] { sum = sum_of(whole); }));
  EXPECT_GT(sum, 0);
}

TEST_F(WatchedRead, ThatThrowsOverTheZerosTellsOfTheFile) {
  expect_error(
      [&] {
        io::read_watched(bytes(), [&] {
          if (sum_of(bytes().subspan(8192)) == 0) throw Error("what is this?");
        });
      },
      StartsWith(path_));
  expect_error([&] { io::read_watched({}, [] { throw Error("mine"); }); }, HasSubstr("mine"));
}

TEST_F(WatchedRead, IsOfAllThreadsAndEndsWithTheWatch) {
  {
    const io::WatchedBytes watched(bytes());
    std::jthread([&] { static_cast<void>(sum_of(bytes().subspan(4096))); }).join();
    expect_error([&] { watched.check(); }, StartsWith(path_));
  }
  const auto other = io::posix().map(path_);  // of the file as it is now: one page
  EXPECT_NO_THROW(io::WatchedBytes(other->bytes()).check());
  ASSERT_EQ(::truncate(path_.c_str(), 0), 0);
  EXPECT_DEATH(std::_Exit(sum_of(other->bytes())), "");
}

TEST(MappedRead, GivesErrorsOfNestedReadsToTheInnerOne) {
  const TempDir dir;
  kPaged.write(io::posix(), dir.path());
  const auto map = io::posix().map(dir / "chunk-0-0.safetensors");
  ASSERT_EQ(::truncate((dir / "chunk-0-0.safetensors").c_str(), 4096), 0);
  const volatile std::byte* lost = map->bytes().data() + 8192;
  bool is_inner = false;
  EXPECT_THROW(io::read_mapped([&] {
                 try {
                   io::read_mapped([&] { static_cast<void>(*lost); });
                 } catch (const Error&) {
                   is_inner = true;
                 }
                 static_cast<void>(*lost);  // the outer one's guard stands again
               }),
               Error);
  EXPECT_TRUE(is_inner);
}

}  // namespace
}  // namespace memlayers
