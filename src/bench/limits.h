// SPDX-License-Identifier: Apache-2.0
// What this machine can do at most, measured in the same run as what is judged by it, on torch's
// number of threads. A limit is the best of several attempts in several ways, so that nothing but
// the machine sets it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "bench/read_kernels.h"
#include "pool/mapped_region.h"

namespace memlayers::bench {

// Memory that is read in sequence, in huge pages like the pool's, first touched by the threads that
// read it.
class Stream {
 public:
  // Eight last-level caches, and 256 MiB at least: what leaves nothing else in a cache.
  static std::int64_t cold_bytes(std::int64_t cache_bytes);
  explicit Stream(std::int64_t bytes);
  std::int64_t bytes() const { return static_cast<std::int64_t>(memory_.bytes().size()); }

  // Measures again; then read_gbs() and update_gbs() are the best of this process so far.
  void measure();
  // One more pass over it in the way that was fastest: 1e9 bytes a second. For what is judged
  // beside it in turn. measure() first.
  double read_again();
  // 1e9 bytes a second, read once in sequence by all threads.
  double read_gbs() const { return read_gbs_; }
  // The same for words that are changed in place; a byte counts twice, read and written.
  double update_gbs() const { return update_gbs_; }

  // Reads the memory once, so that nothing else is left in a cache.
  void flush_cache();

 private:
  // 1e9 bytes a second of one pass.
  double pass(bool writes, StreamPlan plan);
  double best_of(bool writes, std::vector<StreamPlan>& plans);

  pool::MappedRegion memory_;
  std::vector<StreamPlan> read_plans_, update_plans_;  // left to try: one after the first measure()
  double read_gbs_ = 0, update_gbs_ = 0;
};

// Does and times what a limit of rows is to judge, on set number `set` of its slots. The limits
// below call it after each of their own attempts that counts: else the best of many attempts would
// stand beside the best of few, and a bad minute of the machine would be charged to one side.
using Judged = std::function<void(std::size_t set)>;

// 1e9 bytes a second of reading whole rows [slots, row_bytes] in the order of each of `slot_sets`
// (int64, any shape) by all threads, each its part of them, rows asked for ahead, one or several
// side by side, caches without the rows at the start. The best over the sets and the three fastest
// of these ways.
double random_row_gbs(Stream& stream, const at::Tensor& values,
                      const std::vector<at::Tensor>& slot_sets, const Judged& judged);
// The same for one set and nothing that is judged by it.
double random_row_gbs(Stream& stream, const at::Tensor& values, const at::Tensor& slots);

// 1e9 bytes a second, each counted twice, of changing in place the rows of all `tables` [slots,
// ..], which keep their bits, in the order of each of `slot_sets` (int64, each slot once,
// ascending, as an update groups them) by all threads, caches without the rows at the start. The
// best over the sets and the three fastest ways: rows asked for 0 to 8 rows ahead, the tables' rows
// read whole or in turn.
double random_update_gbs(Stream& stream, const std::vector<at::Tensor>& tables,
                         const std::vector<at::Tensor>& slot_sets, const Judged& judged);

// 1e9 operations a second (a multiply-add is two) of torch's float32 product
// [1024, inner] x [inner, 1024], into memory that is there: the shape of the score products.
double gemm_gflops(std::int64_t inner);

// Reads a tensor, so that it is in a cache as it is behind the operator that made it.
void warm(const at::Tensor& tensor);

}  // namespace memlayers::bench
