// SPDX-License-Identifier: Apache-2.0
// One bit of any file of a pool is altered: there is an error that names the file and, in files of
// our own format, the place; or all rows are right. Never is a wrong row served.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "memlayers/store.h"
#include "pool/store_parts.h"
#include "support/expect_error.h"
#include "support/memory_file_system.h"
#include "support/store_testing.h"

namespace memlayers {
namespace {

using memlayers::testing::Bytes;
using memlayers::testing::content;
using memlayers::testing::expect_error;
using memlayers::testing::MemoryFileSystem;
using memlayers::testing::small_options;
using memlayers::testing::SmallPool;
using memlayers::testing::soaked;
using memlayers::testing::Step;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;

class BitFlip : public ::testing::Test {
 protected:
  // Chunks of two generations, segments, rows in the live log and in an older one.
  BitFlip() {
    files_.make_folder("pool");
    pool_.write(files_, "pool");
    Store store = open(files_);
    for (const Step& step : every_kind_of_edit(pool_)) step.act(store);
    for (int i = 11; i < 16; ++i) store.apply(pool_.patch(i, {i, i + 10}));
    store.apply(pool_.patch(16, {1, 2, 3, 4, 5, 6}, {33}));
    wanted_ = content(store.snapshot());
  }
  static Store open(MemoryFileSystem& files) {
    return pool::open_store(files, "pool", small_options());
  }

  std::string live_log() {
    const std::string text = io::read_text(files_, "pool/CURRENT");
    return "pool/" + text.substr(0, text.find(' '));
  }

  SmallPool pool_;
  MemoryFileSystem files_;
  Bytes wanted_;
};

TEST_F(BitFlip, AnywhereIsAnErrorOrNoHarm) {
  std::map<std::string, std::int64_t> errors;
  // An odd step meets all bits of a byte in turn.
  const auto step = static_cast<std::size_t>(soaked(101, 1));
  for (const std::string& path : files_.files()) {
    for (std::size_t offset = 0; offset < files_.file_size(path); offset += step) {
      for (unsigned bit = 0; bit < (step == 1 ? 8U : 1U); ++bit) {
        const unsigned flipped = step == 1 ? bit : static_cast<unsigned>(offset / step % 8);
        MemoryFileSystem files(files_);
        files.flip_bit(path, offset, flipped);
        try {
          EXPECT_TRUE(content(open(files).snapshot()) == wanted_)
              << path << ": a wrong row after a flip at byte " << offset;
        } catch (const Error& error) {
          ++errors[path.substr(0, path.find('-'))];
          EXPECT_THAT(error.what(), HasSubstr(path)) << offset;
          if (path.starts_with("pool/log-") || path == "pool/CURRENT") {
            EXPECT_THAT(error.what(), HasSubstr("at byte ")) << offset;
          }
        }
        if (HasFailure()) return;
      }
    }
  }
  EXPECT_GT(errors["pool/log"], 100);
  EXPECT_GT(errors["pool/seg"], 2);
  EXPECT_GT(errors["pool/chunk"], 10);
}

TEST_F(BitFlip, InTheLastRecordIsNotTakenForATornOne) {
  // Every byte that the last edit wrote; a log without sectors could not tell it from a crash.
  const MemoryFileSystem before(files_);
  pool::open_store(files_, "pool").apply(pool_.patch(17, {8}));
  std::int64_t altered = 0;
  const std::string log = live_log();
  for (std::size_t offset = 0; offset < before.file_size(log); ++offset) {
    if (before.byte_at(log, offset) == files_.byte_at(log, offset)) continue;
    ++altered;
    files_.flip_bit(log, offset, 3);
    expect_error([&] { open(files_); }, AllOf(HasSubstr(log + ": at byte "), HasSubstr("altered")));
    files_.flip_bit(log, offset, 3);
    if (HasFailure()) return;
  }
  EXPECT_GT(altered, 100);
}

TEST_F(BitFlip, InTheLogMayBePassedOverOnRequestOnly) {
  const std::string log = live_log();
  // In the last sector with anything in it.
  std::size_t last = files_.file_size(log) - 1;
  while (files_.byte_at(log, last) == std::byte{0}) --last;
  files_.flip_bit(log, last, 0);
  expect_error([&] { open(files_); }, HasSubstr("altered"));
  EXPECT_THROW(open(files_), Corruption);
  StoreOptions options = small_options();
  options.to_point_in_time = true;
  {
    Store store = pool::open_store(files_, "pool", options);
    EXPECT_TRUE(content(store.snapshot()) != wanted_);
    store.apply(pool_.patch(20, {9}));
  }
  EXPECT_EQ(open(files_).snapshot().writer_of(9), "p20");
}

TEST_F(BitFlip, FilesThatAreMissingOrCutAreNamed) {
  for (const std::string& path : files_.files()) {
    MemoryFileSystem files(files_);
    files.unlink(path);
    if (path == "pool/CURRENT") {
      expect_error([&] { open(files); }, HasSubstr("CURRENT: expected the name of the live log"));
      continue;
    }
    EXPECT_THROW(open(files), Corruption) << path;
    expect_error([&] { open(files); }, HasSubstr(path));
    for (std::size_t size = 0; size < files_.file_size(path); size += 512) {
      MemoryFileSystem cut(files_);
      cut.cut(path, size);
      try {
        EXPECT_TRUE(content(open(cut).snapshot()) == wanted_) << path << " cut to " << size;
      } catch (const Error& error) {
        EXPECT_THAT(error.what(), HasSubstr(path));
      }
    }
  }
}

TEST_F(BitFlip, IsFoundByVerifyAlsoAfterItWasRead) {
  const Store store = open(files_);
  store.snapshot().verify();
  EXPECT_TRUE(content(store.snapshot()) == wanted_);
}

}  // namespace
}  // namespace memlayers
