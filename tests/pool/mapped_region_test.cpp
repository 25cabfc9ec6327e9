// SPDX-License-Identifier: Apache-2.0
#include "pool/mapped_region.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cinttypes>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "support/expect_error.h"
#include "support/failing_file_system.h"
#include "support/temp_dir.h"
#include "support/testing.h"

namespace memlayers::pool {
namespace {

using memlayers::testing::expect_error;
using memlayers::testing::FailingFileSystem;
using memlayers::testing::Failure;
using memlayers::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;

// The line of flags that the system shows of the mapping in which an address lies.
std::string flags_of_mapping(const void* address) {
  const auto wanted = reinterpret_cast<std::uintptr_t>(address);
  std::ifstream file("/proc/self/smaps");
  bool is_inside = false;
  for (std::string line; std::getline(file, line);) {
    std::uintptr_t begin = 0, end = 0;
    if (std::sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR " ", &begin, &end) == 2) {
      is_inside = begin <= wanted && wanted < end;
    } else if (is_inside && line.starts_with("VmFlags:")) {
      return line;
    }
  }
  return {};
}

TEST(MappedRegion, IsZeroFilledAndWritable) {
  const MappedRegion region = MappedRegion::anonymous(10'000'001);
  ASSERT_EQ(region.bytes().size(), 10'000'001U);
  EXPECT_EQ(std::ranges::count(region.bytes(), std::byte{0}), 10'000'001);
  region.bytes().back() = std::byte{7};
  EXPECT_EQ(region.bytes()[10'000'000], std::byte{7});
}

// Rows of the same number in tables of one length would push each other out of the cache.
TEST(MappedRegion, BeginsElsewhereInAHugePageThanTheOneBefore) {
  constexpr std::ptrdiff_t kHugePage = 2 << 20;
  std::vector<MappedRegion> regions;
  regions.push_back(MappedRegion::anonymous(4 * kHugePage));
  for (int i = 0; i < 20; ++i) {
    regions.push_back(MappedRegion::anonymous(4 * kHugePage));
    const std::byte* const data = regions.back().bytes().data();
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(data) % 4096, 0U);
    EXPECT_NE((data - regions[i].bytes().data()) % kHugePage, 0) << i;
    EXPECT_EQ(std::ranges::count(regions.back().bytes(), std::byte{0}), 4 * kHugePage);
  }
}

TEST(MappedRegion, AsksForHugePages) {
  if (!std::filesystem::exists("/sys/kernel/mm/transparent_hugepage")) {
    GTEST_SKIP() << "a system without huge pages";
  }
  const MappedRegion region = MappedRegion::anonymous(8 << 20);
  EXPECT_THAT(flags_of_mapping(&region.bytes().front()), HasSubstr(" hg"));
  EXPECT_THAT(flags_of_mapping(&region.bytes().back()), HasSubstr(" hg"));
}

TEST(MappedRegion, TakesMemoryForWhatIsWrittenAlone) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "the sanitizer takes memory beside all that is written";
#endif
  // Huge pages written in part, and what the system counts late.
  constexpr std::int64_t kWritten = 64 << 20, kMore = 8 << 20;
  const std::int64_t before = testing::resident_bytes();
  const MappedRegion region = MappedRegion::anonymous(4 * kWritten);
  EXPECT_LE(testing::resident_bytes() - before, kMore) << "nothing is written yet";
  for (std::size_t at = 0; at < kWritten; at += 4096) region.bytes()[at] = std::byte{1};
  const std::int64_t taken = testing::resident_bytes() - before;
  EXPECT_GE(taken, kWritten - kMore);
  EXPECT_LE(taken, kWritten + kMore);
}

TEST(MappedRegion, OfNoBytesIsEmpty) { EXPECT_TRUE(MappedRegion::anonymous(0).bytes().empty()); }

// bench/peers/run.py leaves out what does not fit, and knows it by these words.
TEST(MappedRegion, OfMoreThanThereIsSaysSo) {
  expect_error([] { MappedRegion::anonymous(std::size_t{1} << 50); },
               AllOf(HasSubstr("1125899906842624 bytes of free memory"),
                     HasSubstr("Cannot allocate memory")));
}

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

TEST(MappedRegion, InAScratchFileHasAllItsBytesWhereItBeginsLater) {
  const TempDir dir;
  constexpr std::size_t kBytes = (4 << 20) + 5;
  const MappedRegion first = MappedRegion::scratch(io::posix(), dir.path(), kBytes);
  const MappedRegion second = MappedRegion::scratch(io::posix(), dir.path(), kBytes);
  for (const MappedRegion* region : {&first, &second}) {
    ASSERT_EQ(region->bytes().size(), kBytes);
    EXPECT_EQ(std::ranges::count(region->bytes(), std::byte{0}), kBytes);
    region->bytes().front() = region->bytes().back() = std::byte{7};
    region->write_back();
  }
}

TEST(MappedRegion, InAScratchFilePassesOnWhatTheFileSystemSays) {
  const TempDir dir;
  FailingFileSystem full(1, Failure::kDiskFull);
  expect_error([&] { MappedRegion::scratch(full, dir.path(), 100); }, HasSubstr(dir.path()));
}

}  // namespace
}  // namespace memlayers::pool
