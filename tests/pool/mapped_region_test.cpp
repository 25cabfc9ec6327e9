// SPDX-License-Identifier: Apache-2.0
#include "pool/mapped_region.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "support/expect_error.h"
#include "support/failing_file_system.h"
#include "support/temp_dir.h"

namespace memlayers::pool {
namespace {

using memlayers::testing::expect_error;
using memlayers::testing::FailingFileSystem;
using memlayers::testing::Failure;
using memlayers::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(MappedRegion, IsZeroFilledAndWritable) {
  const MappedRegion region = MappedRegion::anonymous(10'000'001);
  ASSERT_EQ(region.bytes().size(), 10'000'001U);
  EXPECT_EQ(std::ranges::count(region.bytes(), std::byte{0}), 10'000'001);
  region.bytes().back() = std::byte{7};
  EXPECT_EQ(region.bytes()[10'000'000], std::byte{7});
}

TEST(MappedRegion, OfNoBytesIsEmpty) { EXPECT_TRUE(MappedRegion::anonymous(0).bytes().empty()); }

TEST(MappedRegion, MovesItsBytes) {
  MappedRegion first = MappedRegion::anonymous(100);
  std::byte* const data = first.bytes().data();
  data[3] = std::byte{3};
  MappedRegion second(std::move(first));
  EXPECT_EQ(second.bytes().data(), data);
  MappedRegion third = MappedRegion::anonymous(5);
  third = std::move(second);
  EXPECT_EQ(third.bytes().data(), data);
  EXPECT_EQ(third.bytes()[3], std::byte{3});
}

TEST(MappedRegion, SaysHowMuchMemoryLacks) {
  expect_error([] { MappedRegion::anonymous(std::size_t{1} << 60); },
               AllOf(HasSubstr("1152921504606846976 bytes"), HasSubstr("Cannot allocate memory")));
}

TEST(MappedRegion, InAScratchFileIsZeroFilledWritableAndMoves) {
  const TempDir dir;
  MappedRegion region = MappedRegion::scratch(io::posix(), dir.path(), 1'000'001);
  ASSERT_EQ(region.bytes().size(), 1'000'001U);
  EXPECT_EQ(std::ranges::count(region.bytes(), std::byte{0}), 1'000'001);
  region.bytes().back() = std::byte{7};
  const MappedRegion moved(std::move(region));
  EXPECT_EQ(moved.bytes()[1'000'000], std::byte{7});
  EXPECT_TRUE(MappedRegion::scratch(io::posix(), dir.path(), 0).bytes().empty());
}

TEST(MappedRegion, InAScratchFilePassesOnWhatTheFileSystemSays) {
  const TempDir dir;
  FailingFileSystem full(1, Failure::kDiskFull);
  expect_error([&] { MappedRegion::scratch(full, dir.path(), 100); }, HasSubstr(dir.path()));
}

}  // namespace
}  // namespace memlayers::pool
