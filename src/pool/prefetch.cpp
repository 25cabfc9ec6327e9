// SPDX-License-Identifier: Apache-2.0
#include "pool/prefetch.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace memlayers::pool {
namespace {

std::uintptr_t page_bytes() {
  static const auto bytes = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  return bytes;
}

// Linux reads of one advised range no more than its read-ahead of the disk, 128 KiB where nobody
// set another, and forgets the rest.
constexpr std::uintptr_t kMostAdvised = 128 << 10;

// Whole pages, ascending, none twice, at most kMostAdvised a range.
class PageRanges {
 public:
  void add(std::uintptr_t begin, std::uintptr_t end) {
    begin -= begin % page_bytes();
    end += (page_bytes() - end % page_bytes()) % page_bytes();
    if (!ranges_.empty()) {
      if (end <= last_end_) return;
      if (begin <= last_end_) {  // goes on where the last range ends
        iovec& last = ranges_.back();
        const std::uintptr_t more = std::min(end - last_end_, kMostAdvised - last.iov_len);
        last.iov_len += more;
        begin = last_end_ + more;
      }
    }
    for (; begin < end; begin += kMostAdvised) {
      // NOLINTNEXTLINE(performance-no-int-to-ptr): a system call wants the address
      ranges_.push_back({reinterpret_cast<void*>(begin), std::min(end - begin, kMostAdvised)});
    }
    last_end_ = end;
  }
  std::span<iovec> ranges() { return ranges_; }

 private:
  std::vector<iovec> ranges_;
  std::uintptr_t last_end_ = 0;
};

// Advises as many ranges as one call of the kernel takes (5.10 and later know it; pidfd_open is of
// 5.3). Returns how many were done: 0 where the kernel has no such call.
std::size_t advise_together(int self, std::span<iovec> ranges) {
#if defined(SYS_process_madvise)
  constexpr std::size_t kMostRanges = 1024;  // UIO_MAXIOV
  const std::size_t count = std::min(kMostRanges, ranges.size());
  const auto done = ::syscall(SYS_process_madvise, self, ranges.data(), count, MADV_WILLNEED, 0U);
  return done > 0 ? count : 0;  // what an error in the middle left out is no loss
#else
  (void)self, (void)ranges;
  return 0;
#endif
}

int open_self() {
#if defined(SYS_pidfd_open)
  // Not kept: in a child after fork() it would still mean the parent.
  return static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0U));
#else
  return -1;
#endif
}

void will_need(std::span<iovec> ranges) {
  if (ranges.size() > 1) {
    const int self = open_self();
    while (self >= 0 && !ranges.empty()) {
      const std::size_t done = advise_together(self, ranges);
      if (done == 0) break;
      ranges = ranges.subspan(done);
    }
    if (self >= 0) ::close(self);
  }
  for (const iovec& range : ranges) ::madvise(range.iov_base, range.iov_len, MADV_WILLNEED);
}

}  // namespace

void prefetch_rows(std::span<const std::byte> table, std::int64_t row_bytes,
                   std::span<const std::int64_t> slots) {
  std::vector<std::int64_t> sorted(slots.begin(), slots.end());
  std::sort(sorted.begin(), sorted.end());
  PageRanges pages;
  for (const std::int64_t slot : sorted) {
    const auto begin = reinterpret_cast<std::uintptr_t>(table.data() + slot * row_bytes);
    pages.add(begin, begin + static_cast<std::uintptr_t>(row_bytes));
  }
  will_need(pages.ranges());
}

void prefetch(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  PageRanges pages;
  const auto begin = reinterpret_cast<std::uintptr_t>(bytes.data());
  pages.add(begin, begin + bytes.size());
  will_need(pages.ranges());
}

std::int64_t prefetched_bytes(std::int64_t row_bytes) {
  const auto page = static_cast<std::int64_t>(page_bytes());
  const std::int64_t aligned = (row_bytes + page - 1) / page * page;
  // Rows that neither divide a page nor fill whole ones may lie across one more.
  return row_bytes % page == 0 || page % row_bytes == 0 ? aligned : aligned + page;
}

}  // namespace memlayers::pool
