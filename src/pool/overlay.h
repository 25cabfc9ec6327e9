// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pool/rows_file.h"

namespace memlayers::pool {

// What a patch writes; both lists of slots strictly ascend.
struct Writes {
  std::span<const std::int64_t> slots = {};
  std::span<const std::byte> rows =
      {};  // as the pool has them, contiguous, one for each of `slots`
  std::span<const std::int64_t> erased = {};
  const SubKeys& sub_keys = none;
  static const SubKeys none;
};
Writes writes_of(const Patch& patch);

// Rows that lie over those of the base, and sub-keys: what one patch writes. Immutable; in a
// segment file, or in memory where the log holds them. Of slots in `erased` the row is zero, and
// they are free.
class Overlay {
 public:
  static constexpr std::uint32_t kErased = 0xffffffff;  // in place of the number of a row

  Overlay(const PoolInfo& pool, const Writes& writes);
  // A segment file, everything but the rows' checksums checked. Throws Corruption for one that is
  // not there, and Error for one that is not of this pool or of other content.
  static std::shared_ptr<const Overlay> open(io::FileSystem& fs, const std::string& path,
                                             const PoolInfo& pool, const std::string& content,
                                             RowAccess access);

  std::span<const std::int64_t> slots() const { return slots_; }
  std::span<const std::int64_t> erased() const { return erased_; }
  const SubKeys& sub_keys() const { return sub_keys_; }
  // The number of a slot's row, or kErased; none where this overlay does not write the slot.
  std::optional<std::uint32_t> find(std::int64_t slot) const;
  // The address of a row by its number, its block checked once. Throws Error for an altered block.
  const std::byte* row(std::uint32_t number) const;
  void verify() const;  // reads and checks all rows again

 private:
  struct alignas(64) Line {
    std::array<std::byte, 64> bytes;
  };
  Overlay() = default;

  std::vector<std::int64_t> slots_, erased_;
  SubKeys sub_keys_;
  std::int64_t stride_ = 0;
  std::vector<Line> memory_;  // rows, where there is no file
  std::vector<Line> zero_;    // the row of what is erased
  std::unique_ptr<RowsFile> file_;
};

// Writes a segment through a temporary name; durable on return. `content` names what is in it.
void write_segment(io::FileSystem& fs, const std::string& path, const PoolInfo& pool,
                   const Writes& writes, const std::string& content);

// Slots from the bytes of a file, which may lie anywhere.
std::vector<std::int64_t> to_slots(std::span<const std::byte> bytes);

// A checksum of what a patch writes, in hex.
std::string content_digest(const Writes& writes);

}  // namespace memlayers::pool
