// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <unistd.h>

#include "io/file_system.h"
#include "memlayers/ops.h"
#include "memlayers/store.h"
#include "ops/op_testing.h"
#include "pool/chunks.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace memlayers {
namespace {

using testing::normal;
using testing::random_slots;
using testing::TempDir;

constexpr std::int64_t kRows = 60, kWidth = 136, kPeerWidth = 64;

std::span<const std::byte> bytes_of(const at::Tensor& t) {
  return {static_cast<const std::byte*>(t.const_data_ptr()), t.nbytes()};
}

// A pool of any type as its files and as the table of the same rows, with a patch over some.
class SnapshotRows : public ::testing::TestWithParam<RowType> {
 protected:
  SnapshotRows() {
    rows_ = stored(normal({kRows, kWidth}, 1));
    pool::write_chunks(io::posix(), dir_.path(), "chunk",
                       pool::RowsView{bytes_of(rows_).data(), kRows, kWidth, GetParam()},
                       "01234567-89ab-4def-8123-456789abcdef", 0);
    Store store = Store::open(dir_.path());
    const at::Tensor changed = stored(normal({2, kWidth}, 2));
    Patch patch{.id = "p",
                .pool = store.snapshot().pool_id(),
                .width = kWidth,
                .row_dtype = GetParam(),
                .slots = {5, 41}};
    patch.rows.assign(bytes_of(changed).begin(), bytes_of(changed).end());
    store.apply(patch);
    for (int i = 0; i < 2; ++i) rows_[patch.slots[i]].copy_(changed[i]);
    snapshot_ = store.snapshot();
  }
  static at::Tensor stored(const at::Tensor& numbers) {
    if (GetParam() == RowType::kFloat32) return numbers;
    if (GetParam() == RowType::kBFloat16) return numbers.to(at::kBFloat16);
    return quantize_rows(numbers, GetParam());
  }
  std::string chunk() const { return dir_ / "chunk-0-0.safetensors"; }
  TempDir dir_;
  at::Tensor rows_;
  std::optional<Snapshot> snapshot_;
};
INSTANTIATE_TEST_SUITE_P(Types, SnapshotRows,
                         ::testing::Values(RowType::kFloat32, RowType::kBFloat16, RowType::kInt8,
                                           RowType::kInt4),
                         [](const auto& test) { return std::string(row_type_name(test.param)); });

TEST_P(SnapshotRows, GatherGivesTheBitsOfATableOfTheSameRows) {
  for (std::int64_t J : {0, 1, 7, 40}) {
    const at::Tensor slots = random_slots({11, J}, kRows, 3), weights = normal({11, J}, 4);
    const at::Tensor wanted = is_quantized(GetParam())
                                  ? gather_quantized(rows_, GetParam(), kWidth, slots, weights)
                                  : gather(rows_, slots, weights);
    EXPECT_TRUE(torch::equal(gather(*snapshot_, slots, weights), wanted)) << "J " << J;
    testing::expect_same_bits_for_any_threads([&] { return gather(*snapshot_, slots, weights); });
  }
}

TEST_P(SnapshotRows, PeerGatherGivesTheBitsOfATableOfTheSameRows) {
  const at::Tensor slots = random_slots({11, 19}, kRows, 3), weights = normal({11, 19}, 4),
                   x = normal({11, kPeerWidth}, 5) / 8;
  const at::Tensor wanted =
      is_quantized(GetParam()) ? peer_gather_quantized(rows_, GetParam(), kWidth, x, slots, weights)
                               : peer_gather(rows_, x, slots, weights);
  EXPECT_TRUE(torch::equal(peer_gather(*snapshot_, x, slots, weights), wanted));
}

TEST_P(SnapshotRows, ArgumentsThatDoNotFitAreRefused) {
  const at::Tensor slots = random_slots({3, 4}, kRows, 3), weights = normal({3, 4}, 4);
  EXPECT_THROW(gather(*snapshot_, slots + kRows, weights), c10::IndexError);
  EXPECT_THROW(gather(*snapshot_, slots - kRows, weights), c10::IndexError);
  EXPECT_THROW(gather(*snapshot_, slots.to(at::kInt), weights), c10::TypeError);
  EXPECT_THROW(gather(*snapshot_, slots, weights.to(at::kDouble)), c10::TypeError);
  EXPECT_THROW(gather(*snapshot_, slots[0], weights[0]), c10::ValueError);
  EXPECT_THROW(gather(*snapshot_, slots, weights.t()), c10::ValueError);
  EXPECT_THROW(peer_gather(*snapshot_, normal({3, kWidth}, 5), slots, weights), c10::ValueError);
  EXPECT_THROW(peer_gather(*snapshot_, normal({2, kPeerWidth}, 5), slots, weights),
               c10::ValueError);
  if (GetParam() == RowType::kInt4) {
    EXPECT_THROW(peer_gather(*snapshot_, normal({3, 8}, 5), slots, weights), c10::ValueError);
  }
}

TEST_P(SnapshotRows, ALostPageIsNamedWhicheverThreadMeetsIt) {
  const at::Tensor slots = random_slots({300, 40}, kRows, 3), weights = normal({300, 40}, 4),
                   x = normal({300, kPeerWidth}, 5) / 8;
  const Snapshot lost = StoreReader::open(dir_.path()).snapshot();
  gather(lost, slots, weights);  // all blocks are checked now
  ASSERT_EQ(::truncate(chunk().c_str(), 4096), 0);
  const int threads = at::get_num_threads();
  for (int count : {1, 3}) {
    at::set_num_threads(count);
    const auto named = ::testing::AllOf(::testing::StartsWith(chunk()),
                                        ::testing::HasSubstr("of the mapped file"));
    testing::expect_error([&] { gather(lost, slots, weights); }, named);
    testing::expect_error([&] { peer_gather(lost, x, slots, weights); }, named);
    EXPECT_NO_THROW(
        gather(lost, at::full({1, 1}, 41, at::kLong), at::ones({1, 1})));  // the patch's
  }
  at::set_num_threads(threads);
}

TEST_P(SnapshotRows, AnAlteredBlockIsNamedAndNotRead) {
  const std::string file = chunk();
  std::string text = io::read_text(io::posix(), file);
  text[4096] = static_cast<char>(text[4096] ^ 1);  // of row 0
  io::write_atomic(io::posix(), file, text);
  const Snapshot altered = StoreReader::open(dir_.path()).snapshot();
  testing::expect_error(
      [&] { gather(altered, at::zeros({1, 1}, at::kLong), at::ones({1, 1})); },
      ::testing::AllOf(::testing::HasSubstr(file), ::testing::HasSubstr("checksum")));
}

}  // namespace
}  // namespace memlayers
