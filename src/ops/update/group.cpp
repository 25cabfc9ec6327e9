// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/_sparse_coo_tensor_unsafe.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/kernels.h"
#include "ops/torch/check.h"
#include "ops/update/row_sums.h"

namespace memlayers {
namespace {

struct Entry {
  std::int64_t slot, entry;
};

// Least significant digit first: stable, so entries of a slot keep the order in which they came.
void radix_sort(std::vector<Entry>& entries, std::int64_t num_slots) {
  constexpr int kDigitBits = 11;
  constexpr std::int64_t kMask = (1 << kDigitBits) - 1;
  std::vector<Entry> other(entries.size());
  for (int shift = 0; num_slots > 1 && ((num_slots - 1) >> shift) > 0; shift += kDigitBits) {
    std::array<std::int64_t, kMask + 2> begin{};
    for (const Entry& entry : entries) ++begin[((entry.slot >> shift) & kMask) + 1];
    std::partial_sum(begin.begin(), begin.end(), begin.begin());
    for (const Entry& entry : entries) other[begin[(entry.slot >> shift) & kMask]++] = entry;
    entries.swap(other);
  }
}

void check_part_columns(const FactoredGradient& part, std::int64_t width) {
  TORCH_CHECK_VALUE(part.first_column >= 0 && part.first_column <= width - part.rows.size(1),
                    "gradient of rows: expected columns inside a row of ", width, ", got ",
                    part.rows.size(1), " from column ", part.first_column);
}

void check_part(const FactoredGradient& part, std::int64_t num_slots, std::int64_t width) {
  ops::check_dim("group", "slots", part.slots, 2);
  ops::check_dim("group", "rows", part.rows, 2);
  ops::check_type("group", "slots", part.slots, {at::kLong});
  ops::check_type("group", "weights", part.weights, {at::kFloat});
  ops::check_type("group", "rows", part.rows, {at::kFloat});
  ops::check_same_shape("group", "weights", part.weights, "slots", part.slots);
  TORCH_CHECK_VALUE(part.rows.size(0) == part.slots.size(0), "group: expected rows of ",
                    part.slots.size(0), " tokens, as slots, got shape ", part.rows.sizes());
  check_part_columns(part, width);
  ops::check_slots("group", part.slots, num_slots);
}

// Squared norms, block of columns by block, of each token's row of a gradient.
struct TokenSquares {
  TokenSquares(const GroupedGradient& gradient, std::span<const std::int64_t> begins) {
    std::int64_t first_entry = 0;
    for (const FactoredGradient& from : gradient.contributions) {
      parts.push_back(squares_of(from, first_entry, begins));
      first_entry += from.weights.numel();
    }
  }

  struct Part {
    std::int64_t first_entry, slots_a_token, first_column;
    std::int64_t first_block = 0, blocks = 0;  // 0: its columns are not those of some blocks
    const float* weights;
    std::vector<double> squares;  // [tokens, blocks]
  };
  const Part& part_of(std::int64_t entry) const {
    return *std::prev(std::upper_bound(
        parts.begin(), parts.end(), entry,
        [](std::int64_t wanted, const Part& part) { return wanted < part.first_entry; }));
  }
  std::vector<Part> parts;

 private:
  static Part squares_of(const FactoredGradient& from, std::int64_t first_entry,
                         std::span<const std::int64_t> begins) {
    check_part_columns(from, begins.back());
    Part part{.first_entry = first_entry,
              .slots_a_token = std::max<std::int64_t>(1, from.weights.size(1)),
              .first_column = from.first_column,
              .weights = from.weights.const_data_ptr<float>(),
              .squares = {}};
    const std::int64_t tokens = from.rows.size(0), columns = from.rows.size(1);
    const auto first = std::lower_bound(begins.begin(), begins.end(), from.first_column);
    const auto last = std::lower_bound(first, begins.end(), from.first_column + columns);
    if (*first != from.first_column || *last != from.first_column + columns) return part;
    part.first_block = first - begins.begin();
    part.blocks = last - first;
    part.squares.resize(static_cast<std::size_t>(tokens * part.blocks));
    const float* rows = from.rows.const_data_ptr<float>();
    ops::parallel_ranges(tokens, columns, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        for (std::int64_t b = 0; b < part.blocks; ++b) {
          part.squares[static_cast<std::size_t>(t * part.blocks + b)] =
              kernels::active().squared_norm(rows + t * columns + first[b] - *first,
                                             first[b + 1] - first[b]);
        }
      }
    });
    return part;
  }
};

