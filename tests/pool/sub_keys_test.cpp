// SPDX-License-Identifier: Apache-2.0
// Patches that write sub-keys. What is no matter of sub-keys alone (power losses, faults, kills) is
// shown by the other tests of the store, whose edits write some too.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "io/safetensors.h"
#include "memlayers/store.h"
#include "pool/rows_file.h"
#include "support/expect_error.h"
#include "support/store_testing.h"
#include "support/temp_dir.h"

namespace memlayers {
namespace {

using memlayers::testing::content;
using memlayers::testing::expect_error;
using memlayers::testing::kSmallGrid;
using memlayers::testing::ModelStore;
using memlayers::testing::SmallPool;
using memlayers::testing::TempDir;
using memlayers::testing::with_sub_keys;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

constexpr SubKeyPlace kOne{1, 0, 0, 2}, kTwo{1, 1, 1, 3}, kThree{3, 0, 1, 0};

// Once with patches in the log and once in segments.
class SubKeysOfPatches : public ::testing::TestWithParam<bool> {
 protected:
  SubKeysOfPatches() { pool_.write(io::posix(), dir_.path()); }
  static StoreOptions options() {
    StoreOptions options;
    options.log_step_bytes = 16 << 10;
    options.sub_keys = kSmallGrid;
    if (GetParam()) options.inline_bytes = 0;
    return options;
  }
  Store open() const { return Store::open(dir_.path(), options()); }
  Patch patch(int writer, std::vector<SubKeyPlace> places,
              std::vector<std::int64_t> slots = {}) const {
    return with_sub_keys(pool_.patch(writer, std::move(slots)), writer, std::move(places));
  }

