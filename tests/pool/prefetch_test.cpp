// SPDX-License-Identifier: Apache-2.0
#include "pool/prefetch.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <set>
#include <thread>
#include <vector>

#include "io/file_system.h"
#include "support/temp_dir.h"

namespace memlayers::pool {
namespace {

using memlayers::testing::TempDir;

const std::int64_t kPage = ::sysconf(_SC_PAGESIZE);

// A file of whole pages, mapped, of which the system holds nothing in memory, where it can be
// talked into that.
class ColdFile {
 public:
  explicit ColdFile(std::int64_t pages) : pages_(pages) {
    const std::string path = dir_ / "rows";
    {
      const auto file = io::posix().open(path, io::OpenMode::kCreate);
      const std::vector<std::byte> page(static_cast<std::size_t>(kPage), std::byte{1});
      for (std::int64_t i = 0; i < pages; ++i) {
        file->pwrite(page, static_cast<std::uint64_t>(i * kPage));
      }
      file->sync();
    }
    const int descriptor = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
    data_ = ::mmap(nullptr, size(), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    ::close(descriptor);
    if (data_ != MAP_FAILED) ::madvise(data_, size(), MADV_RANDOM);
  }
  ~ColdFile() {
    if (data_ != MAP_FAILED) ::munmap(data_, size());
  }
  ColdFile(const ColdFile&) = delete;
  ColdFile& operator=(const ColdFile&) = delete;

  std::span<const std::byte> bytes() const {
    return {static_cast<const std::byte*>(data_), size()};
  }
  std::set<std::int64_t> in_memory() const {
    std::vector<unsigned char> state(static_cast<std::size_t>(pages_));
    EXPECT_EQ(::mincore(data_, size(), state.data()), 0);
    std::set<std::int64_t> pages;
    for (std::int64_t i = 0; i < pages_; ++i) {
      if ((state[static_cast<std::size_t>(i)] & 1) != 0) pages.insert(i);
    }
    return pages;
  }
  // What is in memory after `ask`. Waits for the disk, which need not hurry. Asks again every
  // second: it is a wish, of which a system short of memory leaves some out.
  std::set<std::int64_t> in_memory_after(const std::set<std::int64_t>& wanted,
                                         const std::function<void()>& ask) const {
    for (int i = 0; i < 1000; ++i) {
      if (i % 100 == 0) ask();
      if (std::ranges::includes(in_memory(), wanted)) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return in_memory();
  }

 private:
  std::size_t size() const { return static_cast<std::size_t>(pages_ * kPage); }
  TempDir dir_;
  std::int64_t pages_;
  void* data_;
};

TEST(Prefetch, BringsThePagesOfTheRowsAndNoOthers) {
  const ColdFile file(8000);
  if (!file.in_memory().empty()) GTEST_SKIP() << "the disk of the temporary folder is memory";
  // Rows of three quarters of a page: the second and third of each four lie across two pages.
  const std::vector<std::int64_t> slots{9, 4001, 9, 1, 8, 4000, 10'000};
  const std::set<std::int64_t> wanted{0, 1, 6, 7, 3000, 3001, 7500};
  const auto ask = [&] { prefetch_rows(file.bytes(), kPage * 3 / 4, slots); };
  EXPECT_EQ(file.in_memory_after(wanted, ask), wanted);
}

TEST(Prefetch, TakesMoreRowsThanOneCallOfTheSystem) {
  const ColdFile file(8000);
  if (!file.in_memory().empty()) GTEST_SKIP() << "the disk of the temporary folder is memory";
  std::vector<std::int64_t> slots;
  std::set<std::int64_t> wanted;
  for (std::int64_t page = 0; page < 8000; page += 3) {
    slots.push_back(page);
    wanted.insert(page);
  }
  const auto ask = [&] { prefetch_rows(file.bytes(), kPage, slots); };
  EXPECT_EQ(file.in_memory_after(wanted, ask), wanted);
}

TEST(Prefetch, BringsNeighbouringBytes) {
  const ColdFile file(100);
  if (!file.in_memory().empty()) GTEST_SKIP() << "the disk of the temporary folder is memory";
  const auto page = static_cast<std::size_t>(kPage);
  const std::set<std::int64_t> wanted{2, 3, 4};
  const auto ask = [&] { prefetch(file.bytes().subspan(3 * page - 1, 2 * page)); };
  EXPECT_EQ(file.in_memory_after(wanted, ask), wanted);
}

TEST(Prefetch, BringsAllOfManyNeighbouringBytes) {
  const ColdFile file(8000);  // more than the system reads of one range
  if (!file.in_memory().empty()) GTEST_SKIP() << "the disk of the temporary folder is memory";
  std::set<std::int64_t> wanted;
  for (std::int64_t page = 0; page < 8000; ++page) wanted.insert(page);
  const auto ask = [&] { prefetch(file.bytes()); };
  EXPECT_EQ(file.in_memory_after(wanted, ask), wanted);
}

TEST(Prefetch, BringsAllOfManyNeighbouringRows) {
  const ColdFile file(8000);
  if (!file.in_memory().empty()) GTEST_SKIP() << "the disk of the temporary folder is memory";
  std::vector<std::int64_t> slots;  // of three quarters of a page: pages 750 to 6000
  for (std::int64_t slot = 1000; slot < 8001; ++slot) slots.push_back(slot);
  std::set<std::int64_t> wanted;
  for (std::int64_t page = 750; page < 6001; ++page) wanted.insert(page);
  const auto ask = [&] { prefetch_rows(file.bytes(), kPage * 3 / 4, slots); };
  EXPECT_EQ(file.in_memory_after(wanted, ask), wanted);
}

TEST(Prefetch, TakesNothingAndMemoryThatIsNoFile) {
  std::vector<std::byte> rows(1000, std::byte{3});
  prefetch_rows(rows, 10, {});
  prefetch({});
  prefetch_rows(rows, 10, std::vector<std::int64_t>{0, 99, 5});
  prefetch(rows);
  EXPECT_EQ(std::ranges::count(rows, std::byte{3}), 1000);
}

TEST(Prefetch, CountsThePagesOfARow) {
  EXPECT_EQ(prefetched_bytes(1), kPage);
  EXPECT_EQ(prefetched_bytes(kPage / 4), kPage);
  EXPECT_EQ(prefetched_bytes(kPage * 3 / 4), 2 * kPage);
  EXPECT_EQ(prefetched_bytes(kPage), kPage);
  EXPECT_EQ(prefetched_bytes(2 * kPage), 2 * kPage);
  EXPECT_EQ(prefetched_bytes(kPage + 8), 3 * kPage);
}

}  // namespace
}  // namespace memlayers::pool