// Squared norms, block of columns by block, of the gradient of a touched row. One instance a
// thread.
class RowSquares {
 public:
  RowSquares(const GroupedGradient& gradient, std::span<const std::int64_t> begins,
             const TokenSquares& tokens)
      : begins_(begins),
        tokens_(tokens),
        begin_(gradient.begin.const_data_ptr<std::int64_t>()),
        entries_(gradient.entries.const_data_ptr<std::int64_t>()),
        sum_(gradient, begins.back()),
        squares_(begins.size() - 1) {}

  // Of slots[u]; valid until the next call.
  const double* compute(std::int64_t u) {
    std::fill(squares_.begin(), squares_.end(), 0.0);
    if (add_single_entries(begin_[u], begin_[u + 1])) return squares_.data();
    const ops::RowGradient row = sum_.compute(u);
    for (std::size_t b = 0; b < squares_.size(); ++b) {
      squares_[b] = ops::squared_norm(row, begins_[b], begins_[b + 1]);
    }
    return squares_.data();
  }

 private:
  // Most rows have one entry, of which the norm is known from its token: no sum is needed. PEER's
  // have one for each half, of which a part of the columns may have one alone.
  bool add_single_entries(std::int64_t first, std::int64_t end) {
    if (end - first > 2) return false;
    std::int64_t column = -1;  // where the entry before begins
    for (std::int64_t e = first; e < end; ++e) {
      const TokenSquares::Part& part = tokens_.part_of(entries_[e]);
      if (part.blocks == 0 || part.first_column == column) return false;
      column = part.first_column;
    }
    for (std::int64_t e = first; e < end; ++e) {
      const TokenSquares::Part& part = tokens_.part_of(entries_[e]);
      const std::int64_t local = entries_[e] - part.first_entry;
      const double weight = part.weights[local];
      const double* of_token = part.squares.data() + local / part.slots_a_token * part.blocks;
      for (std::int64_t b = 0; b < part.blocks; ++b) {
        squares_[static_cast<std::size_t>(part.first_block + b)] = weight * weight * of_token[b];
      }
    }
    return true;
  }

  std::span<const std::int64_t> begins_;
  const TokenSquares& tokens_;
  const std::int64_t* begin_;
  const std::int64_t* entries_;
  ops::RowSum sum_;
  std::vector<double> squares_;
};

}  // namespace

