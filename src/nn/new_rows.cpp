// SPDX-License-Identifier: Apache-2.0
#include "nn/new_rows.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>

#include "memlayers/ops.h"
#include "nn/table.h"
#include "ops/parallel.h"
#include "pool/random_rows.h"

namespace memlayers::nn {
namespace {

// The same numbers that a float32 pool starts with, in few bits.
void fill_quantized(at::Tensor& rows, const PoolOptions& options, std::int64_t first_slot,
                    double std, const std::function<void()>& after_part) {
  constexpr std::int64_t kAtOnce = 1024;
  ops::parallel_ranges(rows.size(0), options.width * 8, [&](std::int64_t first, std::int64_t last) {
    const at::NoGradGuard no_grad;  // of this thread
    for (std::int64_t begin = first; begin < last; begin += kAtOnce) {
      const std::int64_t end = std::min(last, begin + kAtOnce);
      at::Tensor part = at::empty({end - begin, options.width}, at::kFloat);
      pool::fill_normal(static_cast<std::byte*>(part.mutable_data_ptr()), RowType::kFloat32,
                        options.width, first_slot + begin, first_slot + end, std, options.seed);
      rows.slice(0, begin, end).copy_(quantize_rows(part, options.row_dtype));
      after_part();
    }
  });
}

// Columns [range.first, range.first + range.width) of a slot.
void fill_columns(std::byte* to, const PoolOptions& options, std::int64_t slot,
                  const PoolPart::Columns& range, double std) {
  const std::int64_t aligned = range.first / 4 * 4;  // what fill_normal() can begin with
  if (aligned == range.first) {
    pool::fill_normal(to, options.row_dtype, range.width, slot, slot + 1, std, options.seed,
                      aligned);
    return;
  }
  const std::int64_t width = range.first + range.width - aligned;
  at::Tensor buffer = at::empty({width}, nn::element_type(options.row_dtype));
  auto* data = static_cast<std::byte*>(buffer.mutable_data_ptr());
  pool::fill_normal(data, options.row_dtype, width, slot, slot + 1, std, options.seed, aligned);
  std::copy(data + buffer.nbytes() / width * (range.first - aligned), data + buffer.nbytes(), to);
}

// Fills the new table of one part of a pool, with the bits that the whole has there.
void fill_part(at::Tensor& rows, const PoolOptions& options, const PoolPart& part, double std,
               const std::function<void()>& after_part) {
  auto* data = static_cast<std::byte*>(rows.mutable_data_ptr());
  const std::int64_t size = rows.element_size(), row_bytes = part.width() * size;
  ops::parallel_ranges(part.rows, row_bytes * 8, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) {
      std::byte* to = data + row * row_bytes;
      for (const PoolPart::Columns& range : part.columns) {
        fill_columns(to, options, part.slot(row), range, std);
        to += range.width * size;
      }
      if (row % 4096 == 4095) after_part();
    }
  });
}

}  // namespace

void fill_new_rows(at::Tensor& rows, const PoolOptions& options, const PoolPart& part,
                   const std::function<void()>& after_part) {
  const double std = options.init_std.value_or(1 / std::sqrt(static_cast<double>(options.width)));
  if (std == 0) return;  // the table is zero already
  const std::int64_t slot = part.first_slot;
  if (is_quantized(options.row_dtype)) return fill_quantized(rows, options, slot, std, after_part);
  if (options.group.processes != nullptr && options.group.processes->size() > 1) {
    return fill_part(rows, options, part, std, after_part);
  }
  auto* data = static_cast<std::byte*>(rows.mutable_data_ptr());
  const auto row_bytes = static_cast<std::int64_t>(rows.nbytes()) / rows.size(0);
  const std::int64_t at_once = std::max<std::int64_t>(1, (8 << 20) / row_bytes);
  ops::parallel_ranges(rows.size(0), options.width * 8, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t begin = first; begin < last; begin += at_once) {
      const std::int64_t end = std::min(last, begin + at_once);
      pool::fill_normal(data + begin * row_bytes, options.row_dtype, options.width, slot + begin,
                        slot + end, std, options.seed);
      after_part();
    }
  });
}

}  // namespace memlayers::nn
