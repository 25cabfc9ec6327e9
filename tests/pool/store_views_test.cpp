// SPDX-License-Identifier: Apache-2.0
// Snapshots in which patches are left out, and what two snapshots have in common.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "memlayers/store.h"
#include "support/expect_error.h"
#include "support/store_testing.h"
#include "support/temp_dir.h"

namespace memlayers {
namespace {

using testing::content;
using testing::expect_error;
using ::testing::HasSubstr;
using testing::kSmallGrid;
using testing::SmallPool;
using testing::TempDir;
using testing::with_sub_keys;

class StoreViews : public ::testing::Test {
 protected:
  StoreViews() { pool_.write(io::posix(), dir_.path()); }
  Store open() const {
    StoreOptions options;
    options.sub_keys = kSmallGrid;
    return Store::open(dir_.path(), options);
  }
  static std::vector<std::string> ids(const Snapshot& snapshot) {
    std::vector<std::string> all;
    for (const PatchInfo& patch : snapshot.patches()) all.push_back(patch.id);
    return all;
  }

  TempDir dir_;
  SmallPool pool_;
};

TEST_F(StoreViews, WithoutPatchesRowsAreWhatRollingThemBackLeaves) {
  std::mt19937 random(5);
  const auto below = [&](int n) { return std::uniform_int_distribution<int>(0, n - 1)(random); };
  Store store = open();
  for (int writer = 1; writer <= 6; ++writer) {
    std::vector<std::int64_t> slots, erased;
    for (std::int64_t slot = 0; slot < pool_.rows; ++slot) {
      if (const int choice = below(5); choice < 2) (choice == 0 ? slots : erased).push_back(slot);
    }
    store.apply(with_sub_keys(pool_.patch(writer, slots, erased), writer,
                              {{.layer = 1, .index = writer % 3}, {.layer = 3, .head = 1}}));
  }
  const Snapshot all = store.snapshot();
  const auto before = content(all);
  for (int round = 0; round < 12; ++round) {
    std::vector<std::string> left_out;
    for (int writer = 1; writer <= 6; ++writer) {
      if (below(2) == 0) left_out.push_back("p" + std::to_string(writer));
    }
    const Snapshot view = all.without(left_out);
    store.rollback(left_out);
    EXPECT_EQ(content(view), content(store.snapshot()));
    EXPECT_EQ(view.digest(), store.snapshot().digest());
    EXPECT_EQ(ids(view), ids(store.snapshot()));
    EXPECT_EQ(view.free_slots(), store.snapshot().free_slots());
    EXPECT_EQ(view.version(), all.version());
    EXPECT_EQ(view == all, left_out.empty());
    for (std::int64_t slot = 0; slot < pool_.rows; ++slot) {
      EXPECT_EQ(view.writer_of(slot), store.snapshot().writer_of(slot));
    }
    // In their order, so that the stack is as it was.
    std::vector<std::string> others = ids(store.snapshot());
    store.rollback(others);
    std::vector<std::string> again = ids(all);
    store.reapply(again);
    EXPECT_EQ(content(all), before) << "a snapshot never changes";
  }
}

TEST_F(StoreViews, WithoutTakesKeptOnesAndThoseRolledBackAndNamesOthers) {
  Store store = open();
  const auto base = content(store.snapshot());
  store.apply(pool_.patch(1, {3, 4}));
  store.apply(pool_.patch(2, {4, 5}));
  store.keep("p1");
  store.rollback("p2");
  const Snapshot now = store.snapshot();
  EXPECT_EQ(content(now.without(std::vector<std::string>{"p2"})), content(now));
  EXPECT_EQ(content(now.without(std::vector<std::string>{"p1", "p1"})), base);
  expect_error([&] { now.without(std::vector<std::string>{"p1", "p9"}); },
               HasSubstr("patch p9: expected a patch in this store, found none"));
}

TEST_F(StoreViews, TellWhichRowsTheyHaveInCommon) {
  Store store = open();
  const std::vector<std::int64_t> first{2, 7}, second{7, 30}, others{0, 31};
  const Snapshot base = store.snapshot();
  store.apply(pool_.patch(1, first));
  const Snapshot one = store.snapshot();
  store.apply(pool_.patch(2, second));
  const Snapshot two = store.snapshot();
  EXPECT_TRUE(base.reads_as(two, others));
  EXPECT_TRUE(two.reads_as(base, others));
  for (const std::int64_t slot : {2, 7, 30}) {
    EXPECT_FALSE(base.reads_as(two, std::vector{slot}));
    EXPECT_EQ(one.reads_as(two, std::vector{slot}), slot == 2);
    EXPECT_TRUE(one.reads_as(two.without(std::vector<std::string>{"p2"}), std::vector{slot}));
  }
  store.apply(with_sub_keys(pool_.patch(3, {12}), 3, {{.layer = 1}}));
  EXPECT_FALSE(two.reads_as(store.snapshot(), others)) << "lookups may give other slots";
  store.rollback("p3");
  EXPECT_TRUE(two.reads_as(store.snapshot(), others));
  expect_error([&] { (void)base.reads_as(two, std::vector{pool_.rows}); },
               HasSubstr("expected rows inside [0, 40)"));
}

TEST_F(StoreViews, RowsOfABaseThatWasWrittenAnewAreOthers) {
  Store store = open();
  const Snapshot base = store.snapshot();
  store.apply(pool_.patch(1, {0, 1, 2, 3, 4, 5, 6, 7}));
  store.keep("p1");
  store.compact(0.1);
  const std::vector<std::int64_t> folded{0}, other_chunk{39};
  ASSERT_FALSE(store.snapshot().is_overridden(0)) << "its row is the base's now";
  EXPECT_FALSE(base.reads_as(store.snapshot(), folded));
  EXPECT_TRUE(base.reads_as(store.snapshot(), other_chunk));
}

}  // namespace
}  // namespace memlayers