GroupedGradient group(std::vector<FactoredGradient> contributions, std::int64_t num_slots,
                      std::int64_t width) {
  std::int64_t count = 0;
  for (FactoredGradient& part : contributions) {
    part.slots = part.slots.to(at::kCPU).contiguous();
    part.weights = part.weights.to(at::kCPU).contiguous();
    part.rows = part.rows.to(at::kCPU).contiguous();
    check_part(part, num_slots, width);
    count += part.slots.numel();
  }
  std::vector<Entry> entries;
  entries.reserve(count);
  for (const FactoredGradient& part : contributions) {
    const std::int64_t* slots = part.slots.const_data_ptr<std::int64_t>();
    for (std::int64_t i = 0; i < part.slots.numel(); ++i) {
      entries.push_back({slots[i], static_cast<std::int64_t>(entries.size())});
    }
  }
  radix_sort(entries, num_slots);

  const auto options = at::TensorOptions().dtype(at::kLong);
  GroupedGradient grouped;
  grouped.entries = at::empty({count}, options);
  std::int64_t* out = grouped.entries.mutable_data_ptr<std::int64_t>();
  std::vector<std::int64_t> slots, begin;
  for (std::int64_t i = 0; i < count; ++i) {
    out[i] = entries[i].entry;
    if (i == 0 || entries[i].slot != entries[i - 1].slot) {
      slots.push_back(entries[i].slot);
      begin.push_back(i);
    }
  }
  begin.push_back(count);
  grouped.slots = at::empty({static_cast<std::int64_t>(slots.size())}, options);
  grouped.begin = at::empty({static_cast<std::int64_t>(begin.size())}, options);
  std::copy(slots.begin(), slots.end(), grouped.slots.mutable_data_ptr<std::int64_t>());
  std::copy(begin.begin(), begin.end(), grouped.begin.mutable_data_ptr<std::int64_t>());
  grouped.contributions = std::move(contributions);
  return grouped;
}

double norm(const GroupedGradient& gradient, std::int64_t width) {
  return std::sqrt(squared_norm(gradient, width));
}

double squared_norm(const GroupedGradient& gradient, std::int64_t width) {
  const at::Tensor squares = row_squares(gradient, width);
  const double* of_row = squares.const_data_ptr<double>();
  return std::accumulate(of_row, of_row + squares.numel(), 0.0);
}

at::Tensor row_squares(const GroupedGradient& gradient, std::int64_t width) {
  const std::int64_t whole[] = {0, width};
  const std::int64_t rows = gradient.slots.numel();
  at::Tensor squares_of_rows = at::empty({rows}, at::TensorOptions().dtype(at::kDouble));
  auto* squares = squares_of_rows.mutable_data_ptr<double>();
  const TokenSquares tokens(gradient, whole);
  ops::parallel_ranges(rows, width, [&](std::int64_t begin, std::int64_t end) {
    RowSquares row(gradient, whole, tokens);
    for (std::int64_t u = begin; u < end; ++u) squares[u] = row.compute(u)[0];
  });
  return squares_of_rows;
}

at::Tensor to_dense(const std::vector<FactoredGradient>& gradient, std::int64_t num_slots,
                    std::int64_t width) {
  const at::Tensor shape = at::zeros({num_slots, width}, at::TensorOptions().dtype(at::kFloat));
  return ops::materialise(group(gradient, num_slots, width), shape, /*sparse=*/false);
}

