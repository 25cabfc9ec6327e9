// SPDX-License-Identifier: Apache-2.0
#include "nn/whole_rows.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "dist/collectives.h"

namespace memlayers::nn {
namespace {

// Below those of the pool's gathers; nothing else goes between the group's processes meanwhile.
constexpr int kRowsTag = dist::kFirstFreeTag - 1;

}  // namespace

WholeRows::WholeRows(const MemoryPool& pool, std::int64_t element_bytes, bool is_one_number)
    : pool_(pool), element_bytes_(element_bytes), is_one_number_(is_one_number) {}

int WholeRows::processes() const { return pool_->is_sharded() ? pool_->group()->size() : 1; }
int WholeRows::rank() const { return pool_->is_sharded() ? pool_->group()->rank() : 0; }

std::int64_t WholeRows::row_bytes() const {
  return is_one_number_ ? element_bytes_ : pool_->width() * element_bytes_;
}

std::int64_t WholeRows::row_bytes(const PoolPart& part) const {
  return is_one_number_ ? element_bytes_ : part.width() * element_bytes_;
}

// The rows of a part whose slots lie in a range.
WholeRows::Range WholeRows::rows_between(const PoolPart& part, Range slots) {
  const auto row_at = [&](std::int64_t slot) {  // the first of the part at or behind it
    const std::int64_t row = (slot - part.first_slot + part.slot_step - 1) / part.slot_step;
    return std::clamp<std::int64_t>(slot <= part.first_slot ? 0 : row, 0, part.rows);
  };
  const std::int64_t begin = row_at(slots.first);
  return {begin, row_at(slots.first + slots.count) - begin};
}

// One number a row is the same in all that share the row, except where one has no column of it: the
// first of them always has.
bool WholeRows::has_it(int process) const {
  const std::int64_t column_parts = processes() / pool_->part_of(process).slot_step;
  return !is_one_number_ || process % column_parts == 0;
}

std::int64_t WholeRows::bytes_between(int process, Range slots) const {
  const PoolPart part = pool_->part_of(process);
  return rows_between(part, slots).count * row_bytes(part);
}

// copy(bytes, offset in the whole rows of `slots`) for the pieces of a part, in its order.
template <class Copy>
void WholeRows::for_pieces(int process, Range slots, const Copy& copy) const {
  const PoolPart part = pool_->part_of(process);
  const Range rows = rows_between(part, slots);
  for (std::int64_t row = rows.first; row < rows.first + rows.count; ++row) {
    const std::int64_t at = (part.slot(row) - slots.first) * row_bytes();
    if (is_one_number_) {
      copy(element_bytes_, at);
      continue;
    }
    for (const PoolPart::Columns& range : part.columns) {
      copy(range.width * element_bytes_, at + range.first * element_bytes_);
    }
  }
}

void WholeRows::put(int process, Range slots, std::span<const std::byte> from,
                    std::span<std::byte> whole) const {
  const std::byte* next = from.data();
  for_pieces(process, slots, [&](std::int64_t bytes, std::int64_t at) {
    std::copy_n(next, bytes, whole.data() + at);
    next += bytes;
  });
}

void WholeRows::take(int process, Range slots, std::span<const std::byte> whole,
                     std::span<std::byte> to) const {
  std::byte* next = to.data();
  for_pieces(process, slots, [&](std::int64_t bytes, std::int64_t at) {
    next = std::copy_n(whole.data() + at, bytes, next);
  });
}

void WholeRows::collect(std::span<const Range> wanted, const ReadPart& read,
                        std::span<std::byte> out) const {
  if (!pool_->is_sharded()) {
    if (!out.empty()) read(wanted[0].first, out);
    return;
  }
  Communicator& group = *pool_->group();
  const int size = group.size(), own = group.rank();
  const auto bytes_for = [&](int holder, int whose) {
    const Range slots = wanted[static_cast<std::size_t>(whose)];
    return static_cast<std::size_t>(has_it(holder) ? bytes_between(holder, slots) : 0);
  };
  Transfers coming, sent;
  std::vector<std::vector<std::byte>> from(static_cast<std::size_t>(size)), to(from.size());
  for (int i = 1; i < size; ++i) {
    const int other = (own + size - i) % size;
    auto& bytes = from[static_cast<std::size_t>(other)];
    bytes.resize(bytes_for(other, own));
    if (!bytes.empty()) coming.push_back(group.receive(other, kRowsTag, bytes, nullptr));
  }
  for (int i = 0; i < size; ++i) {
    const int other = (own + i) % size;
    auto& bytes = other == own ? from[static_cast<std::size_t>(own)]  // no message
                               : to[static_cast<std::size_t>(other)];
    bytes.resize(bytes_for(own, other));
    if (bytes.empty()) continue;
    read(rows_between(pool_->part(), wanted[static_cast<std::size_t>(other)]).first, bytes);
    if (other != own) sent.push_back(group.send(other, kRowsTag, bytes, nullptr));
  }
  wait_all(coming);
  for (int holder = 0; holder < size; ++holder) {
    const auto& bytes = from[static_cast<std::size_t>(holder)];
    if (!bytes.empty()) put(holder, wanted[static_cast<std::size_t>(own)], bytes, out);
  }
  wait_all(sent);
}

void WholeRows::keep(Range slots, std::span<const std::byte> whole, const WritePart& write) const {
  if (!pool_->is_sharded()) {
    if (!whole.empty()) write(slots.first, whole);
    return;
  }
  const int own = pool_->group()->rank();
  std::vector<std::byte> bytes(static_cast<std::size_t>(bytes_between(own, slots)));
  if (bytes.empty()) return;
  take(own, slots, whole, bytes);
  write(rows_between(pool_->part(), slots).first, bytes);
}

void WholeRows::distribute(std::span<const Range> given, std::span<const std::byte> whole,
                           const WritePart& write) const {
  if (!pool_->is_sharded()) {
    keep(given[0], whole, write);
    return;
  }
  Communicator& group = *pool_->group();
  const int size = group.size(), own = group.rank();
  std::vector<std::vector<std::byte>> from(static_cast<std::size_t>(size)), to(from.size());
  std::vector<std::unique_ptr<Transfer>> coming(from.size());
  Transfers sent;
  for (int i = 1; i < size; ++i) {
    const auto other = static_cast<std::size_t>((own + size - i) % size);
    from[other].resize(static_cast<std::size_t>(bytes_between(own, given[other])));
    if (from[other].empty()) continue;
    coming[other] = group.receive(static_cast<int>(other), kRowsTag, from[other], nullptr);
  }
  for (int i = 1; i < size; ++i) {
    const int other = (own + i) % size;
    const Range slots = given[static_cast<std::size_t>(own)];
    auto& bytes = to[static_cast<std::size_t>(other)];
    bytes.resize(static_cast<std::size_t>(bytes_between(other, slots)));
    if (bytes.empty()) continue;
    take(other, slots, whole, bytes);
    sent.push_back(group.send(other, kRowsTag, bytes, nullptr));
  }
  keep(given[static_cast<std::size_t>(own)], whole, write);
  for (std::size_t other = 0; other < from.size(); ++other) {
    if (coming[other] == nullptr) continue;
    coming[other]->wait();
    write(rows_between(pool_->part(), given[other]).first, from[other]);
  }
  wait_all(sent);
}

}  // namespace memlayers::nn
