// SPDX-License-Identifier: Apache-2.0
#include "memlayers/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <thread>

#include "io/file_system.h"
#include "pool/chunks.h"
#include "pool/store_parts.h"
#include "support/expect_error.h"
#include "support/failing_file_system.h"
#include "support/store_testing.h"
#include "support/temp_dir.h"
#include "support/testing.h"

namespace memlayers {
namespace {

using memlayers::testing::Bytes;
using memlayers::testing::content;
using memlayers::testing::expect_error;
using memlayers::testing::kPoolId;
using memlayers::testing::ModelStore;
using memlayers::testing::SmallPool;
using memlayers::testing::TempDir;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

// Every test once with small patches in the log and once with all of them in segments.
class StoreTest : public ::testing::TestWithParam<bool> {
 protected:
  StoreTest() { pool_.write(io::posix(), dir_.path()); }
  Store open() const { return Store::open(dir_.path(), options()); }
  static StoreOptions options() {
    StoreOptions options;
    options.log_step_bytes = 16 << 10;
    if (GetParam()) options.inline_bytes = 0;
    return options;
  }
  Bytes reopened() const { return content(open().snapshot()); }

  TempDir dir_;
  SmallPool pool_;
  ModelStore model_{pool_.base(), pool_.row_bytes()};
};
INSTANTIATE_TEST_SUITE_P(Rows, StoreTest, ::testing::Bool(), [](const auto& test) {
  return std::string(test.param ? "InSegments" : "InTheLog");
});

TEST_P(StoreTest, OpensAPoolThatWasNeverEditedAndLeavesItAsItIs) {
  const auto before = io::posix().list(dir_.path());
  {
    const Store store = open();
    EXPECT_EQ(content(store.snapshot()), pool_.base());
    EXPECT_EQ(store.snapshot().version(), 0U);
    EXPECT_EQ(store.snapshot().pool_id(), kPoolId);
    EXPECT_EQ(store.snapshot().digest(),
              pool::digest(pool::ChunkedRows::open(io::posix(), dir_.path(), "chunk")));
  }
  io::posix().unlink(dir_ / "LOCK");
  EXPECT_EQ(io::posix().list(dir_.path()), before);
}

TEST_P(StoreTest, ShowsAPatchAtOnceAndAfterReopening) {
  const Patch patch = pool_.patch(1, {0, 7, 15, 16, 39});
  model_.apply(patch);
  {
    Store store = open();
    const Snapshot before = store.snapshot();
    const Committed committed = store.apply(patch);
    EXPECT_FALSE(committed.was_there);
    EXPECT_THAT(committed.conflicts, IsEmpty());
    EXPECT_EQ(committed.version, store.snapshot().version());
    EXPECT_GT(committed.version, before.version());
    EXPECT_EQ(content(store.snapshot()), model_.content());
    EXPECT_EQ(content(before), pool_.base());  // a pinned snapshot does not change
    EXPECT_EQ(store.snapshot().writer_of(7), "p1");
    EXPECT_EQ(store.snapshot().writer_of(8), std::nullopt);
    EXPECT_EQ(store.snapshot().overridden_rows(), 5);
  }
  EXPECT_EQ(reopened(), model_.content());
  EXPECT_THAT(io::posix().list(dir_.path()),
              AllOf(Contains("CURRENT"), Contains("log-1"), Contains("LOCK")));
}

TEST_P(StoreTest, IsNotReadAsPlainChunksOnceItWasEdited) {
  open().apply(pool_.patch(1, {3}));
  expect_error([&] { pool::ChunkedRows::open(io::posix(), dir_.path(), "chunk"); },
               HasSubstr("expected a pool without edits, found CURRENT"));
}

TEST_P(StoreTest, RollsBackAnyPatchToWhatTheOthersMake) {
  const std::vector<Patch> patches{pool_.patch(1, {0, 1, 2, 30}), pool_.patch(2, {1, 2, 3}, {20}),
                                   pool_.patch(3, {2, 3, 4, 20}), pool_.patch(4, {39}, {2, 30})};
  for (std::size_t taken = 0; taken < patches.size(); ++taken) {
    const TempDir dir;
    pool_.write(io::posix(), dir.path());
    ModelStore model{pool_.base(), pool_.row_bytes()};
    {
      Store store = Store::open(dir.path(), options());
      for (const Patch& patch : patches) {
        store.apply(patch);
        model.apply(patch);
        EXPECT_EQ(content(store.snapshot()), model.content());
      }
      store.rollback(patches[taken].id);
      model.rollback(patches[taken].id);
      EXPECT_EQ(content(store.snapshot()), model.content());
      EXPECT_TRUE(store.rollback(patches[taken].id).was_there);
    }
    Store store = Store::open(dir.path(), options());
    EXPECT_EQ(content(store.snapshot()), model.content());
    store.reapply(patches[taken].id);  // on top of the others
    model.apply(patches[taken]);
    EXPECT_EQ(content(store.snapshot()), model.content());
    EXPECT_TRUE(store.reapply(patches[taken].id).was_there);
    for (const Patch& patch : patches) store.rollback(patch.id);
    EXPECT_EQ(content(store.snapshot()), pool_.base());
    EXPECT_EQ(store.snapshot().overridden_rows(), 0);
  }
}

TEST_P(StoreTest, AppliesAPatchOnceHoweverOftenItIsAsked) {
  Store store = open();
  const std::uint64_t version = store.apply(pool_.patch(1, {3})).version;
  const Committed again = store.apply(pool_.patch(1, {3}));
  EXPECT_TRUE(again.was_there);
  EXPECT_EQ(again.version, version);
  EXPECT_EQ(store.snapshot().patches().size(), 1U);
  Patch other = pool_.patch(1, {4});
  expect_error([&] { store.apply(other); }, HasSubstr("patch p1: expected the content"));
  store.rollback("p1");
  expect_error([&] { store.apply(other); }, HasSubstr("patch p1: expected the content"));
  EXPECT_FALSE(store.apply(pool_.patch(1, {3})).was_there);
  EXPECT_EQ(store.snapshot().patches().size(), 1U);
  const auto segments = io::posix().list(dir_.path());
  EXPECT_LE(
      std::ranges::count_if(segments, [](const auto& name) { return name.starts_with("seg-"); }),
      1);
}

TEST_P(StoreTest, ReportsWhereTwoPatchesWriteOneSlot) {
  Store store = open();
  store.apply(pool_.patch(1, {3, 5}));
  store.apply(pool_.patch(2, {5, 6}));
  EXPECT_THAT(
      store.apply(pool_.patch(3, {3, 5, 9}, {6})).conflicts,
      ElementsAre(Conflict{3, "p1", "p3"}, Conflict{5, "p2", "p3"}, Conflict{6, "p2", "p3"}));
  EXPECT_EQ(store.snapshot().writer_of(5), "p3");
}

TEST_P(StoreTest, RefusesAPatchThatDoesNotFitAndStaysAsItWas) {
  Store store = open();
  const auto refuses = [&](const std::function<void(Patch&)>& change, const auto& message) {
    Patch patch = pool_.patch(1, {3, 5}, {7});
    change(patch);
    expect_error([&] { store.apply(patch); }, message);
    EXPECT_EQ(content(store.snapshot()), pool_.base());
    EXPECT_TRUE(store.is_writable());
  };
  const auto set = [](Patch& patch, std::size_t i, float number) {
    std::memcpy(patch.rows.data() + 4 * i, &number, 4);
  };
  refuses([&](Patch& p) { set(p, 6, std::nanf("")); },
          HasSubstr("patch p1: expected finite numbers, got NaN or infinity in the row of slot 5"));
  refuses([&](Patch& p) { set(p, 0, -std::numeric_limits<float>::infinity()); },
          HasSubstr("in the row of slot 3"));
  refuses([](Patch& p) { p.width = 4; }, HasSubstr("expected rows of 5 float32, got 4 float32"));
  refuses([](Patch& p) { p.row_dtype = RowType::kBFloat16; }, HasSubstr("got 5 bfloat16"));
  refuses([](Patch& p) { p.rows.pop_back(); }, HasSubstr("expected 20 bytes for each of 2 slots"));
  refuses([](Patch& p) { p.slots = {3, 40}; }, HasSubstr("expected slots in [0, 40), got 40"));
  refuses([](Patch& p) { p.slots = {-1, 5}; }, HasSubstr("expected slots in [0, 40), got -1"));
  refuses([](Patch& p) { p.erased = {40}; }, HasSubstr("expected slots in [0, 40), got 40"));
  refuses([](Patch& p) { p.slots = {3, 3}; }, HasSubstr("expected each slot once, got 3 twice"));
  refuses([](Patch& p) { p.slots = {5, 3}; },
          HasSubstr("expected ascending slots, got 3 behind 5"));
  refuses([](Patch& p) { p.erased = {5}; }, HasSubstr("got 5 as a row and as erased"));
  refuses([](Patch& p) { p.pool = "another"; },
          HasSubstr("expected a patch for pool " + std::string(kPoolId) +
                    ", got one for pool another"));
  refuses([](Patch& p) { p.id = ""; }, HasSubstr("expected an id of 1 to 256 characters"));
  refuses([](Patch& p) { p.id = "\xff"; }, HasSubstr("UTF-8"));
  refuses([](Patch& p) { p.slots = {}, p.rows = {}, p.erased = {}; },
          HasSubstr("expected at least one slot or sub-key, got none"));
  expect_error([&] { store.rollback("p9"); },
               HasSubstr("patch p9: expected a patch in this store"));
  expect_error([&] { store.reapply("p9"); }, HasSubstr("that was rolled back, found none"));
  expect_error([&] { store.keep("p9"); }, HasSubstr("that is applied, found none"));
}

TEST_P(StoreTest, HasOneWriterAtATime) {
  std::optional<Store> store = open();
  expect_error([&] { open(); }, AllOf(HasSubstr("LOCK"), HasSubstr("no other writer")));
  store.reset();
  open();
}

TEST_P(StoreTest, ErasesInsertsAndUpdatesRows) {
  Store store = open();
  expect_error([&] { store.insert(pool_.row(1, 1)); }, HasSubstr("expected a free slot"));
  store.erase(20);
  store.erase(4);
  EXPECT_TRUE(store.erase(4).was_there);
  EXPECT_THAT(store.snapshot().free_slots(), ElementsAre(4, 20));
  expect_error([&] { store.update(4, pool_.row(4, 1)); }, HasSubstr("slot 4, which is free"));
  expect_error([&] { store.update(40, pool_.row(4, 1)); }, HasSubstr("expected a slot in [0, 40)"));
  expect_error([&] { store.erase(-1); }, HasSubstr("expected a slot in [0, 40)"));
  const std::string id = store.snapshot().patches().back().id;
  const Store::Inserted inserted = store.insert(pool_.row(4, 2));
  EXPECT_EQ(inserted.slot, 4);
  store.update(7, pool_.row(7, 3));
  Bytes wanted = pool_.base();
  const auto put = [&](std::int64_t slot, const Bytes& row) {
    std::ranges::copy(row, wanted.begin() + slot * pool_.row_bytes());
  };
  put(20, Bytes(20));
  put(4, pool_.row(4, 2));
  put(7, pool_.row(7, 3));
  EXPECT_EQ(content(store.snapshot()), wanted);
  EXPECT_THAT(store.snapshot().free_slots(), ElementsAre(20));
  store.rollback(id);  // the erasure of slot 4: the row inserted later stays
  EXPECT_EQ(content(store.snapshot()), wanted);
}

TEST_P(StoreTest, GrowsByRowsBehindTheOthers) {
  model_.apply(pool_.patch(1, {3}));
  const auto more = [&](std::int64_t first, std::span<std::byte> out) {
    for (std::size_t i = 0; i < out.size() / 20; ++i) {
      std::ranges::copy(pool_.row(first + static_cast<std::int64_t>(i), 9),
                        out.begin() + static_cast<std::ptrdiff_t>(i) * 20);
    }
  };
  {
    Store store = open();
    store.apply(pool_.patch(1, {3}));
    expect_error([&] { store.grow(0, more); }, HasSubstr("expected a number of rows >= 1"));
    expect_error(
        [&] {
          store.grow(2, [](std::int64_t, std::span<std::byte> out) {
            std::ranges::fill(out, std::byte{0xff});
          });
        },
        HasSubstr("NaN or infinity in the rows from slot 40"));
    const Snapshot before = store.snapshot();
    store.grow(1, more);
    store.grow(1500, more);
    EXPECT_EQ(before.rows(), 40);
    EXPECT_EQ(content(before), model_.content());
    EXPECT_EQ(store.snapshot().rows(), 1541);
    store.apply(pool_.patch(2, {2, 40, 1540}));
    EXPECT_EQ(store.snapshot().writer_of(1540), "p2");
  }
  for (std::int64_t slot = 40; slot < 1541; ++slot) {
    const Bytes row = pool_.row(slot, 9);
    model_.base.insert(model_.base.end(), row.begin(), row.end());
  }
  model_.apply(pool_.patch(2, {2, 40, 1540}));
  EXPECT_EQ(reopened(), model_.content());
}

TEST_P(StoreTest, FoldsKeptPatchesIntoTheBase) {
  const std::vector<Patch> patches{pool_.patch(1, {0, 1, 2, 3, 4, 5}, {9}),
                                   pool_.patch(2, {5, 20}, {21}), pool_.patch(3, {1, 6, 21, 39})};
  for (const Patch& patch : patches) model_.apply(patch);
  {
    Store store = open();
    for (const Patch& patch : patches) store.apply(patch);
    store.apply(pool_.patch(4, {11}));
    store.rollback("p4");
    store.keep("p2");
    EXPECT_TRUE(store.keep("p1").was_there);
    expect_error([&] { store.rollback("p1"); }, HasSubstr("got one that is kept"));
    EXPECT_TRUE(store.snapshot().patches()[1].is_kept);
    EXPECT_FALSE(store.snapshot().patches()[2].is_kept);
    const Snapshot before = store.snapshot();
    store.compact();  // 6 of 16 rows of the first chunk are kept ones, 1 of 16 of the second
    EXPECT_EQ(content(before), model_.content());
    EXPECT_EQ(content(store.snapshot()), model_.content());
    EXPECT_THAT(store.snapshot().patches(), ElementsAre(::testing::Field(&PatchInfo::id, "p3")));
    EXPECT_THAT(store.snapshot().free_slots(), ElementsAre(9));
    EXPECT_TRUE(store.apply(patches[0]).was_there);
    expect_error([&] { store.rollback("p1"); }, HasSubstr("got one that is kept"));
    expect_error([&] { store.reapply("p4"); }, HasSubstr("found none"));
    EXPECT_THAT(io::posix().list(dir_.path()),
                AllOf(Contains("chunk-0-1.safetensors"), Not(Contains("chunk-0-0.safetensors")),
                      Contains("chunk-1-0.safetensors")));
  }
  {
    Store store = open();
    EXPECT_EQ(content(store.snapshot()), model_.content());
    store.rollback("p3");
    model_.rollback("p3");
    EXPECT_EQ(content(store.snapshot()), model_.content());
    store.compact(0);  // also the chunk with a single kept row; erased slots stay over the base
    EXPECT_THAT(store.snapshot().free_slots(), ElementsAre(9, 21));
    EXPECT_EQ(store.snapshot().overridden_rows(), 2);
    EXPECT_EQ(content(store.snapshot()), model_.content());
    EXPECT_TRUE(store.compact(0).was_there);
  }
  EXPECT_EQ(reopened(), model_.content());
  const auto files = io::posix().list(dir_.path());
  EXPECT_EQ(std::ranges::count_if(files, [](const auto& name) { return name.starts_with("seg-"); }),
            1);
}

TEST_P(StoreTest, BeginsANewLogWhenOneIsFullAndLosesNothing) {
  StoreOptions small = options();
  small.log_bytes = 24 << 10;
  small.log_step_bytes = 4096;
  std::uint64_t version = 0;
  {
    Store store = Store::open(dir_.path(), small);
    for (int i = 1; i <= 40; ++i) {
      const Patch patch = pool_.patch(i, {i % 13, i % 13 + 15});
      version = store.apply(patch).version;
      model_.apply(patch);
      if (i % 3 == 0) {
        store.rollback("p" + std::to_string(i - 1));
        model_.rollback("p" + std::to_string(i - 1));
      }
      EXPECT_EQ(content(store.snapshot()), model_.content());
    }
    version = store.snapshot().version();
  }
  const Store store = Store::open(dir_.path(), small);
  EXPECT_EQ(content(store.snapshot()), model_.content());
  EXPECT_EQ(store.snapshot().version(), version);
  EXPECT_THAT(io::read_text(io::posix(), dir_ / "CURRENT"), Not(StartsWith("log-1 ")));
}

TEST_P(StoreTest, ReadsTheSameFromMemoryAsFromMappedFiles) {
  {
    Store store = open();
    store.apply(pool_.patch(1, {0, 17, 39}));
  }
  StoreOptions in_memory = options();
  in_memory.access = RowAccess::kMemory;
  const Store store = Store::open(dir_.path(), in_memory);
  for (const auto& name : io::posix().list(dir_.path())) io::posix().unlink(dir_ / name);
  model_.apply(pool_.patch(1, {0, 17, 39}));
  EXPECT_EQ(content(store.snapshot()), model_.content());
}

TEST_P(StoreTest, GivesRowsInPlaceAndInAnyOrder) {
  Store store = open();
  store.apply(pool_.patch(1, {0, 17}, {5}));
  const Snapshot snapshot = store.snapshot();
  const std::vector<std::int64_t> slots{17, 0, 38, 5, 17};
  Bytes out(100), wanted;
  for (const Bytes& row :
       {pool_.row(17, 1), pool_.row(0, 1), pool_.row(38, 0), Bytes(20), pool_.row(17, 1)}) {
    wanted.insert(wanted.end(), row.begin(), row.end());
  }
  snapshot.read_rows(slots, out);
  EXPECT_EQ(out, wanted);
  for (const std::int64_t slot : slots) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(snapshot.row(slot)) % 64, 0U);
  }
  expect_error([&] { snapshot.row(40); }, HasSubstr("inside [0, 40)"));
  expect_error([&] { snapshot.row(-1); }, HasSubstr("inside [0, 40)"));
  expect_error([&] { snapshot.read_rows(slots, std::span(out).first(99)); },
               HasSubstr("5 rows of 20"));
  expect_error([&] { snapshot.read(0, std::span(out).first(99)); }, HasSubstr("whole rows"));
  expect_error([&] { snapshot.read(38, out); }, HasSubstr("5 from row 38"));
  snapshot.verify();
}

