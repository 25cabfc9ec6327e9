// SPDX-License-Identifier: Apache-2.0
// The power fails before any call that changes the disk, and leaves any part of what was not
// synced: the pool that is opened then is exactly the one before the edit or the one after it, and
// has every edit that was acknowledged.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "memlayers/store.h"
#include "pool/store_parts.h"
#include "support/memory_file_system.h"
#include "support/store_testing.h"

namespace memlayers {
namespace {

using memlayers::testing::Bytes;
using memlayers::testing::content;
using memlayers::testing::MemoryFileSystem;
using memlayers::testing::small_options;
using memlayers::testing::SmallPool;
using memlayers::testing::soaked;
using memlayers::testing::Step;

class PowerLoss : public ::testing::Test {
 protected:
  PowerLoss() : steps_(every_kind_of_edit(pool_)), contents_(contents_after(pool_, steps_)) {
    files_.make_folder("pool");
    pool_.write(files_, "pool");
  }

  // What a power loss left opens as one of the contents allowed now, and goes on.
  void check(MemoryFileSystem& left, const std::string& where, bool is_nested) {
    ++states_;
    Bytes found;
    try {
      if (is_nested && states_ % 5 == 0) {  // the recovery is interrupted as well
        left.before_change = [&](const std::string& call) {
          left.for_each_power_loss(soaked(4, 32), [&](MemoryFileSystem& again) {
            check(again, where + ", then before a change of " + call, false);
          });
        };
      }
      Store store = pool::open_store(left, "pool", small_options());
      left.before_change = nullptr;
      found = content(store.snapshot());
      store.apply(pool_.patch(99, {7}));
    } catch (const Error& error) {
      ADD_FAILURE() << where << ": " << error.what();
      return;
    }
    const auto allowed =
        std::ranges::find_if(allowed_, [&](const Bytes* b) { return *b == found; });
    EXPECT_NE(allowed, allowed_.end()) << where << ": another content";
    Store store = pool::open_store(left, "pool", small_options());
    EXPECT_EQ(store.snapshot().writer_of(7), "p99") << where;
  }

  void lose_power(const std::string& where) {
    files_.for_each_power_loss(soaked(40, 4096),
                               [&](MemoryFileSystem& left) { check(left, where, true); });
  }

  SmallPool pool_;
  std::vector<Step> steps_;
  std::vector<Bytes> contents_;
  MemoryFileSystem files_;
  std::vector<const Bytes*> allowed_;
  std::int64_t states_ = 0;
};

TEST_F(PowerLoss, AnywhereLeavesThePoolBeforeAnEditOrAfterIt) {
  std::int64_t calls = 0;
  {
    Store store = pool::open_store(files_, "pool", small_options());
    for (std::size_t i = 0; i < steps_.size(); ++i) {
      allowed_ = {&contents_[i], &contents_[i + 1]};
      files_.before_change = [&](const std::string& call) {
        ++calls;
        lose_power(steps_[i].name + ", before a change of " + call);
      };
      steps_[i].act(store);
      files_.before_change = nullptr;
      EXPECT_TRUE(content(store.snapshot()) == contents_[i + 1]) << steps_[i].name;
      allowed_ = {&contents_[i + 1]};
      lose_power(steps_[i].name + ", done");
      if (::testing::Test::HasFailure()) return;
    }
  }
  std::cout << calls << " calls, " << states_ << " states of the disk\n";
  EXPECT_GT(calls, 80);
}

}  // namespace
}  // namespace memlayers
