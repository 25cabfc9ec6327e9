// SPDX-License-Identifier: Apache-2.0
// Rows that are no numbers are refused when they are read, though their checksums are right, and
// when they are written.
#include "pool/finite.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "memlayers/store.h"
#include "pool/chunks.h"
#include "pool/row_format.h"
#include "support/altered_tensors.h"
#include "support/expect_error.h"
#include "support/store_testing.h"
#include "support/temp_dir.h"

namespace memlayers {
namespace {

using memlayers::testing::alter_row_number;
using memlayers::testing::alter_tensors;
using memlayers::testing::AlteredTensors;
using memlayers::testing::Bytes;
using memlayers::testing::expect_error;
using memlayers::testing::kPoolId;
using memlayers::testing::SmallPool;
using memlayers::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Where the numbers of a row are that can be NaN, one of each.
std::vector<std::size_t> places(RowType type, std::int64_t width) {
  const auto bytes = static_cast<std::size_t>(pool::row_format(type, width).bytes());
  switch (type) {
    case RowType::kFloat32:
      return {0, bytes / 8 * 4, bytes - 4};
    case RowType::kBFloat16:
      return {0, bytes / 4 * 2, bytes - 2};
    case RowType::kInt8:
      return {static_cast<std::size_t>(kernels::scales_offset<kernels::Int8>(width))};
    case RowType::kInt4:
      break;
  }
  const auto scales = static_cast<std::size_t>(kernels::scales_offset<kernels::Int4>(width));
  return {scales, scales + 2};
}

void put_nan(std::byte* at, RowType type) {
  const bool is_float = type == RowType::kFloat32 || type == RowType::kInt8;
  at[is_float ? 2 : 0] = std::byte{0xc0};
  at[is_float ? 3 : 1] = std::byte{0x7f};
}

constexpr RowType kTypes[] = {RowType::kFloat32, RowType::kBFloat16, RowType::kInt8,
                              RowType::kInt4};

TEST(FirstNotFinite, FindsTheRowInWhateverPartOfATable) {
  constexpr std::int64_t kRows = 5, kPart = 128;
  for (const RowType type : kTypes) {
    for (const std::int64_t width : {3, 48, 100, 300}) {
      const std::int64_t stride = pool::stride_bytes(width, type);
      std::vector<std::byte> table(static_cast<std::size_t>(kRows * stride));
      std::memset(table.data(), 0x11, table.size());
      const auto found = [&] {
        std::optional<std::int64_t> row;
        for (std::int64_t at = 0; at < kRows * stride && !row; at += kPart) {
          const auto part = std::span(table).subspan(
              static_cast<std::size_t>(at),
              static_cast<std::size_t>(std::min(kPart, kRows * stride - at)));
          row = pool::first_not_finite(part, at, stride, type, width);
        }
        return row;
      };
      EXPECT_FALSE(found()) << row_type_name(type) << " " << width;
      const std::int64_t bytes = pool::row_format(type, width).bytes();
      std::vector<std::byte> before = table;
      for (std::int64_t row = 0; row < kRows; ++row) {  // what lies between rows is none of them
        for (std::int64_t at = row * stride + bytes; at < (row + 1) * stride; ++at) {
          table[static_cast<std::size_t>(at)] = std::byte{0xff};
        }
      }
      EXPECT_FALSE(found()) << row_type_name(type) << " " << width;
      for (std::int64_t row = 0; row < kRows; ++row) {
        for (const std::size_t place : places(type, width)) {
          table = before;
          put_nan(table.data() + static_cast<std::size_t>(row * stride) + place, type);
          EXPECT_EQ(found(), row) << row_type_name(type) << " " << width << " " << place;
        }
      }
    }
  }
}

TEST(NotFiniteRows, OfAChunkAreNamedHoweverTheyAreRead) {
  for (const RowAccess access : {RowAccess::kMapped, RowAccess::kRead}) {
    const TempDir dir;
    const SmallPool small;  // slots 16 to 31 are in the second chunk
    small.write(io::posix(), dir.path());
    const std::string chunk = dir / "chunk-1-0.safetensors";
    alter_row_number(chunk, 16 * 3 + 2, -std::numeric_limits<float>::infinity());
    StoreOptions options;
    options.access = access;
    const auto named = AllOf(StartsWith(chunk), HasSubstr("expected finite numbers"),
                             HasSubstr("NaN or infinity in the row of slot 19"));
    const Snapshot pool = StoreReader::open(dir.path(), options).snapshot();
    EXPECT_NO_THROW(pool.row(3));
    expect_error([&] { pool.row(19); }, named);
    expect_error([&] { pool.verify(); }, named);
    expect_error([&] { pool.digest(); }, named);
    expect_error([&] { memlayers::testing::content(pool); }, named);
    expect_error(
        [&] {
          Bytes out(static_cast<std::size_t>(small.row_bytes()));
          pool::ChunkedRows::open(io::posix(), dir.path(), "chunk").read(20, out);
        },
        named);
  }
}

TEST(NotFiniteRows, InMemoryAreNamedOnOpening) {
  const TempDir dir;
  SmallPool().write(io::posix(), dir.path());
  alter_row_number(dir / "chunk-0-0.safetensors", 0, kNan);
  StoreOptions options;
  options.access = RowAccess::kMemory;
  expect_error([&] { Store::open(dir.path(), options); }, HasSubstr("the row of slot 0"));
}

TEST(NotFiniteRows, OfASegmentAreNamed) {
  const TempDir dir;
  const SmallPool small;
  small.write(io::posix(), dir.path());
  StoreOptions options;
  options.inline_bytes = 0;
  Store::open(dir.path(), options).apply(small.patch(1, {4, 9}));
  for (const std::string& name : io::posix().list(dir.path())) {
    if (name.starts_with("seg-")) alter_row_number(dir / name, 16, kNan);
  }
  const Snapshot pool = StoreReader::open(dir.path()).snapshot();
  expect_error([&] { pool.row(9); }, AllOf(StartsWith(dir / "seg-"), HasSubstr("row 1 of `rows`")));
}

TEST(NotFiniteRows, OfAPatchFileAreNamed) {
  const TempDir dir;
  write_patch(dir / "p", SmallPool().patch(1, {4, 9}));
  alter_row_number(dir / "p", 9, kNan);
  expect_error([&] { read_patch(dir / "p"); },
               AllOf(StartsWith(dir / "p"), HasSubstr("in the row of slot 9")));
}

TEST(NotFiniteRows, AreNotWritten) {
  const TempDir dir;
  const SmallPool small;
  Patch patch = small.patch(1, {4, 9});
  std::memcpy(patch.rows.data() + small.row_bytes(), &kNan, 4);
  expect_error([&] { write_patch(dir / "p", patch); }, HasSubstr("in the row of slot 9"));
  Bytes rows = small.base();
  std::memcpy(rows.data() + 7 * small.row_bytes() + 8, &kNan, 4);
  expect_error(
      [&] {
        pool::write_chunks(io::posix(), dir.path(), "chunk",
                           pool::RowsView{rows.data(), small.rows, small.width, RowType::kFloat32},
                           kPoolId, 0);
      },
      AllOf(StartsWith(dir / "chunk-0-0"), HasSubstr("NaN or infinity in row 7 of 40")));
  EXPECT_TRUE(io::posix().list(dir.path()).empty());
}

}  // namespace
}  // namespace memlayers
