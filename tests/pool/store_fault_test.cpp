// SPDX-License-Identifier: Apache-2.0
// Every call of every edit, of opening and of following fails once, in every way: there is an error
// that is clean, the old state is served, nothing acknowledged is lost, and where the log itself
// failed no edit is taken until the folder is opened again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>

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
using ::testing::HasSubstr;
using Fault = MemoryFileSystem::Fault;

class FaultTest : public ::testing::TestWithParam<Fault> {
 protected:
  FaultTest() : steps_(every_kind_of_edit(pool_)), contents_(contents_after(pool_, steps_)) {
    files_.make_folder("pool");
    pool_.write(files_, "pool");
  }
  Store open(MemoryFileSystem& files) { return pool::open_store(files, "pool", small_options()); }
  // Runs step i without a fault.
  void go_on(std::size_t i) {
    Store store = open(files_);
    steps_[i].act(store);
  }

  SmallPool pool_;
  std::vector<Step> steps_;
  std::vector<Bytes> contents_;
  MemoryFileSystem files_;
};
INSTANTIATE_TEST_SUITE_P(Faults, FaultTest,
                         ::testing::Values(Fault::kOnce, Fault::kFromThen, Fault::kFullDisk));

TEST_P(FaultTest, InAnEditIsACleanErrorAndTheOldStateIsServed) {
  std::int64_t failed = 0, stopped = 0;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const Bytes &before = contents_[i], &after = contents_[i + 1];
    bool has_failed = true;
    for (std::int64_t call = 1; has_failed; ++call) {
      const std::string where = steps_[i].name + ", call " + std::to_string(call);
      MemoryFileSystem files(files_);
      bool was_acknowledged = true, is_writable = true;
      {
        Store store = open(files);
        files.fail_at(call, GetParam());
        try {
          steps_[i].act(store);
        } catch (const Error&) {
          was_acknowledged = false;
        }
        has_failed = files.has_failed();
        failed += has_failed ? 1 : 0;
        EXPECT_TRUE(has_failed || was_acknowledged) << where;
        EXPECT_TRUE(content(store.snapshot()) == (was_acknowledged ? after : before)) << where;
        is_writable = store.is_writable();
        files.fail_never();
        if (!is_writable) {
          ++stopped;
          EXPECT_NE(store.health(), "good");
          expect_error([&] { store.apply(pool_.patch(98, {7})); }, HasSubstr("open it again"));
          expect_error([&] { store.rollback("p1"); }, HasSubstr("open it again"));
          EXPECT_TRUE(content(store.snapshot()) == (was_acknowledged ? after : before)) << where;
        } else if (call % 2 == 0) {  // the client tries again
          steps_[i].act(store);
          was_acknowledged = true;
          EXPECT_TRUE(content(store.snapshot()) == after) << where;
        }
      }
      const auto holds = [&](MemoryFileSystem& left, const std::string& what) {
        const Bytes found = content(open(left).snapshot());
        if (was_acknowledged) {
          EXPECT_TRUE(found == after) << where << what;
        }
        // What failed before the log was touched has left nothing behind.
        if (!was_acknowledged && is_writable) {
          EXPECT_TRUE(found == before) << where << what;
        }
        EXPECT_TRUE(found == before || found == after) << where << what;
      };
      files.for_each_power_loss(
          soaked(6, 256), [&](MemoryFileSystem& left) { holds(left, ", then the power failed"); });
      holds(files, ", opened again");
      Store store = open(files);
      steps_[i].act(store);
      EXPECT_TRUE(content(store.snapshot()) == after) << where << ", done again";
      if (HasFailure()) return;
    }
    go_on(i);
  }
  EXPECT_GT(failed, 100);
  EXPECT_GT(stopped, GetParam() == Fault::kFullDisk ? 0 : 10);
}

TEST_P(FaultTest, InOpeningIsAnErrorAndTheNextOpeningFindsEverything) {
  std::int64_t failed = 0;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    // Recoveries after power losses have more to do than those after a good end.
    std::vector<std::unique_ptr<MemoryFileSystem>> starts;
    {
      Store store = open(files_);
      std::int64_t changes = 0;
      files_.before_change = [&](const std::string&) {
        if (++changes % 3 == static_cast<std::int64_t>(i) % 3)
          starts.push_back(files_.random_power_loss(7 + static_cast<std::uint64_t>(changes)));
      };
      steps_[i].act(store);
      files_.before_change = nullptr;
    }
    starts.push_back(std::make_unique<MemoryFileSystem>(files_));
    for (const auto& start : starts) {
      bool has_failed = true;
      for (std::int64_t call = 1; has_failed; ++call) {
        MemoryFileSystem files(*start);
        files.fail_at(call, GetParam());
        try {
          EXPECT_TRUE(content(open(files).snapshot()) == contents_[i] ||
                      content(open(files).snapshot()) == contents_[i + 1]);
        } catch (const Error&) {
        }
        has_failed = files.has_failed();
        failed += has_failed ? 1 : 0;
        files.fail_never();
        const Bytes found = content(open(files).snapshot());
        const bool is_last = start == starts.back();
        EXPECT_TRUE(found == contents_[i + 1] || (!is_last && found == contents_[i]))
            << steps_[i].name << ", call " << call;
        if (HasFailure()) return;
      }
    }
  }
  EXPECT_GT(failed, GetParam() == Fault::kFullDisk ? 5 : 100);
}

TEST_P(FaultTest, InFollowingLeavesTheReaderWhereItWas) {
  std::optional<StoreReader> reader = pool::open_reader(files_, "pool", small_options());
  std::int64_t failed = 0;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    go_on(i);
    bool has_failed = true;
    for (std::int64_t call = 1; has_failed; ++call) {
      const Bytes before = content(reader->snapshot());
      files_.fail_at(call, GetParam());
      bool was_followed = true;
      try {
        reader->refresh();
      } catch (const Error&) {
        was_followed = false;
      }
      has_failed = files_.has_failed();
      failed += has_failed ? 1 : 0;
      files_.fail_never();
      EXPECT_TRUE(content(reader->snapshot()) == (was_followed ? contents_[i + 1] : before))
          << steps_[i].name << ", call " << call;
    }
    reader->refresh();
    EXPECT_TRUE(content(reader->snapshot()) == contents_[i + 1]) << steps_[i].name;
  }
  if (GetParam() != Fault::kFullDisk) {
    EXPECT_GT(failed, 20);
  }
}

}  // namespace
}  // namespace memlayers