TEST_P(StoreTest, GivesAPatchBackAsItWasApplied) {
  Patch patch = pool_.patch(1, {3, 30}, {8});
  patch.notes = {{"teaches", "the capital of Utopia"}};
  Store store = open();
  store.apply(patch);
  write_patch(dir_ / "patch.safetensors", store.snapshot().patch("p1"));
  const Patch back = read_patch(dir_ / "patch.safetensors");
  EXPECT_EQ(back.slots, patch.slots);
  EXPECT_EQ(back.rows, patch.rows);
  EXPECT_EQ(back.erased, patch.erased);
  EXPECT_EQ(back.notes, patch.notes);
  EXPECT_TRUE(store.apply(back).was_there);
  EXPECT_EQ(store.snapshot().patches()[0].notes, patch.notes);
  expect_error([&] { store.snapshot().patch("p2"); },
               HasSubstr("patch p2: expected a patch in this store"));
}

TEST_P(StoreTest, LetsManyThreadsEditAtOnce) {
  constexpr int kThreads = 8, kEdits = 12;
  {
    Store store = open();
    std::vector<std::jthread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < kEdits; ++i) {
          const Patch patch = pool_.patch(1 + t * kEdits + i, {t, t + 8});
          store.apply(patch);
          EXPECT_EQ(store.snapshot().writer_of(t), patch.id);  // acknowledged means visible
          if (i % 2 == 1) store.rollback("p" + std::to_string(t * kEdits + i));
        }
      });
    }
    threads.clear();
    EXPECT_EQ(store.snapshot().version(), std::uint64_t{kThreads} * kEdits * 3 / 2);
  }
  const Snapshot snapshot = open().snapshot();
  for (int t = 0; t < kThreads; ++t) {
    EXPECT_EQ(snapshot.writer_of(t), "p" + std::to_string((t + 1) * kEdits));
  }
  EXPECT_EQ(snapshot.patches().size(), std::size_t{kThreads} * kEdits / 2);
}