namespace ops {

void check_columns(const GroupedGradient& gradient, std::int64_t width) {
  for (const FactoredGradient& part : gradient.contributions) check_part_columns(part, width);
}

RowSum::RowSum(const GroupedGradient& gradient, std::int64_t width)
    : begin_(gradient.begin.const_data_ptr<std::int64_t>()),
      entries_(gradient.entries.const_data_ptr<std::int64_t>()),
      sum_(width) {
  std::int64_t first_entry = 0;
  for (const FactoredGradient& part : gradient.contributions) {
    parts_.push_back({part.weights.const_data_ptr<float>(), part.rows.const_data_ptr<float>(),
                      first_entry, std::max<std::int64_t>(1, part.weights.size(1)),
                      part.rows.size(1), part.first_column});
    first_entry += part.weights.numel();
  }
  parts_.push_back({nullptr, nullptr, std::numeric_limits<std::int64_t>::max(), 1, 0, 0});  // end
}

double squared_norm(const RowGradient& gradient, std::int64_t first, std::int64_t last) {
  const double weight = gradient.weight;
  return weight * weight * kernels::active().squared_norm(gradient.numbers + first, last - first);
}

const RowSum::Part& RowSum::part_of(std::int64_t entry) const {
  std::size_t p = 0;
  while (entry >= parts_[p + 1].first_entry) ++p;
  return parts_[p];
}

RowGradient RowSum::compute(std::int64_t u) {
  std::int64_t e = begin_[u];
  const std::int64_t end = begin_[u + 1], width = static_cast<std::int64_t>(sum_.size());
  if (end - e == 1) {
    const Part& part = part_of(entries_[e]);
    if (part.row_width == width) {
      const std::int64_t local = entries_[e] - part.first_entry;
      return {part.rows + local / part.slots_a_token * width, part.weights[local]};
    }
  }
  std::fill(sum_.begin(), sum_.end(), 0.0F);
  while (e < end) {
    const Part& part = part_of(entries_[e]);
    const std::int64_t next_part = (&part)[1].first_entry;
    weights_.clear();
    tokens_.clear();
    for (; e < end && entries_[e] < next_part; ++e) {
      const std::int64_t local = entries_[e] - part.first_entry;
      weights_.push_back(part.weights[local]);
      tokens_.push_back(local / part.slots_a_token);
    }
    kernels::active().f32.gather_add(part.rows, {part.row_width, part.row_width, 0, part.row_width},
                                     tokens_.data(), weights_.data(),
                                     static_cast<std::int64_t>(tokens_.size()), 0,
                                     sum_.data() + part.first_column);
  }
  return {sum_.data(), 1};
}

void RowSum::prefetch(std::int64_t u) const {
  const std::int64_t entry = entries_[begin_[u]];
  const Part& part = part_of(entry);
  const std::int64_t local = entry - part.first_entry;
  __builtin_prefetch(part.weights + local);
  ops::prefetch(part.rows + local / part.slots_a_token * part.row_width,
                part.row_width * static_cast<std::int64_t>(sizeof(float)));
}

std::vector<double> block_squares(const GroupedGradient& gradient,
                                  std::span<const std::int64_t> begins) {
  constexpr std::int64_t kRows = 512;  // added up by themselves, whatever the number of threads
  const std::int64_t rows = gradient.slots.numel(), chunks = (rows + kRows - 1) / kRows;
  const std::size_t blocks = begins.size() - 1;
  std::vector<double> sums(static_cast<std::size_t>(chunks) * blocks), total(blocks);
  const TokenSquares tokens(gradient, begins);
  ops::parallel_ranges(chunks, begins.back() * kRows, [&](std::int64_t first, std::int64_t last) {
    RowSquares row(gradient, begins, tokens);
    for (std::int64_t chunk = first; chunk < last; ++chunk) {
      double* sum = sums.data() + static_cast<std::size_t>(chunk) * blocks;
      for (std::int64_t u = chunk * kRows; u < std::min(rows, (chunk + 1) * kRows); ++u) {
        const double* squares = row.compute(u);
        for (std::size_t b = 0; b < blocks; ++b) sum[b] += squares[b];
      }
    }
  });
  for (std::size_t i = 0; i < sums.size(); ++i) total[i % blocks] += sums[i];
  return total;
}

at::Tensor materialise(const GroupedGradient& gradient, const at::Tensor& values, bool sparse) {
  const std::int64_t W = values.size(1), touched = gradient.slots.numel();
  const auto options = values.options().dtype(at::kFloat);
  at::Tensor rows = sparse ? at::empty({touched, W}, options) : at::zeros(values.sizes(), options);
  float* out = rows.mutable_data_ptr<float>();
  const std::int64_t* slots = gradient.slots.const_data_ptr<std::int64_t>();
  for_each_row(gradient, W, [&](std::int64_t u, const RowGradient& row) {
    float* const to = out + (sparse ? u : slots[u]) * W;
    for (std::int64_t c = 0; c < W; ++c) to[c] = row.weight * row.numbers[c];
  });
  rows = rows.to(values.scalar_type());
  if (!sparse) return rows;
  return at::_sparse_coo_tensor_unsafe(gradient.slots.unsqueeze(0), rows, values.sizes(),
                                       values.options().layout(at::kSparse),
                                       /*is_coalesced=*/true);
}

}  // namespace ops
}  // namespace memlayers
