// SPDX-License-Identifier: Apache-2.0
#include "ops/linear/weights.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ops/arange.h>

#include <algorithm>

#include "kernels/kernels.h"
#include "ops/parallel.h"

namespace memlayers::ops {
namespace {

template <class From, class To>
at::Tensor converted(const at::Tensor& x) {
  at::Tensor result = empty(x.sizes(), c10::CppTypeToScalarType<To>::value);
  std::copy_n(x.const_data_ptr<From>(), x.numel(), result.mutable_data_ptr<To>());
  return result;
}

// Numbers as they are, which multiply tokens of their type.
template <class Row>
class NumberFormat final : public WeightFormat {
 public:
  explicit NumberFormat(at::ScalarType type) : type_(type) {}

  std::int64_t row_bytes(std::int64_t in) const override { return in * std::int64_t{sizeof(Row)}; }
  bool takes(at::ScalarType tokens) const override { return tokens == type_; }
  at::Tensor operand(const at::Tensor& x) const override { return as_float(x); }
  void products(const std::byte* rows, std::int64_t in, std::int64_t count,
                const at::Tensor& operand, float* out, std::int64_t out_stride) const override {
    const auto& kernel = kernels::active().rows<Row>();
    const auto* weight = reinterpret_cast<const Row*>(rows);
    const auto* x = operand.const_data_ptr<float>();
    const std::int64_t tokens = operand.size(0);
    if (tokens == 0) return;
    constexpr std::int64_t kMany = 16;  // whose arithmetic hides where the rows come from
    if (tokens >= kMany) {
      return kernel.products(weight, in, count, x, in, tokens, out, out_stride);
    }
    // The first token takes the rows from the memory, the others from the cache.
    kernel.dots_in_order(weight, in, count, x, out);
    kernel.products(weight, in, count, x + in, in, tokens - 1, out + out_stride, out_stride);
  }

 private:
  at::ScalarType type_;
};

// Weights of 8 and 4 bits, which multiply tokens of 8.
class PackedFormat final : public WeightFormat {
 public:
  explicit PackedFormat(kernels::WeightCode code) : code_(code) {}

  std::int64_t row_bytes(std::int64_t in) const override {
    return kernels::PackedWeights{code_, 1, in}.row_bytes();
  }
  std::int64_t rows_together() const override { return kernels::kWeightTile; }
  bool takes(at::ScalarType tokens) const override {
    return tokens == at::kFloat || tokens == at::kBFloat16;
  }
  // The numbers of all tokens, their scales, and their sums.
  at::Tensor operand(const at::Tensor& x) const override {
    const at::Tensor numbers = as_float(x);
    const std::int64_t tokens = x.size(0), in = x.size(1),
                       groups = kernels::PackedWeights{code_, 1, in}.groups();
    at::Tensor result = empty({tokens, groups * kGroupBytes}, at::kByte);
    const kernels::PackedVectors all = vectors(result);
    parallel_ranges(tokens, 8 * in, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t first = begin * groups;
      kernels::active().pack_vectors(numbers.const_data_ptr<float>() + begin * in, in, end - begin,
                                     {groups, all.numbers + first * kernels::kWeightGroup,
                                      all.scales + first, all.minus_sums + first});
    });
    return result;
  }
  void products(const std::byte* rows, std::int64_t in, std::int64_t count,
                const at::Tensor& operand, float* out, std::int64_t out_stride) const override {
    const kernels::PackedWeights weights{code_, count, in,
                                         reinterpret_cast<const std::uint8_t*>(rows)};
    kernels::active().packed_products(weights, 0, weights.tile_count(), vectors(operand),
                                      operand.size(0), out, out_stride);
  }

 private:
  static constexpr std::int64_t kGroupBytes = kernels::kWeightGroup + 2 * sizeof(float);

  static kernels::PackedVectors vectors(const at::Tensor& operand) {
    const std::int64_t groups = operand.size(1) / kGroupBytes, all = operand.size(0) * groups;
    auto* numbers = static_cast<std::int8_t*>(operand.data_ptr());
    auto* scales = reinterpret_cast<float*>(numbers + all * kernels::kWeightGroup);
    return {groups, numbers, scales, reinterpret_cast<std::int32_t*>(scales + all)};
  }

  kernels::WeightCode code_;
};

const WeightFormat* format_of(kernels::WeightCode code) {
  static const PackedFormat int8(kernels::WeightCode::kInt8), int4(kernels::WeightCode::kInt4),
      offset(kernels::WeightCode::kInt4Offset);
  if (code == kernels::WeightCode::kInt8) return &int8;
  return code == kernels::WeightCode::kInt4 ? &int4 : &offset;
}

const WeightFormat* format_of(at::ScalarType type) {
  static const NumberFormat<float> float32(at::kFloat);
  static const NumberFormat<kernels::BFloat16> bfloat16(at::kBFloat16);
  if (type == at::kFloat) return &float32;
  return type == at::kBFloat16 ? &bfloat16 : nullptr;
}

}  // namespace

at::Tensor empty(at::IntArrayRef sizes, at::ScalarType type) {
  return at::Tensor(at::detail::empty_cpu(sizes, type));
}

at::Tensor as_float(const at::Tensor& x_in) {
  const at::Tensor x = x_in.contiguous();
  return x.scalar_type() == at::kFloat ? x : converted<c10::BFloat16, float>(x);
}

at::Tensor from_float(const at::Tensor& x, at::ScalarType type) {
  return type == at::kFloat ? x : converted<float, c10::BFloat16>(x);
}

Weights::Weights(const at::Tensor& numbers)
    : stored(numbers),
      format(format_of(numbers.scalar_type())),
      out(numbers.size(0)),
      in(numbers.size(-1)) {}

Weights::Weights(const at::Tensor& tiles, kernels::WeightCode packed_code, std::int64_t rows,
                 std::int64_t width)
    : stored(tiles), format(format_of(packed_code)), out(rows), in(width), code(packed_code) {
  const kernels::PackedWeights shape{packed_code, rows, width};
  TORCH_CHECK_VALUE(tiles.is_contiguous() && tiles.is_cpu() && tiles.scalar_type() == at::kByte &&
                        tiles.numel() == shape.tile_count() * shape.tile_bytes(),
                    "Weights: expected ", shape.tile_count() * shape.tile_bytes(),
                    " bytes on the CPU for [", rows, ", ", width, "], got ", tiles.sizes(), " of ",
                    tiles.scalar_type());
}

std::optional<kernels::PackedWeights> Weights::packed() const {
  if (!code) return std::nullopt;
  return kernels::PackedWeights{*code, out, in, stored.const_data_ptr<std::uint8_t>()};
}

at::Tensor Weights::unpacked(const at::Tensor& rows) const {
  const auto weights = packed();
  TORCH_CHECK(weights, "Weights::unpacked: expected weights of 8 or 4 bits");
  const at::Tensor wanted = rows.contiguous();
  const auto* id = wanted.const_data_ptr<std::int64_t>();
  at::Tensor result = empty({wanted.numel(), in});
  parallel_ranges(wanted.numel(), 8 * in, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      TORCH_CHECK_INDEX(id[i] >= 0 && id[i] < out, "Weights: expected rows in [0, ", out, "), got ",
                        id[i]);
      kernels::unpack_row(*weights, id[i], result.mutable_data_ptr<float>() + i * in);
    }
  });
  return result;
}

at::Tensor Weights::unpacked() const { return unpacked(at::arange(out, at::kLong)); }

}  // namespace memlayers::ops
