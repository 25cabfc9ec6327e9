// SPDX-License-Identifier: Apache-2.0
#include "ops/few_tokens.h"

#include <ATen/EmptyTensor.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <type_traits>

#include "kernels/kernels.h"
#include "ops/check.h"
#include "ops/packed_lookup.h"
#include "ops/rms_norm.h"
#include "ops/stages.h"

namespace memlayers::ops {
namespace {

// x rounded to what a row's type can hold.
template <class Row>
float rounded(float x) {
  if constexpr (std::is_same_v<Row, float>) return x;
  return static_cast<float>(c10::BFloat16(x));
}

// Without the dispatcher, whose code is in no cache where weights have just been read: at::empty,
// and Tensor::to between float32 and bfloat16.
at::Tensor empty(at::IntArrayRef sizes, at::ScalarType type = at::kFloat) {
  return at::Tensor(at::detail::empty_cpu(sizes, type));
}
template <class From, class To>
at::Tensor converted(const at::Tensor& x) {
  at::Tensor result = empty(x.sizes(), c10::CppTypeToScalarType<To>::value);
  std::copy_n(x.const_data_ptr<From>(), x.numel(), result.mutable_data_ptr<To>());
  return result;
}
at::Tensor as_float(const at::Tensor& x_in) {
  const at::Tensor x = x_in.contiguous();
  return x.scalar_type() == at::kFloat ? x : converted<c10::BFloat16, float>(x);
}
at::Tensor from_float(const at::Tensor& x, at::ScalarType type) {
  return type == at::kFloat ? x : converted<float, c10::BFloat16>(x);
}

// x W^T + b, rounded to W's type; x and what comes out are float32.
template <class Row>
class Product {
 public:
  // x [T, in] must outlive it.
  Product(const at::Tensor& x, const Linear& linear)
      : x_(x),
        weight_(linear.weight.contiguous()),
        bias_(linear.bias.defined() ? as_float(linear.bias) : linear.bias),
        out_(empty({x.size(0), linear.weight.size(0)})) {}

  std::int64_t rows() const { return weight_.size(0); }
  std::int64_t row_bytes() const { return weight_.size(1) * std::int64_t{sizeof(Row)}; }
  const at::Tensor& out() const { return out_; }

  // Adds columns [begin, end) of the product to the stages; f is applied to each number.
  template <class F>
  int add_to(Stages& stages, std::int64_t begin, std::int64_t end, std::initializer_list<int> after,
             F f) {
    return stages.add(
        begin, end, row_bytes(), after,
        [this, f](std::int64_t first, std::int64_t last) { compute(first, last, f); });
  }

 private:
  template <class F>
  void compute(std::int64_t begin, std::int64_t end, const F& f) {
    constexpr std::int64_t kBlock = 64;  // rows that stay in the cache for all tokens
    const std::int64_t T = x_.size(0), in = x_.size(1), out_width = rows();
    const auto* x = x_.const_data_ptr<float>();
    const auto* weight = static_cast<const Row*>(weight_.const_data_ptr());
    const auto* bias = bias_.defined() ? bias_.const_data_ptr<float>() : nullptr;
    const std::int64_t block = T == 1 ? end - begin : kBlock;
    for (std::int64_t first = begin; first < end; first += block) {
      const std::int64_t count = std::min(block, end - first);
      for (std::int64_t t = 0; t < T; ++t) {
        float* to = out_.mutable_data_ptr<float>() + t * out_width + first;
        kernels::active().rows<Row>().dots_in_order(weight + first * in, in, count, x + t * in, to);
        for (std::int64_t i = 0; i < count; ++i) {
          to[i] = f(rounded<Row>(bias == nullptr ? to[i] : to[i] + bias[first + i]));
        }
      }
    }
  }

  const at::Tensor& x_;
  at::Tensor weight_, bias_, out_;
};

constexpr auto kAsItIs = [](float x) { return x; };

template <class Row>
at::Tensor product(const at::Tensor& x, const Linear& linear) {
  Product<Row> product(x, linear);
  Stages stages;
  product.add_to(stages, 0, product.rows(), {}, kAsItIs);
  stages.run();
  return product.out();
}

// Calls f<Row>() for the type of weights.
template <class F>
auto dispatch(at::ScalarType type, const F& f) {
  return type == at::kFloat ? f.template operator()<float>()
                            : f.template operator()<kernels::BFloat16>();
}

void check(const char* op, const at::Tensor& x, const Linear& linear) {
  check_dim(op, "x", x, 2);
  check_dim(op, "weight", linear.weight, 2);
  check_type(op, "x", x, {at::kFloat, at::kBFloat16});
  check_type(op, "weight", linear.weight, {x.scalar_type()});
  TORCH_CHECK_VALUE(x.size(1) == linear.weight.size(1), op, ": expected x of the width of weight ",
                    linear.weight.sizes(), ", got ", x.sizes());
}

// The lookups of all heads of all tokens from their projected queries.
class Lookups {
 public:
  Lookups(const at::Tensor& projected, const LayerParts& parts)
      : query_(projected),
        parts_(parts),
        norm_(parts.query_norm.defined() ? as_float(parts.query_norm) : parts.query_norm),
        heads_(parts.keys->keys.size(0)),
        width_(parts.keys->keys.size(3) * 2) {
    const std::int64_t T = projected.size(0);
    slots = empty({T, heads_ * parts.knn}, at::kLong);
    weights = empty({T, heads_ * parts.knn});
  }