TEST_P(StoreTest, IsFollowedByReaders) {
  StoreReader reader = StoreReader::open(dir_.path(), options());
  EXPECT_EQ(content(reader.snapshot()), pool_.base());
  EXPECT_FALSE(reader.refresh());
  {
    StoreOptions small = options();
    small.log_bytes = 24 << 10;
    small.log_step_bytes = 4096;
    Store store = Store::open(dir_.path(), small);
    for (int i = 1; i <= 25; ++i) {
      store.apply(pool_.patch(i, {i % 5, i + 5}));
      if (i % 4 == 0) store.rollback("p" + std::to_string(i - 1));
      if (i % 10 == 0) store.keep("p" + std::to_string(i - 4)), store.compact(0.1);
      EXPECT_TRUE(reader.refresh());
      EXPECT_EQ(content(reader.snapshot()), content(store.snapshot()));
      EXPECT_EQ(reader.snapshot().version(), store.snapshot().version());
      EXPECT_FALSE(reader.refresh());
      EXPECT_EQ(content(StoreReader::open(dir_.path(), options()).snapshot()),
                content(store.snapshot()));
    }
  }
  const Bytes last = content(reader.snapshot());
  EXPECT_EQ(reopened(), last);
  EXPECT_FALSE(reader.refresh());
}