  TempDir dir_;
  SmallPool pool_;
  ModelStore model_{pool_.base(), pool_.row_bytes()};
};
INSTANTIATE_TEST_SUITE_P(Keys, SubKeysOfPatches, ::testing::Bool(), [](const auto& test) {
  return std::string(test.param ? "InSegments" : "InTheLog");
});

TEST_P(SubKeysOfPatches, AreAppliedRolledBackAndAppliedAgainAsRowsAre) {
  const std::vector<Patch> patches{patch(1, {kOne, kThree}), patch(2, {kOne, kTwo}, {3, 4}),
                                   patch(3, {kTwo}, {4}), pool_.patch(4, {5})};
  {
    Store store = open();
    for (const Patch& patch : patches) {
      store.apply(patch);
      model_.apply(patch);
      EXPECT_EQ(content(store.snapshot()), model_.content());
      EXPECT_TRUE(store.apply(patch).was_there);
    }
    store.rollback("p2");  // from the middle
    model_.rollback("p2");
    EXPECT_EQ(content(store.snapshot()), model_.content());
    EXPECT_THAT(store.snapshot().sub_keys()->places, ElementsAre(kOne, kTwo, kThree));
  }
  Store store = open();
  EXPECT_EQ(content(store.snapshot()), model_.content());
  store.reapply("p2");  // on top
  model_.apply(patches[1]);
  EXPECT_EQ(content(store.snapshot()), model_.content());
  EXPECT_EQ(content(StoreReader::open(dir_.path(), options()).snapshot()), model_.content());
  EXPECT_EQ(store.snapshot().writer_of(kTwo), "p2");
  EXPECT_EQ(store.snapshot().writer_of(SubKeyPlace{1, 0, 0, 0}), std::nullopt);
  EXPECT_EQ(store.snapshot().patches()[0].sub_keys, 2);
  EXPECT_EQ(store.snapshot().patch("p2").sub_keys, patches[1].sub_keys);
  for (const Patch& patch : patches) store.rollback(patch.id);
  EXPECT_EQ(store.snapshot().sub_keys(), nullptr);
  EXPECT_EQ(content(store.snapshot()), pool_.base());
}

TEST_P(SubKeysOfPatches, OfASnapshotNeverChangeAndAreSharedWhereNoneWasEdited) {
  Store store = open();
  store.apply(patch(1, {kOne}));
  const Snapshot first = store.snapshot();
  store.apply(pool_.patch(2, {7}));
  EXPECT_EQ(store.snapshot().sub_keys(), first.sub_keys());
  const auto before = *first.sub_keys();
  store.apply(patch(3, {kOne}));
  EXPECT_NE(store.snapshot().sub_keys(), first.sub_keys());
  EXPECT_EQ(*first.sub_keys(), before);
}

TEST_P(SubKeysOfPatches, ThatTwoPatchesWriteAreReportedAndTheLastWins) {
  Store store = open();
  EXPECT_THAT(store.apply(patch(1, {kOne, kTwo})).sub_key_conflicts, IsEmpty());
  const Committed second = store.apply(patch(2, {kTwo, kThree}));
  EXPECT_THAT(second.sub_key_conflicts, ElementsAre(SubKeyConflict{kTwo, "p1", "p2"}));
  EXPECT_THAT(second.conflicts, IsEmpty());
  EXPECT_EQ(store.snapshot().writer_of(kTwo), "p2");
}

TEST_P(SubKeysOfPatches, OutliveCompactionAndAreThenKeptForGood) {
  {
    Store store = open();
    for (const Patch& one : {patch(1, {kOne, kTwo}, {0}), patch(2, {kTwo}), patch(3, {kThree})}) {
      store.apply(one);
      model_.apply(one);
    }
    store.keep("p2");
    EXPECT_FALSE(store.compact(0.01).was_there);
    EXPECT_EQ(content(store.snapshot()), model_.content());
    EXPECT_EQ(store.snapshot().writer_of(kTwo), std::nullopt);
    EXPECT_THAT(store.snapshot().patches(), SizeIs(1));
    store.rollback("p3");
    model_.rollback("p3");
    store.compact();  // folds what was folded once more
    EXPECT_EQ(content(store.snapshot()), model_.content());
  }
  EXPECT_EQ(content(open().snapshot()), model_.content());
}

TEST_P(SubKeysOfPatches, ThatTheModelDoesNotHaveAreRefusedAndChangeNothing) {
  Store store = open();
  const auto refused = [&](const std::function<void(Patch&)>& change, const char* why) {
    Patch wrong = patch(1, {kOne, kTwo}, {3});
    change(wrong);
    expect_error([&] { store.apply(wrong); }, AllOf(StartsWith("patch p1: "), HasSubstr(why)));
  };
  refused([](Patch& p) { p.sub_keys.places[1].layer = 2; }, "got sub-key 3 of layer 2, head 1");
  refused([](Patch& p) { p.sub_keys.places[1].head = 2; }, "4 in each half of 2 heads");
  refused([](Patch& p) { p.sub_keys.places[1].index = 4; }, "got sub-key 4 of layer 1");
  refused([](Patch& p) { p.sub_keys.places[1].half = 2; }, "half 0 or 1");
  refused([](Patch& p) { p.sub_keys.places[0].index = -1; }, "numbers >= 0");
  refused([](Patch& p) { p.sub_keys.places[1] = p.sub_keys.places[0]; }, "each sub-key once");
  refused([](Patch& p) { std::swap(p.sub_keys.places[0], p.sub_keys.places[1]); }, "ascending");
  refused([](Patch& p) { p.sub_keys.numbers[4] = std::numeric_limits<float>::quiet_NaN(); },
          "NaN or infinity in sub-key 3 of layer 1, head 1, half 1");
  refused([](Patch& p) { p.sub_keys.numbers.pop_back(); }, "expected 3 numbers for each of 2");
  refused(
      [](Patch& p) {
        p.sub_keys.width = 2;
        p.sub_keys.numbers.resize(4);
      },
      "expected sub-keys of 3 numbers, the model's k_dim / 2, got 2");
  EXPECT_EQ(content(store.snapshot()), pool_.base());
  EXPECT_EQ(store.snapshot().version(), 0U);
}

TEST_P(SubKeysOfPatches, NeedAStoreThatKnowsTheModelToBeAppliedAndNothingElse) {
  open().apply(patch(1, {kOne}));
  StoreOptions unknown = options();
  unknown.sub_keys.reset();
  Store store = Store::open(dir_.path(), unknown);
  expect_error([&] { store.apply(patch(2, {kTwo})); }, HasSubstr("StoreOptions::sub_keys"));
  EXPECT_THAT(store.snapshot().sub_keys()->places, ElementsAre(kOne));
  store.rollback("p1");
  store.reapply("p1");
  EXPECT_EQ(store.snapshot().patch("p1").sub_keys, patch(1, {kOne}).sub_keys);
}

TEST_P(SubKeysOfPatches, ThatDoNotFitTheModelAreNotOpened) {
  open().apply(patch(1, {kThree}));
  StoreOptions other = options();
  other.sub_keys->layers = {1};
  expect_error([&] { StoreReader::open(dir_.path(), other); },
               AllOf(HasSubstr("patch p1"), HasSubstr("of layers 1)")));
}

TEST_P(SubKeysOfPatches, AreNothingThatAnOlderReaderPassesOver) {
  const Patch without = pool_.patch(1, {3}), with = patch(2, {kOne}, {3});
  write_patch(dir_ / "without", without);
  write_patch(dir_ / "with", with);
  const auto version = [&](const char* name) {
    return io::SafetensorsFile::open(io::posix(), dir_ / name).metadata().at("version");
  };
  EXPECT_EQ(version("without"), "1");
  EXPECT_EQ(version("with"), "2");
  Store store = open();
  store.apply(without);
  const auto segments = [&] {
    std::vector<std::string> names = io::posix().list(dir_.path());
    std::erase_if(names, [](const std::string& name) { return !name.starts_with("seg-"); });
    return names;
  };
  for (const std::string& name : segments()) {
    EXPECT_NO_THROW(pool::RowsFile::open(io::posix(), dir_ / name, "memlayers-segment"));
  }
  const std::string log = io::read_text(io::posix(), dir_ / "log-1");
  EXPECT_EQ(log.find("sub_keys"), std::string::npos);
  const auto before = segments();
  store.apply(with);
  for (const std::string& name : segments()) {
    if (std::ranges::find(before, name) != before.end()) continue;
    expect_error([&] { pool::RowsFile::open(io::posix(), dir_ / name, "memlayers-segment"); },
                 HasSubstr("expected features 0"));
  }
}

TEST(SubKeysInFiles, ComeBackFromAPatchInTheOrderOfTheirPlaces) {
  const TempDir dir;
  Patch patch = with_sub_keys(SmallPool().patch(1, {}), 1, {kOne, kTwo, kThree});
  write_patch(dir / "p", patch);
  EXPECT_EQ(read_patch(dir / "p").sub_keys, patch.sub_keys);
  Patch other = patch;
  std::swap(other.sub_keys.places[0], other.sub_keys.places[2]);
  for (std::size_t i = 0; i < 3; ++i) {
    std::swap(other.sub_keys.numbers[i], other.sub_keys.numbers[6 + i]);
  }
  std::map<std::string, std::string> metadata =
      io::SafetensorsFile::open(io::posix(), dir / "p").metadata();
  const auto write = [&](const std::string& name, io::ElementType type, std::int64_t columns) {
    io::write_safetensors(
        io::posix(), dir / name,
        {{"slots", io::ElementType::kI64, {0}, {}},
         {"rows", io::ElementType::kF32, {0, 5}, {}},
         {"keys", io::ElementType::kF32, {3, 3}, std::as_bytes(std::span(other.sub_keys.numbers))},
         {"key_places",
          type,
          {96 / columns / 8, columns},
          std::as_bytes(std::span(other.sub_keys.places))}},
        metadata);
  };
  write("q", io::ElementType::kI64, 4);
  EXPECT_EQ(read_patch(dir / "q").sub_keys, patch.sub_keys);
  write("r", io::ElementType::kU64, 4);
  write("s", io::ElementType::kI64, 3);
  for (const char* name : {"r", "s"}) {
    expect_error([&] { read_patch(dir / name); }, HasSubstr("expected I64 [m, 4]"));
  }
}

TEST(SubKeysInFiles, OfTwoPatchesAreToldApartAndMerged) {
  const SmallPool pool;
  Patch first = with_sub_keys(pool.patch(1, {3}), 1, {kOne, kTwo});
  const Patch second = with_sub_keys(pool.patch(2, {}), 2, {kTwo, kThree});
  const PatchDiff found = diff(first, second);
  EXPECT_THAT(found.only_first, ElementsAre(3));
  EXPECT_THAT(found.sub_keys.only_first, ElementsAre(kOne));
  EXPECT_THAT(found.sub_keys.only_second, ElementsAre(kThree));
  EXPECT_THAT(found.sub_keys.different, ElementsAre(kTwo));
  EXPECT_THAT(diff(first, first).sub_keys.same, ElementsAre(kOne, kTwo));
  const Patch merged = merge(std::vector{first, second});
  EXPECT_THAT(merged.sub_keys.places, ElementsAre(kOne, kTwo, kThree));
  EXPECT_EQ(std::vector(merged.sub_keys.numbers.begin() + 3, merged.sub_keys.numbers.end()),
            second.sub_keys.numbers);
  EXPECT_THAT(merged.slots, ElementsAre(3));
  first.sub_keys = {.width = 1, .places = {kOne}, .numbers = {1}};
  expect_error([&] { merge(std::vector{first, second}); }, HasSubstr("expected sub-keys of 1"));
}

}  // namespace
}  // namespace memlayers
