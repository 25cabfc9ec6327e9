// SPDX-License-Identifier: Apache-2.0
// Several edits as one: all of them or none, whatever happens meanwhile.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
using memlayers::testing::ModelStore;
using memlayers::testing::small_options;
using memlayers::testing::SmallPool;
using memlayers::testing::soaked;
using ::testing::AnyOf;
using ::testing::Eq;
using ::testing::HasSubstr;

constexpr const char* kFolder = "/pool";

class Transaction : public ::testing::Test {
 protected:
  Transaction() {
    fs_.make_folder(kFolder);
    pool_.write(fs_, kFolder);
    ModelStore model{pool_.base(), pool_.row_bytes()};
    {
      Store store = open(fs_);
      store.apply(pool_.patch(1, {0, 1}));
      model.apply(pool_.patch(1, {0, 1}));
    }
    before_ = model.content();
    for (const Patch& patch : patches_) model.apply(patch);
    after_ = model.content();
  }
  static Store open(MemoryFileSystem& fs) { return pool::open_store(fs, kFolder, small_options()); }
  static Bytes content_of(MemoryFileSystem& fs) { return content(open(fs).snapshot()); }

  MemoryFileSystem fs_;
  const SmallPool pool_;
  // In the log, in a segment, in the log; they write some slots twice.
  const std::vector<Patch> patches_ = {
      pool_.patch(2, {1, 2}), pool_.patch(3, {2, 3, 17, 18, 39}, {0}), pool_.patch(4, {3, 20})};
  Bytes before_, after_;
};

TEST_F(Transaction, AppliesAllInTheirOrder) {
  std::uint64_t version = 0;
  {
    Store store = open(fs_);
    const Snapshot snapshot = store.snapshot();
    const std::vector<Committed> committed = store.apply(patches_);
    ASSERT_EQ(committed.size(), 3U);
    EXPECT_EQ(content(snapshot), before_);
    EXPECT_EQ(content(store.snapshot()), after_);
    EXPECT_EQ(committed[0].conflicts, (std::vector<Conflict>{{1, "p1", "p2"}}));
    EXPECT_EQ(committed[1].conflicts, (std::vector<Conflict>{{0, "p1", "p3"}, {2, "p2", "p3"}}));
    EXPECT_EQ(committed[2].conflicts, (std::vector<Conflict>{{3, "p3", "p4"}}));
    version = store.snapshot().version();
    EXPECT_EQ(committed[2].version, version);
    EXPECT_TRUE(store.apply(patches_).back().was_there);
    EXPECT_TRUE(store.apply(std::span<const Patch>()).empty());
    EXPECT_EQ(store.snapshot().version(), version);
  }
  EXPECT_EQ(content_of(fs_), after_);
  EXPECT_EQ(open(fs_).snapshot().version(), version);
}

TEST_F(Transaction, WithOneThatDoesNotFitChangesNothing) {
  const auto files = fs_.files();
  Store store = open(fs_);
  std::vector<Patch> wrong = patches_;
  wrong[2].slots = {3, 40};  // the pool has 40
  expect_error([&] { store.apply(wrong); }, HasSubstr("slots in [0, 40), got 40"));
  wrong = patches_;
  wrong[2].id = "p2";  // of other content
  expect_error([&] { store.apply(wrong); }, HasSubstr("expected the content"));
  const std::vector<std::string> ids = {"p1", "none"};
  expect_error([&] { store.rollback(ids); }, HasSubstr("patch none: expected a patch"));
  expect_error([&] { store.reapply(ids); }, HasSubstr("patch none: expected a patch"));
  EXPECT_EQ(content(store.snapshot()), before_);
  EXPECT_EQ(fs_.files(), files);
  EXPECT_TRUE(store.is_writable());
  store.apply(patches_);
  EXPECT_EQ(content(store.snapshot()), after_);
}

TEST_F(Transaction, TakesSeveralBackAndAppliesThemAgain) {
  const std::vector<std::string> ids = {"p2", "p3", "p4"};
  Store store = open(fs_);
  store.apply(patches_);
  EXPECT_EQ(store.rollback(ids).size(), 3U);
  EXPECT_EQ(content(store.snapshot()), before_);
  EXPECT_FALSE(store.reapply(ids)[1].was_there);
  EXPECT_EQ(content(store.snapshot()), after_);
  EXPECT_TRUE(store.reapply(ids)[1].was_there);
  const std::vector<std::string> twice = {"p2", "p2"};
  EXPECT_TRUE(store.rollback(twice)[1].was_there);
}

TEST_F(Transaction, IsSeenByReadersAsAWhole) {
  StoreReader reader = pool::open_reader(fs_, kFolder, small_options());
  Store store = open(fs_);
  store.apply(patches_);
  EXPECT_TRUE(reader.refresh());
  EXPECT_EQ(content(reader.snapshot()), after_);
}

TEST_F(Transaction, IsWholeOrNotThereAfterAPowerLoss) {
  std::int64_t states = 0;
  MemoryFileSystem fs(fs_);
  fs.before_change = [&](const std::string& what) {
    states += fs.for_each_power_loss(soaked(30, 1000), [&](MemoryFileSystem& left) {
      ASSERT_THAT(content_of(left), AnyOf(Eq(before_), Eq(after_))) << "before " << what;
    });
  };
  Store store = open(fs);
  store.apply(patches_);
  fs.before_change = nullptr;
  fs.for_each_power_loss(soaked(100, 1000), [&](MemoryFileSystem& left) {
    ASSERT_EQ(content_of(left), after_) << "acknowledged";
  });
  EXPECT_GT(states, 50);
}

TEST_F(Transaction, ThatFailsAnywhereLeavesAllOrNothing) {
  using Fault = MemoryFileSystem::Fault;
  for (const Fault fault : {Fault::kOnce, Fault::kFromThen, Fault::kFullDisk}) {
    bool has_failed = true;
    for (std::int64_t call = 1; has_failed; ++call) {
      MemoryFileSystem fs(fs_);
      {
        Store store = open(fs);
        fs.fail_at(call, fault);
        bool is_done = true;
        try {
          store.apply(patches_);
        } catch (const Error&) {
          is_done = false;
        }
        has_failed = fs.has_failed();
        fs.fail_never();
        EXPECT_EQ(content(store.snapshot()), is_done ? after_ : before_) << "call " << call;
      }
      ASSERT_THAT(content_of(fs), AnyOf(Eq(before_), Eq(after_))) << "call " << call;
    }
  }
}

}  // namespace
}  // namespace memlayers
