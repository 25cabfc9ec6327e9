// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>

#include "io/file_system.h"
#include "support/expect_error.h"
#include "support/store_testing.h"
#include "support/temp_dir.h"

namespace memlayers {
namespace {

using testing::Bytes;
using testing::content;
using ::testing::ElementsAre;
using testing::expect_error;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::SmallPool;
using testing::TempDir;

TEST(PatchDiff, TellsTheSlotsOfOneOfTheOtherAndOfBoth) {
  const SmallPool pool;
  const Patch first = pool.patch(1, {1, 3, 5, 9}, {20, 21});
  Patch second = pool.patch(2, {3, 5, 7, 21}, {20});
  std::copy_n(first.rows.begin() + 2 * pool.row_bytes(), pool.row_bytes(),
              second.rows.begin() + pool.row_bytes());  // slot 5
  const PatchDiff found = diff(first, second);
  EXPECT_THAT(found.only_first, ElementsAre(1, 9));
  EXPECT_THAT(found.only_second, ElementsAre(7));
  EXPECT_THAT(found.same, ElementsAre(5, 20));
  EXPECT_THAT(found.different, ElementsAre(3, 21)) << "21 is erased in one and a row in the other";
  const PatchDiff self = diff(first, first);
  EXPECT_THAT(self.different, IsEmpty());
  EXPECT_EQ(self.same.size(), 6U);
}

TEST(PatchMerge, DoesWhatApplyingOneAfterTheOtherDoes) {
  const SmallPool pool;
  TempDir together, apart;
  pool.write(io::posix(), together.path());
  pool.write(io::posix(), apart.path());
  std::vector<Patch> patches{pool.patch(1, {1, 3, 5}, {20, 21}), pool.patch(2, {3, 21}, {1}),
                             pool.patch(3, {5, 39})};
  patches[0].notes = {{"what", "first"}, {"from", "a"}};
  patches[2].notes = {{"what", "third"}};
  const Patch merged = merge(patches);
  EXPECT_EQ(merged.notes.at("what"), "third");
  EXPECT_EQ(merged.notes.at("from"), "a");
  EXPECT_EQ(merged.notes.at("merged"), "p1 p2 p3");
  Store one = Store::open(together.path()), many = Store::open(apart.path());
  one.apply(merged);
  for (const Patch& patch : patches) many.apply(patch);
  EXPECT_EQ(content(one.snapshot()), content(many.snapshot()));
  EXPECT_EQ(one.snapshot().free_slots(), many.snapshot().free_slots());
}

TEST(PatchMerge, PatchesThatDoNotBelongTogetherAreRefused) {
  const SmallPool pool;
  const Patch first = pool.patch(1, {1});
  Patch second = pool.patch(2, {2});
  second.pool = "another";
  expect_error([&] { diff(first, second); }, HasSubstr("got one for pool another"));
  expect_error([&] { merge(std::vector{first, second}); }, HasSubstr("patch p2: expected one for"));
  second = pool.patch(2, {2});
  second.row_dtype = RowType::kBFloat16;
  expect_error([&] { merge(std::vector{first, second}); }, HasSubstr("bfloat16"));
  second = pool.patch(2, {2});
  second.rows.pop_back();
  expect_error([&] { merge(std::vector{first, second}); }, HasSubstr("bytes for each of 1 slots"));
  expect_error([&] { merge({}); }, HasSubstr("at least one patch"));
}

}  // namespace
}  // namespace memlayers
