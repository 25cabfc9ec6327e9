// SPDX-License-Identifier: Apache-2.0
#include "nn/whole_rows.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "dist/collectives.h"

namespace memlayers::nn {
namespace {

// Below those of the pool's gathers; nothing else goes between the group's processes meanwhile.
constexpr int kOrderTag = dist::kFirstFreeTag - 2, kRowsTag = dist::kFirstFreeTag - 1;

// The first process writes to a disk between two pieces.
constexpr Communicator::Seconds kLongestWrite{600};

}  // namespace

WholeRows::WholeRows(const MemoryPool& pool, std::int64_t element_bytes, bool is_one_number,
                     ReadPart read)
    : pool_(pool),
      element_bytes_(element_bytes),
      is_one_number_(is_one_number),
      read_(std::move(read)) {}

bool WholeRows::is_first() const { return !pool_->is_sharded() || pool_->group()->rank() == 0; }

WholeRows::Range WholeRows::rows_between(const PoolPart& part, std::int64_t first,
                                         std::int64_t count) {
  const auto row_at = [&](std::int64_t slot) {  // the first of the part at or behind it
    const std::int64_t row = (slot - part.first_slot + part.slot_step - 1) / part.slot_step;
    return std::clamp<std::int64_t>(slot <= part.first_slot ? 0 : row, 0, part.rows);
  };
  const std::int64_t begin = row_at(first);
  return {begin, row_at(first + count) - begin};
}

std::int64_t WholeRows::row_bytes(const PoolPart& part) const {
  return is_one_number_ ? element_bytes_ : part.width() * element_bytes_;
}

void WholeRows::put(const PoolPart& part, Range rows, std::span<const std::byte> from,
                    std::int64_t first, std::span<std::byte> out) const {
  const std::int64_t whole_bytes =
      is_one_number_ ? element_bytes_ : part.row_width * element_bytes_;
  const std::byte* at = from.data();
  const auto copy = [&](std::int64_t bytes, std::byte* to) {
    std::copy_n(at, bytes, to);
    at += bytes;
  };
  for (std::int64_t row = rows.first; row < rows.first + rows.count; ++row) {
    std::byte* to = out.data() + (part.slot(row) - first) * whole_bytes;
    if (is_one_number_) {
      copy(element_bytes_, to);
      continue;
    }
    for (const PoolPart::Columns& range : part.columns) {
      copy(range.width * element_bytes_, to + range.first * element_bytes_);
    }
  }
}

void WholeRows::read(std::int64_t first, std::span<std::byte> out) {
  if (!pool_->is_sharded()) {
    read_(first, out);
    return;
  }
  Communicator& group = *pool_->group();
  const std::int64_t whole_bytes =
      is_one_number_ ? element_bytes_ : pool_->width() * element_bytes_;
  const std::int64_t order[] = {first, static_cast<std::int64_t>(out.size()) / whole_bytes};
  Transfers sent, coming;
  std::vector<std::vector<std::byte>> parts(static_cast<std::size_t>(group.size()));
  for (int process = 0; process < group.size(); ++process) {
    const PoolPart part = pool_->part_of(process);
    std::vector<std::byte>& bytes = parts[static_cast<std::size_t>(process)];
    const Range rows = rows_between(part, order[0], order[1]);
    bytes.resize(static_cast<std::size_t>(rows.count * row_bytes(part)));
    if (process == 0) continue;
    coming.push_back(group.receive(process, kRowsTag, bytes, nullptr));
    sent.push_back(group.send(process, kOrderTag, std::as_bytes(std::span(order)), nullptr));
  }
  const Range own = rows_between(pool_->part(), order[0], order[1]);
  if (!parts[0].empty()) read_(own.first, parts[0]);
  wait_all(coming);
  wait_all(sent);
  for (int process = 0; process < group.size(); ++process) {
    const PoolPart part = pool_->part_of(process);
    put(part, rows_between(part, order[0], order[1]), parts[static_cast<std::size_t>(process)],
        first, out);
  }
}

void WholeRows::finish() {
  if (!pool_->is_sharded()) return;
  const std::int64_t order[] = {0, 0};
  Transfers sent;
  for (int process = 1; process < pool_->group()->size(); ++process) {
    sent.push_back(
        pool_->group()->send(process, kOrderTag, std::as_bytes(std::span(order)), nullptr));
  }
  wait_all(sent);
}

void WholeRows::serve() {
  Communicator& group = *pool_->group();
  const Communicator::Seconds deadline = group.deadline();
  group.set_deadline(std::max(deadline, kLongestWrite));
  for (;;) {
    std::int64_t order[2] = {};
    group.receive(0, kOrderTag, std::as_writable_bytes(std::span(order)), nullptr)->wait();
    if (order[1] == 0) break;
    const Range rows = rows_between(pool_->part(), order[0], order[1]);
    std::vector<std::byte> bytes(static_cast<std::size_t>(rows.count * row_bytes(pool_->part())));
    if (!bytes.empty()) read_(rows.first, bytes);
    group.send(0, kRowsTag, bytes, nullptr)->wait();
  }
  group.set_deadline(deadline);
}

}  // namespace memlayers::nn
