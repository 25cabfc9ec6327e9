// SPDX-License-Identifier: Apache-2.0
#include "support/store_testing.h"

#include <algorithm>
#include <cstring>

#include "pool/chunks.h"

namespace memlayers::testing {

Bytes SmallPool::row(std::int64_t slot, int writer) const {
  const std::vector<float> numbers(static_cast<std::size_t>(width),
                                   static_cast<float>(slot) + 1000.0F * static_cast<float>(writer));
  const auto bytes = std::as_bytes(std::span(numbers));
  return {bytes.begin(), bytes.end()};
}

Bytes SmallPool::base() const {
  Bytes all;
  for (std::int64_t slot = 0; slot < rows; ++slot) {
    const Bytes one = row(slot, 0);
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

void SmallPool::write(io::FileSystem& fs, const std::string& folder) const {
  const Bytes all = base();
  const pool::PoolInfo info{kPoolId, rows, width, RowType::kFloat32, 0};
  for (std::int64_t first = 0, i = 0; first < rows; first += rows_a_chunk, ++i) {
    const std::int64_t count = std::min(rows_a_chunk, rows - first);
    pool::write_chunk(fs, io::join(folder, "chunk-" + std::to_string(i) + "-0.safetensors"), info,
                      first,
                      std::span(all).subspan(static_cast<std::size_t>(first * row_bytes()),
                                             static_cast<std::size_t>(count * row_bytes())));
  }
  fs.sync_folder(folder);
}

Patch SmallPool::patch(int writer, std::vector<std::int64_t> slots,
                       std::vector<std::int64_t> erased) const {
  Patch patch{.id = "p" + std::to_string(writer), .pool = kPoolId, .width = width};
  for (const std::int64_t slot : slots) {
    const Bytes one = row(slot, writer);
    patch.rows.insert(patch.rows.end(), one.begin(), one.end());
  }
  patch.slots = std::move(slots);
  patch.erased = std::move(erased);
  return patch;
}

Bytes content(const Snapshot& snapshot) {
  Bytes all(static_cast<std::size_t>(snapshot.rows() * snapshot.row_bytes()));
  snapshot.read(0, all);
  return all;
}

Bytes ModelStore::content() const {
  Bytes all = base;
  const auto row_size = static_cast<std::size_t>(row_bytes);
  for (const Patch& patch : stack) {
    for (std::size_t i = 0; i < patch.slots.size(); ++i) {
      std::memcpy(all.data() + static_cast<std::size_t>(patch.slots[i]) * row_size,
                  patch.rows.data() + i * row_size, row_size);
    }
    for (const std::int64_t slot : patch.erased) {
      std::memset(all.data() + static_cast<std::size_t>(slot) * row_size, 0, row_size);
    }
  }
  return all;
}

void ModelStore::rollback(const std::string& id) {
  stack.erase(std::ranges::find(stack, id, &Patch::id));
}

std::map<std::int64_t, bool> ModelStore::free() const {
  std::map<std::int64_t, bool> slots;
  for (const Patch& patch : stack) {
    for (const std::int64_t slot : patch.slots) slots[slot] = false;
    for (const std::int64_t slot : patch.erased) slots[slot] = true;
  }
  return slots;
}

void flip_bit(const std::string& path, std::uint64_t offset, unsigned bit) {
  const auto file = io::posix().open(path, io::OpenMode::kReadWrite);
  std::byte byte{};
  file->pread({&byte, 1}, offset);
  byte ^= std::byte{1} << bit;
  file->pwrite({&byte, 1}, offset);
}

}  // namespace memlayers::testing
