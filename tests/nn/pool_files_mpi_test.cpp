// SPDX-License-Identifier: Apache-2.0
// Files of a pool's tables, written and read by groups of any size: those of all processes of the
// test, and of each of them alone.
#include "nn/pool_files.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <filesystem>

#include "dist/collectives.h"
#include "support/temp_dir.h"
#include "support/testing.h"
#include "train/row_state_files.h"

namespace memlayers::nn {
namespace {

using memlayers::testing::error_of;
using memlayers::testing::says;
using memlayers::testing::TempDir;

constexpr std::int64_t kKeys = 7;  // 49 slots

class PoolFiles : public ::testing::Test {
 protected:
  // One folder that all see.
  PoolFiles() {
    if (rank_ == 0) dir_.emplace();
    folder_ = dist::broadcast(*group_, rank_ == 0 ? dir_->path() : "");
  }
  ~PoolFiles() override { dist::barrier(*group_); }

  MemoryPool pool(RowType type, std::optional<PoolSplit> split, std::int64_t u_width = 0) const {
    PoolOptions options{
        .n_keys = kKeys, .width = 100, .row_dtype = type, .seed = 3, .u_width = u_width};
    if (split) options.group = {group_, *split};
    return MemoryPool(options);
  }
  std::vector<std::optional<PoolSplit>> layouts() const {
    std::vector<std::optional<PoolSplit>> all{std::nullopt, PoolSplit{size_, 1},
                                              PoolSplit{1, size_}};
    if (size_ == 4) all.emplace_back(PoolSplit{2, 2});
    return all;
  }
  // Alone, the first process writes; in a group, all do.
  WrittenFiles write(const MemoryPool& pool, const PoolTable& table, const ChunkWriting& how) {
    WrittenFiles files;
    if (pool->is_sharded() || rank_ == 0) {
      files = write_table(io::posix(), folder_, pool, table, how);
    }
    dist::barrier(*group_);
    return files;
  }

  std::shared_ptr<Communicator> group_ = world();
  int rank_ = group_->rank(), size_ = group_->size();
  std::optional<TempDir> dir_;
  std::string folder_;
};

TEST_F(PoolFiles, WhatAnyLayoutWroteAnyOtherReads) {
  std::uint64_t generation = 0;
  for (const RowType type : {RowType::kFloat32, RowType::kBFloat16}) {
    for (const std::int64_t u_width : {0, 36}) {
      for (const auto& writer : layouts()) {
        const MemoryPool from = pool(type, writer, u_width);
        // Eleven rows a chunk: five chunks, the last of them with five rows.
        const std::string stem = "table" + std::to_string(++generation);
        write(from, {stem, from->values.detach()},
              {.generation = generation, .first_writer = 1, .rows_a_chunk = 11});
        for (const auto& reader : layouts()) {
          const MemoryPool to = pool(type, reader, u_width);
          const at::Tensor expected = to->values.detach().clone();
          to->values.detach().zero_();
          read_table(io::posix(), folder_, to, {stem, to->values.detach()},
                     {.generation = generation});
          EXPECT_TRUE(to->values.equal(expected)) << stem;
        }
      }
    }
  }
}

TEST_F(PoolFiles, ChunksAreDealtOutAndAllOfOnePool) {
  const MemoryPool from = pool(RowType::kFloat32, PoolSplit{size_, 1});
  const WrittenFiles files = write(from, {"chunk", from->values.detach()},
                                   {.generation = 5, .first_writer = 1, .rows_a_chunk = 11});
  if (size_ == 1) return;  // one process's files are dealt out to nobody
  ASSERT_EQ(files.size(), 5U);
  for (std::size_t i = 0; i < files.size(); ++i) {
    EXPECT_EQ(files[i].first, "chunk-" + std::to_string(i) + "-5.safetensors");
    EXPECT_EQ(files[i].second, (static_cast<int>(i) + 1) % size_);
    EXPECT_TRUE(std::filesystem::exists(io::join(folder_, files[i].first)));
  }
}

TEST_F(PoolFiles, NumbersOfTheRowsComeTogetherInTheFirstProcessAndGoBack) {
  for (const auto& layout : layouts()) {
    const MemoryPool of = pool(RowType::kFloat32, layout);
    at::Tensor usage = at::empty({of->part().rows}, at::kLong);
    for (std::int64_t row = 0; row < usage.size(0); ++row) usage[row] = 100 + of->part().slot(row);
    const at::Tensor whole = train::whole_numbers(of, usage);
    if (rank_ == 0) {
      EXPECT_TRUE(whole.equal(at::arange(kKeys * kKeys) + 100));
      std::filesystem::remove(folder_ + "/usage.safetensors");
      train::write_usage(io::posix(), folder_, whole, 8);
    } else if (of->is_sharded()) {
      EXPECT_FALSE(whole.defined());
    }
    dist::barrier(*group_);
    MemoryPool to = pool(RowType::kFloat32, layout);
    train::load_usage(io::posix(), folder_, to, 8);
    EXPECT_TRUE(to->usage().equal(usage));
    EXPECT_TRUE(says(error_of([&] { train::load_usage(io::posix(), folder_, to, 9); }),
                     {"usage.safetensors", "step", "expected 9", "got 8", "another step"}));
    dist::barrier(*group_);
  }
}

TEST_F(PoolFiles, OfAnotherGenerationAreRefusedByName) {
  const MemoryPool of = pool(RowType::kFloat32, PoolSplit{size_, 1});
  const PoolTable table{"chunk", of->values.detach()};
  write(of, table, {.generation = 4, .rows_a_chunk = 20});
  EXPECT_TRUE(
      says(error_of([&] { read_table(io::posix(), folder_, of, table, {.generation = 6}); }),
           {"chunk-0-4.safetensors", "expected generation 6", "got 4", "a file of another step"}));
}

TEST_F(PoolFiles, OfAnotherShapeOrWithoutAllOfTheirRowsAreRefused) {
  const MemoryPool of = pool(RowType::kFloat32, PoolSplit{size_, 1});
  write(of, {"chunk", of->values.detach()}, {.rows_a_chunk = 20});
  const MemoryPool other = pool(RowType::kBFloat16, PoolSplit{size_, 1});
  EXPECT_TRUE(
      says(error_of([&] { read_table(io::posix(), folder_, other, {"chunk", other->values}, {}); }),
           {"expected 49 rows of 100 bfloat16", "got 49 of 100 float32"}));
  dist::barrier(*group_);
  if (rank_ == 0) std::filesystem::remove(folder_ + "/chunk-1-0.safetensors");
  dist::barrier(*group_);
  EXPECT_TRUE(
      says(error_of([&] { read_table(io::posix(), folder_, of, {"chunk", of->values}, {}); }),
           {"chunk-2-0.safetensors", "a chunk is missing"}));
}

}  // namespace
}  // namespace memlayers::nn