  int add_to(Stages& stages, std::initializer_list<int> after) {
    const std::int64_t keys_bytes = parts_.keys->keys.size(2) * width_;
    return stages.add(0, query_.size(0) * heads_, keys_bytes, after,
                      [this](std::int64_t first, std::int64_t last) {
                        PackedLookup lookup(*parts_.keys, parts_.knn);
                        std::vector<float> normed(width_);
                        for (std::int64_t unit = first; unit < last; ++unit)
                          run(lookup, unit, normed.data());
                      });
  }

  at::Tensor slots, weights;

 private:
  void run(PackedLookup& lookup, std::int64_t unit, float* normed) {
    const float* query = query_.const_data_ptr<float>() + unit * width_;
    if (norm_.defined()) {
      const std::int64_t half = width_ / 2;
      const auto* scale = norm_.const_data_ptr<float>();
      for (const std::int64_t first : {std::int64_t{0}, half}) {
        normalise<float>(query + first, scale + first, half, parts_.norm_eps, normed + first);
      }
      query = normed;
    }
    lookup.run(unit % heads_, query, weights.mutable_data_ptr<float>() + unit * parts_.knn,
               slots.mutable_data_ptr<std::int64_t>() + unit * parts_.knn);
  }

  const at::Tensor& query_;
  const LayerParts& parts_;
  at::Tensor norm_;
  std::int64_t heads_, width_;
};

template <class Row>
float sigmoid(float x) {
  return rounded<Row>(1 / (1 + std::exp(-x)));
}
template <class Row>
float silu(float x) {
  return rounded<Row>(x / (1 + std::exp(-x)));
}

template <class Row>
Selected select(const at::Tensor& x_in, const LayerParts& parts) {
  const at::Tensor x = as_float(x_in);
  Product<Row> query(x, parts.query);
  Lookups lookups(query.out(), parts);
  std::optional<Product<Row>> swilu, gate;
  Stages stages;
  const int projected = query.add_to(stages, 0, query.rows(), {}, kAsItIs);
  // What does not need the query: before the lookups, so that nobody waits for its last rows, and
  // behind them, for those who have none of their own.
  std::int64_t half = 0;
  if (parts.swilu.weight.defined()) {
    swilu.emplace(x, parts.swilu);
    half = swilu->rows() / 2;
    swilu->add_to(stages, 0, half, {}, silu<Row>);
  }
  lookups.add_to(stages, {projected});
  if (swilu) swilu->add_to(stages, half, swilu->rows(), {}, silu<Row>);
  if (parts.gate.weight.defined()) {
    gate.emplace(x, parts.gate);
    gate->add_to(stages, 0, gate->rows(), {}, sigmoid<Row>);
  }
  stages.run();
  return {lookups.slots, lookups.weights, swilu ? swilu->out() : at::Tensor(),
          gate ? gate->out() : at::Tensor()};
}

template <class Row>
at::Tensor values(const at::Tensor& sums_in, const Selected& selected, const LayerParts& parts) {
  const at::Tensor sums = sums_in.contiguous();
  const std::int64_t T = sums.size(0), width = sums.size(1);
  at::Tensor y = empty({T, width});
  const auto* from = sums.const_data_ptr<float>();
  const auto* swilu = selected.swilu.defined() ? selected.swilu.const_data_ptr<float>() : nullptr;
  auto* to = y.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < T * width; ++i) {
    to[i] = rounded<Row>(from[i]);
    if (swilu != nullptr) to[i] = rounded<Row>(to[i] * swilu[i]);
  }
  if (parts.value.weight.defined()) y = product<Row>(y, parts.value);
  if (selected.gate.defined()) {
    const auto* gate = selected.gate.const_data_ptr<float>();
    auto* out = y.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < y.numel(); ++i)
      out[i] = rounded<Row>(out[i] * gate[i / y.size(1)]);
  }
  return y;
}

}  // namespace

at::Tensor linear_of_few_tokens(const at::Tensor& x, const Linear& linear) {
  check("linear_of_few_tokens", x, linear);
  const at::Tensor wide = as_float(x);
  return from_float(
      dispatch(x.scalar_type(), [&]<class Row>() { return product<Row>(wide, linear); }),
      x.scalar_type());
}

Selected select_of_few_tokens(const at::Tensor& x, const LayerParts& parts) {
  const char* op = "select_of_few_tokens";
  for (const Linear* linear : {&parts.query, &parts.swilu, &parts.gate}) {
    if (linear == &parts.query || linear->weight.defined()) check(op, x, *linear);
  }
  const at::Tensor& keys = parts.keys->keys;
  check_knn(op, parts.knn, keys.sym_size(2));
  TORCH_CHECK_VALUE(parts.query.weight.size(0) == keys.size(0) * 2 * keys.size(3), op,
                    ": expected queries for keys ", keys.sizes(), ", got weights ",
                    parts.query.weight.sizes());
  return dispatch(x.scalar_type(), [&]<class Row>() { return select<Row>(x, parts); });
}

at::Tensor values_of_few_tokens(const at::Tensor& sums, const Selected& selected,
                                const LayerParts& parts, at::ScalarType type) {
  check_type("values_of_few_tokens", "sums", sums, {at::kFloat});
  return from_float(dispatch(type, [&]<class Row>() { return values<Row>(sums, selected, parts); }),
                    type);
}

}  // namespace memlayers::ops
