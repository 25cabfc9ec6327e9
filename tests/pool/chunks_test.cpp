// SPDX-License-Identifier: Apache-2.0
#include "pool/chunks.h"
#include "pool/row_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <thread>
#include <vector>

#include "io/folder.h"
#include "memlayers/error.h"
#include "pool/random_rows.h"
#include "support/expect_error.h"
#include "support/failing_file_system.h"
#include "support/temp_dir.h"

namespace memlayers::pool {
namespace {

using memlayers::testing::expect_error;
using memlayers::testing::FailingFileSystem;
using memlayers::testing::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

constexpr const char* kId = "01234567-89ab-4def-8123-456789abcdef";

// Rows of random numbers, so that no two are alike.
struct Table {
  Table(std::int64_t rows, std::int64_t width, RowType type = RowType::kFloat32)
      : bytes(static_cast<std::size_t>(rows * width * (type == RowType::kFloat32 ? 4 : 2))),
        view{bytes.data(), rows, width, type} {
    fill_normal(bytes.data(), type, width, 0, rows, 1, 5);
  }
  std::vector<std::byte> bytes;
  RowsView view;
};

std::vector<std::byte> read_all(const ChunkedRows& rows, std::size_t size) {
  std::vector<std::byte> out(size);
  rows.read(0, out);
  return out;
}

void write(const TempDir& dir, const RowsView& rows, const std::string& id = kId) {
  write_chunks(io::posix(), dir.path(), "chunk", rows, id, 0);
}

ChunkedRows open(const TempDir& dir) { return ChunkedRows::open(io::posix(), dir.path(), "chunk"); }

std::string file(const TempDir& dir, int chunk) {
  return dir / ("chunk-" + std::to_string(chunk) + "-0.safetensors");
}

void flip(const std::string& path, std::uint64_t offset) {
  const auto open = io::posix().open(path, io::OpenMode::kReadWrite);
  std::byte byte{};
  open->pread({&byte, 1}, offset);
  byte ^= std::byte{0x10};
  open->pwrite({&byte, 1}, offset);
}

// Two chunks: rows of 8 MiB, 8 of them in the first chunk.
Table two_chunks() { return {9, 2 << 20}; }

TEST(AllFinite, SeesNanAndInfinityAtAnyPlace) {
  for (const RowType type : {RowType::kFloat32, RowType::kBFloat16}) {
    const Table table(1, 1001, type);
    const std::span<const std::byte> bytes(table.bytes);
    EXPECT_TRUE(all_finite(bytes, type, 1001));
    EXPECT_TRUE(all_finite({}, type, 1001));
    const std::size_t size = type == RowType::kFloat32 ? 4 : 2;
    for (const std::size_t place : {0, 1, 500, 1000}) {
      for (const unsigned upper : {0x7f80U, 0xff80U, 0x7fc0U, 0xffffU}) {  // of a float32 or all
        std::vector<std::byte> changed = table.bytes;
        changed[(place + 1) * size - 1] = static_cast<std::byte>(upper >> 8);
        changed[(place + 1) * size - 2] = static_cast<std::byte>(upper & 0xff);
        EXPECT_FALSE(all_finite(changed, type, 1001)) << place << " " << upper;
      }
      std::vector<std::byte> largest = table.bytes;
      largest[(place + 1) * size - 1] = std::byte{0x7f};
      largest[(place + 1) * size - 2] = std::byte{0x7f};
      EXPECT_TRUE(all_finite(largest, type, 1001));
    }
  }
}

TEST(AllFinite, SeesTheScalesOfQuantizedRowsAndNothingElse) {
  constexpr std::int64_t kWidth = 70;
  for (const RowType type : {RowType::kInt8, RowType::kInt4}) {
    const auto row_bytes = static_cast<std::size_t>(row_format(type, kWidth).bytes());
    std::vector<std::byte> rows(3 * row_bytes, std::byte{0x11});
    for (std::size_t i = 0; i < 70 / (type == RowType::kInt8 ? 1 : 2); ++i) {
      rows[row_bytes + i] = std::byte{0xff};  // numbers, whatever their bits
    }
    EXPECT_TRUE(all_finite(rows, type, kWidth));
    const std::int64_t scales = type == RowType::kInt8
                                    ? kernels::scales_offset<kernels::Int8>(kWidth) + 2
                                    : kernels::scales_offset<kernels::Int4>(kWidth);
    const std::size_t at = row_bytes + static_cast<std::size_t>(scales);
    rows[at] = std::byte{0xc0};
    rows[at + 1] = std::byte{0x7f};
    EXPECT_FALSE(all_finite(rows, type, kWidth));
  }
}

TEST(Chunks, MayBeReadAgainAfterTheirMemoryWasReleased) {
  const TempDir dir;
  const Table table = two_chunks();
  write(dir, table.view);
  const ChunkedRows rows = open(dir);
  for (int time = 0; time < 2; ++time) {
    EXPECT_EQ(read_all(rows, table.bytes.size()), table.bytes);
    rows.release(0, 9);
    rows.release(3, 1);
    rows.release(9, 0);
  }
}

TEST(Chunks, GiveBackWhatWasWrittenForAnyWidth) {
  for (const RowType type : {RowType::kFloat32, RowType::kBFloat16}) {
    for (const std::int64_t width : {1, 7, 16, 17, 100, 256, 1000, 1500, 4096}) {
      const TempDir dir;
      const Table table(101, width, type);
      write(dir, table.view);
      const ChunkedRows rows = open(dir);
      EXPECT_EQ(rows.info().rows, 101);
      EXPECT_EQ(rows.info().width, width);
      EXPECT_EQ(rows.info().type, type);
      EXPECT_EQ(rows.info().id, kId);
      EXPECT_EQ(read_all(rows, table.bytes.size()), table.bytes) << width;
      EXPECT_EQ(digest(rows), digest(table.view)) << width;
    }
  }
}

TEST(Chunks, StartRowsOnAPageAndPadThemToTheStride) {
  // Width and stride in float32: a multiple of 64 bytes; where it wastes at most a quarter, a
  // divisor or a multiple of a page.
  const std::pair<std::int64_t, std::int64_t> strides[] = {
      {1, 16},    {16, 16},     {20, 32},     {48, 64},     {47, 48},    {200, 256},
      {130, 144}, {1024, 1024}, {1025, 1040}, {1600, 2048}, {5000, 5120}};
  for (const auto& [width, stride] : strides) {
    const TempDir dir;
    const Table table(3, width);
    write(dir, table.view);
    const auto chunk = io::SafetensorsFile::open(io::posix(), file(dir, 0));
    EXPECT_THAT(chunk.at("rows").shape, ElementsAre(3, stride)) << width;
    const auto mapping = io::posix().map(file(dir, 0));
    std::uint64_t header = 0;
    std::memcpy(&header, mapping->bytes().data(), 8);
    EXPECT_EQ((header + 8) % 4096, 0U);
    EXPECT_EQ(std::memcmp(mapping->bytes().data() + 8 + header, table.bytes.data(),
                          static_cast<std::size_t>(width) * 4),
              0);
  }
}

TEST(Chunks, HoldAtMost64MiBEach) {
  const TempDir dir;
  const Table table = two_chunks();
  write(dir, table.view);
  EXPECT_THAT(io::posix().list(dir.path()),
              ElementsAre("chunk-0-0.safetensors", "chunk-1-0.safetensors"));
  const ChunkedRows rows = open(dir);
  EXPECT_EQ(rows.num_chunks(), 2U);
  EXPECT_EQ(digest(rows), digest(table.view));
  // Across the border, and from several threads at once.
  const std::size_t row_bytes = table.bytes.size() / 9;
  std::vector<std::byte> out(table.bytes.size());
  std::vector<std::jthread> threads;
  for (std::size_t first = 0; first < 9; first += 3) {
    threads.emplace_back([&, first] {
      rows.read(static_cast<std::int64_t>(first),
                std::span(out).subspan(first * row_bytes, 3 * row_bytes));
    });
  }
  threads.clear();
  EXPECT_EQ(out, table.bytes);
}

TEST(Chunks, ReadAnyRangeAndRefuseOthers) {
  const TempDir dir;
  const Table table(1000, 33);
  write(dir, table.view);
  const ChunkedRows rows = open(dir);
  for (const auto& [first, count] :
       std::vector<std::pair<std::size_t, std::size_t>>{{0, 1}, {999, 1}, {300, 500}, {1000, 0}}) {
    std::vector<std::byte> out(count * 132);
    rows.read(static_cast<std::int64_t>(first), out);
    EXPECT_TRUE(std::ranges::equal(out, std::span(table.bytes).subspan(first * 132, out.size())));
  }
  std::vector<std::byte> two(264), part(100);
  const auto outside = HasSubstr("expected whole rows inside [0, 1000)");
  expect_error([&] { rows.read(999, two); }, outside);
  expect_error([&] { rows.read(-1, two); }, outside);
  expect_error([&] { rows.read(0, part); }, outside);
}

TEST(Chunks, OfSeveralStemsShareAFolder) {
  const TempDir dir;
  const Table mean(10, 4), square(10, 5);
  write_chunks(io::posix(), dir.path(), "exp_avg", mean.view, kId, 3);
  write_chunks(io::posix(), dir.path(), "exp_avg_sq", square.view, kId, 3);
  EXPECT_EQ(ChunkedRows::open(io::posix(), dir.path(), "exp_avg").info().width, 4);
  EXPECT_EQ(ChunkedRows::open(io::posix(), dir.path(), "exp_avg_sq").info().width, 5);
  EXPECT_EQ(ChunkedRows::open(io::posix(), dir.path(), "exp_avg").info().generation, 3U);
}

TEST(Chunks, MissingDoubledOrOfAnotherPoolAreNamed) {
  const Table table = two_chunks();
  const TempDir whole;
  write(whole, table.view);
  const auto break_it = [&](auto change, const auto& message) {
    const TempDir dir;
    std::filesystem::copy(whole.path(), dir.path());
    change(dir);
    expect_error([&] { open(dir); }, message);
  };
  break_it([](const TempDir& dir) { io::posix().unlink(file(dir, 0)); },
           AllOf(HasSubstr("chunk-1-0"), HasSubstr("begins at row 0, got one at row 8")));
  break_it([](const TempDir& dir) { io::posix().unlink(file(dir, 1)); },
           HasSubstr("expected 9 rows in chunk-*.safetensors, got 8: a chunk is missing"));
  break_it([](const TempDir& dir) { std::filesystem::copy(file(dir, 1), file(dir, 2)); },
           AllOf(HasSubstr("-0.safetensors"), HasSubstr("there twice")));
  break_it(
      [](const TempDir& dir) {
        std::filesystem::copy(file(dir, 0), file(dir, 1),
                              std::filesystem::copy_options::overwrite_existing);
      },
      HasSubstr("there twice"));
  break_it(
      [&](const TempDir& dir) {
        const TempDir other;
        write(other, table.view, "another");
        std::filesystem::copy(file(other, 1), file(dir, 1),
                              std::filesystem::copy_options::overwrite_existing);
      },
      AllOf(HasSubstr("chunk-1-0"), HasSubstr("of pool 01234567"), HasSubstr("got pool another")));
  break_it(
      [](const TempDir& dir) {
        std::filesystem::resize_file(file(dir, 1), std::filesystem::file_size(file(dir, 1)) - 1);
      },
      HasSubstr("chunk-1-0"));
  break_it([](const TempDir& dir) { remove_all(io::posix(), dir.path()); },
           HasSubstr("cannot list"));
  const TempDir empty;
  expect_error([&] { open(empty); }, HasSubstr("expected files chunk-*.safetensors, found none"));
}

TEST(Chunks, WithOneByteAlteredAreAnErrorOrReadTheSame) {
  const TempDir dir;
  const Table table(700, 25);  // two blocks of 64 KiB
  write(dir, table.view);
  const std::uint64_t size = std::filesystem::file_size(file(dir, 0));
  std::int64_t errors = 0;
  for (std::uint64_t offset = 0; offset < size; offset += offset < 1200 ? 1 : 397) {
    flip(file(dir, 0), offset);
    try {
      EXPECT_EQ(read_all(open(dir), table.bytes.size()), table.bytes) << offset;
    } catch (const Error& error) {
      ++errors;
      EXPECT_THAT(error.what(), HasSubstr("chunk-0-0.safetensors")) << offset;
    }
    flip(file(dir, 0), offset);
  }
  EXPECT_GT(errors, 1000);
  EXPECT_EQ(read_all(open(dir), table.bytes.size()), table.bytes);
}

TEST(Chunks, SayWhereTheyWereAltered) {
  const TempDir dir;
  const Table table(700, 25);
  write(dir, table.view);
  flip(file(dir, 0), 4096 + 65536 + 10);
  const ChunkedRows rows = open(dir);
  expect_error([&] { read_all(rows, table.bytes.size()); },
               AllOf(HasSubstr(file(dir, 0)), HasSubstr("at byte 65536 of `rows`")));
  expect_error([&] { digest(rows); }, HasSubstr("at byte 65536"));
  std::vector<std::byte> first(100);
  rows.read(0, first);  // the other block still reads
}

TEST(Chunks, CutAnywhereAreAnError) {
  const TempDir dir;
  const Table table(100, 25);
  write(dir, table.view);
  for (auto size = std::filesystem::file_size(file(dir, 0)); size > 0;
       size -= std::min<std::uintmax_t>(size, 61)) {
    std::filesystem::resize_file(file(dir, 0), size - 1);
    expect_error([&] { open(dir); }, HasSubstr("chunk-0-0.safetensors"));
  }
}

// A chunk whose metadata say otherwise than its tensors, with checksums that hold.
class LyingChunk : public ::testing::Test {
 protected:
  std::map<std::string, std::string> good() {
    write(dir_, table_.view);
    const auto metadata = io::SafetensorsFile::open(io::posix(), file(dir_, 0)).metadata();
    io::posix().unlink(file(dir_, 0));
    return metadata;
  }
  void write_lying(std::map<std::string, std::string> metadata) {
    std::string header;
    for (const auto& [key, value] : metadata) {
      if (key != "header_xxh3") header += key + "=" + value + "\n";
    }
    metadata["header_xxh3"] = io::xxh3_hex(std::as_bytes(std::span(header)));
    const std::uint64_t checksum = io::xxh3(table_.bytes);
    io::remove_all(io::posix(), file(dir_, 0));
    io::write_safetensors(
        io::posix(), file(dir_, 0),
        {{"rows", io::ElementType::kF32, {4, 16}, table_.bytes},
         {"xxh3", io::ElementType::kU64, {1}, std::as_bytes(std::span(&checksum, 1))}},
        metadata);
  }
  TempDir dir_;
  Table table_{4, 16};
};

TEST_F(LyingChunk, IsAnErrorThatNamesTheFile) {
  const auto truth = good();
  write_lying(truth);
  EXPECT_EQ(read_all(open(dir_), table_.bytes.size()), table_.bytes);
  const std::pair<const char*, const char*> lies[] = {{"format", "other"},
                                                      {"version", "2"},
                                                      {"features", "1"},
                                                      {"byte_order", "big"},
                                                      {"rows", "3"},
                                                      {"rows", "-1"},
                                                      {"rows", "0"},
                                                      {"rows", "99999999999999999999"},
                                                      {"first_row", "1"},
                                                      {"first_row", "9223372036854775807"},
                                                      {"total_rows", "9223372036854775807"},
                                                      {"total_rows", "3"},
                                                      {"width", "0"},
                                                      {"width", "17"},
                                                      {"width", "1e3"},
                                                      {"dtype", "bfloat16"},
                                                      {"dtype", "int8"},
                                                      {"digest", "0"},
                                                      {"generation", "x"}};
  for (const auto& [key, value] : lies) {
    auto lie = truth;
    lie[key] = value;
    write_lying(lie);
    expect_error([&] { open(dir_); }, HasSubstr(dir_.path()));
    lie.erase(key);
    write_lying(lie);
    expect_error([&] { open(dir_); }, AllOf(HasSubstr("chunk-0-0"), HasSubstr(key)));
  }
}

TEST(Chunks, OfRowsThatAreMadeAsTheyAreWrittenAreTheSameFiles) {
  for (const Table& table : {Table(101, 7), Table(33, 1000, RowType::kBFloat16), two_chunks()}) {
    const TempDir from_memory, made;
    write(from_memory, table.view);
    const std::size_t row_bytes = table.bytes.size() / static_cast<std::size_t>(table.view.rows);
    const RowsSource source{[&](std::int64_t first, std::span<std::byte> out) {
                              const auto at = static_cast<std::size_t>(first) * row_bytes;
                              std::copy_n(table.bytes.begin() + static_cast<std::ptrdiff_t>(at),
                                          out.size(), out.begin());
                            },
                            table.view.rows, table.view.width, table.view.type};
    write_chunks(io::posix(), made.path(), "chunk", source, kId, 0);
    const auto names = io::posix().list(made.path());
    EXPECT_EQ(names, io::posix().list(from_memory.path()));
    for (const std::string& name : names) {
      EXPECT_EQ(io::read_text(io::posix(), made / name),
                io::read_text(io::posix(), from_memory / name));
    }
  }
}

TEST(Chunks, OnAFullDiskLeaveNoHalfFile) {
  const Table table(10, 16);
  for (std::int64_t call = 1;; ++call) {
    const TempDir dir;
    FailingFileSystem fs(call, memlayers::testing::Failure::kDiskFull);
    try {
      write_chunks(fs, dir.path(), "chunk", table.view, kId, 0);
      EXPECT_EQ(call, 7);  // create, four writes and sync failed before
      break;
    } catch (const Error&) {
      EXPECT_TRUE(io::posix().list(dir.path()).empty());
    }
  }
}

TEST(Digest, TellsContentShapeAndType) {
  const Table table(12, 8);
  EXPECT_THAT(digest(table.view), MatchesRegex("[0-9a-f]{32}"));
  RowsView view = table.view;
  view.rows = 8, view.width = 12;  // the same bytes
  EXPECT_NE(digest(table.view), digest(view));
  view = table.view;
  view.width = 16, view.type = RowType::kBFloat16;
  EXPECT_NE(digest(table.view), digest(view));
  Table changed(12, 8);
  changed.bytes.back() ^= std::byte{1};
  EXPECT_NE(digest(table.view), digest(changed.view));
}

TEST(PoolId, IsARandomUuid) {
  const std::string id = new_pool_id();
  EXPECT_THAT(id,
              MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
  EXPECT_NE(id, new_pool_id());
}

}  // namespace
}  // namespace memlayers::pool