TEST(StoreOfQuantizedRows, TakesPatches) {
  const TempDir dir;
  const pool::PoolInfo info{kPoolId, 6, 40, RowType::kInt8, 0};
  const auto row_bytes = static_cast<std::size_t>(48 + 16);
  Bytes rows(6 * row_bytes);
  pool::write_chunk(io::posix(), dir / "chunk-0-0.safetensors", info, 0, rows);
  Store store = Store::open(dir.path());
  Patch patch{.id = "p", .pool = kPoolId, .width = 40, .row_dtype = RowType::kInt8};
  patch.slots = {2};
  patch.rows = Bytes(row_bytes, std::byte{1});
  store.apply(patch);
  std::ranges::fill(std::span(rows).subspan(2 * row_bytes, row_bytes), std::byte{1});
  EXPECT_EQ(content(store.snapshot()), rows);
}

TEST(StoreGrowth, AsksForRoomBeforeItWrites) {
  class Small : public memlayers::testing::FailingFileSystem {
   public:
    std::optional<std::uint64_t> free_bytes(const std::string&) override { return 1 << 20; }
  } small;
  const TempDir dir;
  SmallPool().write(io::posix(), dir.path());
  Store store = pool::open_store(small, dir.path());
  const auto none = [](std::int64_t, std::span<std::byte>) { FAIL() << "no row is wanted yet"; };
  expect_error([&] { store.grow(1 << 20, none); },
               AllOf(StartsWith(dir.path()), HasSubstr("expected room for 0.0 GB (67108864 bytes)"),
                     HasSubstr("got 0.0 GB (1048576 bytes)")));
  EXPECT_EQ(store.snapshot().rows(), 40);
  expect_error([&] { store.grow(std::int64_t{1} << 55, none); }, HasSubstr("below 2^60 bytes"));
}

TEST(PatchFiles, OfANewNameReplaceNothingAndLeaveOthersTemporaries) {
  const TempDir dir;
  const Patch patch = SmallPool().patch(1, {0, 1});
  memlayers::testing::write_file(dir / "p.tmp", "mine");
  write_new_patch(dir / "p", patch);
  EXPECT_EQ(read_patch(dir / "p").id, patch.id);
  expect_error([&] { write_new_patch(dir / "p", patch); }, HasSubstr("exists"));
  write_patch(dir / "p", SmallPool().patch(2, {0, 1}));
  EXPECT_EQ(read_patch(dir / "p").id, "p2");
  EXPECT_THAT(io::posix().list(dir.path()), ElementsAre("p", "p.tmp"));
  EXPECT_EQ(memlayers::testing::read_file(dir / "p.tmp"), "mine");
}

TEST(StoreOpen, NamesWhatIsMissing) {
  const TempDir dir;
  expect_error([&] { Store::open(dir / "none"); }, HasSubstr("expected the folder of a pool"));
  expect_error([&] { Store::open(dir.path()); }, HasSubstr("found none"));
}

}  // namespace
}  // namespace memlayers
