// SPDX-License-Identifier: Apache-2.0
// Readers and a writer at once. Run under ThreadSanitizer too.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "memlayers/store.h"
#include "support/store_testing.h"
#include "support/temp_dir.h"

namespace memlayers {
namespace {

using memlayers::testing::small_options;
using memlayers::testing::SmallPool;
using memlayers::testing::soaked;
using memlayers::testing::TempDir;

constexpr std::int64_t kWritten = 12;  // slots [0, kWritten) are always written together

// The writer of a row, 0 for the base; -1 for a row that nobody wrote like that.
int writer_of(const SmallPool& pool, const std::byte* row, std::int64_t slot) {
  std::vector<float> numbers(static_cast<std::size_t>(pool.width));
  std::memcpy(numbers.data(), row, static_cast<std::size_t>(pool.row_bytes()));
  for (const float number : numbers) {
    if (number != numbers[0]) return -1;
  }
  const auto value = static_cast<std::int64_t>(std::lround(numbers[0]));
  return value % 1000 == slot ? static_cast<int>(value / 1000) : -1;
}

// Reads until told to stop; counts what is wrong.
template <class NextSnapshot>
void read_on(const SmallPool& pool, const std::atomic<bool>& is_over, std::atomic<int>& wrong,
             std::atomic<int>& seen, const NextSnapshot& next_snapshot) {
  std::vector<std::int64_t> slots;
  for (std::int64_t slot = 0; slot < pool.rows; ++slot) slots.push_back(slot);
  std::vector<std::byte> rows(static_cast<std::size_t>(pool.rows * pool.row_bytes()));
  std::uint64_t last = 0;
  while (!is_over) {
    const Snapshot snapshot = next_snapshot();
    snapshot.read_rows(slots, rows);
    const int first = writer_of(pool, rows.data(), 0);
    for (const std::int64_t slot : slots) {
      const int writer = writer_of(pool, rows.data() + slot * pool.row_bytes(), slot);
      if (writer != (slot < kWritten ? first : 0)) ++wrong;
    }
    if (snapshot.version() < last) ++wrong;  // time goes on
    if (snapshot.version() > last) ++seen;
    last = snapshot.version();
  }
}

TEST(StoreThreads, SeeNoTornOrMixedRowsWhileAWriterAppliesAndRollsBack) {
  const TempDir dir;
  const SmallPool pool;
  pool.write(io::posix(), dir.path());
  std::atomic<bool> is_over = false;
  std::atomic<int> wrong = 0, seen = 0;
  {
    Store store = Store::open(dir.path(), small_options());
    std::vector<std::jthread> readers;
    for (int i = 0; i < 8; ++i) {
      readers.emplace_back(
          [&] { read_on(pool, is_over, wrong, seen, [&] { return store.snapshot(); }); });
    }
    readers.emplace_back([&] {  // as another process would
      StoreReader reader = StoreReader::open(dir.path(), small_options());
      read_on(pool, is_over, wrong, seen, [&] {
        reader.refresh();
        return reader.snapshot();
      });
    });
    std::vector<std::int64_t> slots;
    for (std::int64_t slot = 0; slot < kWritten; ++slot) slots.push_back(slot);
    try {
      for (int i = 1; i <= soaked(150, 5000); ++i) {
        const std::string id = "p" + std::to_string(i);
        store.apply(pool.patch(i, slots));
        if (i % 3 == 0) store.rollback(id);
        if (i % 6 == 0) store.reapply(id);
        if (i % 40 == 1 && i % 3 != 0) {
          store.keep(id);
          store.compact(0.1);
        }
      }
    } catch (const Error& error) {
      ADD_FAILURE() << error.what();  // and let the readers end
    }
    is_over = true;
    readers.clear();
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(seen, 50);
}

}  // namespace
}  // namespace memlayers
