// SPDX-License-Identifier: Apache-2.0
#include "bench/read_kernels.h"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__)
#define MEMLAYERS_EACH_WIDTH __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define MEMLAYERS_EACH_WIDTH
#endif

namespace memlayers::bench {
namespace {

// As wide as the widest; the compiler cuts it where the processor has less.
using Words = std::uint64_t __attribute__((vector_size(64)));
constexpr std::int64_t kLine = sizeof(Words);
constexpr std::int64_t kLines = 4;  // of a block: independent sums, so that no load waits
constexpr std::int64_t kBlock = kLines * kLine;
constexpr std::int64_t kMostAbreast = 16;

// By force, for to g++ what does nothing but prefetch has no effect: it leaves out a call.
[[gnu::always_inline]] inline void ask_to_write(const std::byte* line, const RowUpdatePlan& plan) {
  if (plan.to_second_level) {
    __builtin_prefetch(line, 0, 2);
  } else {
    __builtin_prefetch(line, 1);
  }
}

[[gnu::always_inline]] inline void ask_for(const std::byte* line, const RowPlan& plan) {
  if (plan.to_second_level) {
    __builtin_prefetch(line, 0, 2);
  } else {
    __builtin_prefetch(line);
  }
}

}  // namespace

// The bodies are written out, without helpers that have vectors: a function of another target would
// not be compiled anew for the clones.

MEMLAYERS_EACH_WIDTH
std::uint64_t read_stream(const std::byte* data, std::int64_t bytes, StreamPlan plan) {
  Words sums[kLines] = {};
  const std::int64_t part = bytes / plan.streams / kBlock * kBlock;
  for (std::int64_t at = 0; at < part; at += kBlock) {
    for (std::int64_t stream = 0; stream < plan.streams; ++stream) {
      const std::byte* block = data + stream * part + at;
      for (int i = 0; i < kLines; ++i) {
        if (plan.ahead > 0) __builtin_prefetch(block + plan.ahead + i * kLine);
        Words words;
        std::memcpy(&words, block + i * kLine, kLine);
        sums[i] += words;
      }
    }
  }
  const Words sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  std::uint64_t total = 0;
  for (int i = 0; i < 8; ++i) total += sum[i];
  return total;
}

MEMLAYERS_EACH_WIDTH
void update_stream(std::byte* data, std::int64_t bytes, StreamPlan plan) {
  const std::int64_t part = bytes / plan.streams / kBlock * kBlock;
  for (std::int64_t at = 0; at < part; at += kBlock) {
    for (std::int64_t stream = 0; stream < plan.streams; ++stream) {
      std::byte* block = data + stream * part + at;
      for (int i = 0; i < kLines; ++i) {
        if (plan.ahead > 0) __builtin_prefetch(block + plan.ahead + i * kLine, 1);
        Words words;
        std::memcpy(&words, block + i * kLine, kLine);
        words += 1;
        std::memcpy(block + i * kLine, &words, kLine);
      }
    }
  }
}

MEMLAYERS_EACH_WIDTH
std::uint64_t read_rows(const std::byte* rows, std::int64_t row_bytes, const std::int64_t* slots,
                        std::int64_t count, RowPlan plan) {
  Words sums[kLines] = {};
  std::uint64_t total = 0;
  const std::byte* row[kMostAbreast];
  const std::byte* next[kMostAbreast];
  const std::int64_t piece = plan.lines * kLine, whole = row_bytes / piece * piece;
  for (std::int64_t first = 0; first < count; first += plan.abreast) {
    const std::int64_t left = count - first;
    const std::int64_t abreast = plan.abreast < left ? plan.abreast : left;
    std::int64_t prefetched = plan.ahead > 0 ? left - plan.ahead : 0;  // rows of this turn
    if (prefetched > abreast) prefetched = abreast;
    for (std::int64_t j = 0; j < abreast; ++j) row[j] = rows + slots[first + j] * row_bytes;
    for (std::int64_t j = 0; j < prefetched; ++j) {
      next[j] = rows + slots[first + plan.ahead + j] * row_bytes;
      // Rows need not begin on a line: the last byte may lie on one more.
      ask_for(next[j] + row_bytes - 1, plan);
      if (!plan.at_once) continue;
      for (std::int64_t at = 0; at < row_bytes; at += kLine) ask_for(next[j] + at, plan);
    }
    const std::int64_t in_pieces = plan.at_once ? 0 : prefetched;
    for (std::int64_t at = 0; at < whole; at += piece) {
      for (std::int64_t j = 0; j < abreast; ++j) {
        if (plan.lines == kLines) {
          for (int i = 0; i < kLines; ++i) {
            if (j < in_pieces) ask_for(next[j] + at + i * kLine, plan);
            Words words;
            std::memcpy(&words, row[j] + at + i * kLine, kLine);
            sums[i] += words;
          }
        } else {
          if (j < in_pieces) ask_for(next[j] + at, plan);
          Words words;
          std::memcpy(&words, row[j] + at, kLine);
          sums[j % kLines] += words;
        }
      }
    }
    for (std::int64_t j = 0; j < abreast; ++j) {
      std::int64_t at = whole;
      for (; at + kLine <= row_bytes; at += kLine) {
        if (j < in_pieces) ask_for(next[j] + at, plan);
        Words words;
        std::memcpy(&words, row[j] + at, kLine);
        sums[0] += words;
      }
      if (at < row_bytes && j < in_pieces) ask_for(next[j] + at, plan);
      for (; at + 8 <= row_bytes; at += 8) {
        std::uint64_t word;
        std::memcpy(&word, row[j] + at, sizeof word);
        total += word;
      }
      for (; at < row_bytes; ++at) total += static_cast<std::uint64_t>(row[j][at]);
    }
  }
  const Words sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  for (int i = 0; i < 8; ++i) total += sum[i];
  return total;
}

MEMLAYERS_EACH_WIDTH
void update_rows(std::span<const RowTable> tables, const std::int64_t* slots, std::int64_t count,
                 RowUpdatePlan plan, std::uint64_t added) {
  std::int64_t longest = 0;
  for (const RowTable& table : tables) longest = std::max(longest, table.row_bytes);
  const std::int64_t piece = plan.piece > 0 ? plan.piece : longest;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t later = i + plan.ahead < count ? slots[i + plan.ahead] : slots[i];
    for (std::int64_t first = 0; first < longest; first += piece) {
      for (const RowTable& table : tables) {
        std::byte* row = table.rows + slots[i] * table.row_bytes;
        const std::byte* next = table.rows + later * table.row_bytes;
        const std::int64_t end = std::min(first + piece, table.row_bytes);
        std::int64_t at = first;
        for (; at + kLine <= end; at += kLine) {
          if (plan.ahead > 0) ask_to_write(next + at, plan);
          Words words;
          std::memcpy(&words, row + at, kLine);
          words += added;
          std::memcpy(row + at, &words, kLine);
        }
        if (at < end && plan.ahead > 0) ask_to_write(next + at, plan);
        for (; at < end; ++at) row[at] ^= static_cast<std::byte>(added);
      }
    }
  }
}

}  // namespace memlayers::bench
