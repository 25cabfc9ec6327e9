// SPDX-License-Identifier: Apache-2.0
#include "nn/asked.h"

#include <optional>
#include <vector>

#include "nn/linear.h"
#include "nn/product_keys.h"
#include "ops/linear/product.h"
#include "ops/lookup/packed_lookup.h"
#include "ops/rms_norm.h"
#include "ops/torch/check.h"

namespace memlayers::nn {
namespace {

constexpr const char* kName = "MemoryLayer";

// The lookups of all heads of all tokens from their projected queries.
class Lookups {
 public:
  Lookups(const MemoryLayerImpl& layer, const at::Tensor& projected, const PackedKeys& packed)
      : query_(projected),
        packed_(packed),
        heads_(packed.keys.size(0)),
        width_(2 * packed.keys.size(3)),
        knn_(layer.config().knn) {
    TORCH_CHECK_VALUE(projected.size(1) == heads_ * width_, kName, ": expected queries for keys ",
                      packed.keys.sizes(), ", got ", projected.sizes());
    ops::check_knn(kName, knn_, packed.keys.size(2));
    if (layer.query_norm.defined()) {
      ops::check_cpu(kName, {{"query_norm", layer.query_norm}});
      norm_ = ops::as_float(layer.query_norm);
    }
    slots = ops::empty({projected.size(0), heads_ * knn_}, at::kLong);
    weights = ops::empty({projected.size(0), heads_ * knn_});
  }

  int add_to(ops::Stages& stages, std::initializer_list<int> after) {
    const std::int64_t keys_bytes = packed_.keys.size(2) * width_;
    return stages.add(0, query_.size(0) * heads_, keys_bytes, after,
                      [this](std::int64_t first, std::int64_t last) {
                        ops::PackedLookup lookup(packed_, knn_);
                        std::vector<float> normed(width_);
                        for (std::int64_t unit = first; unit < last; ++unit) {
                          lookup.run(unit % heads_, scored(unit, normed.data()),
                                     weights.mutable_data_ptr<float>() + unit * knn_,
                                     slots.mutable_data_ptr<std::int64_t>() + unit * knn_);
                        }
                      });
  }

  at::Tensor slots, weights;

 private:
  // As scored_query(); `normed` has room for it.
  const float* scored(std::int64_t unit, float* normed) const {
    const float* query = query_.const_data_ptr<float>() + unit * width_;
    if (!norm_.defined()) return query;
    const std::int64_t half = width_ / 2;
    const auto* scale = norm_.const_data_ptr<float>();
    for (const std::int64_t first : {std::int64_t{0}, half}) {
      ops::normalise<float>(query + first, scale + first, half, kNormEps, normed + first);
    }
    return normed;
  }

  const at::Tensor& query_;
  const PackedKeys& packed_;
  at::Tensor norm_;
  std::int64_t heads_, width_, knn_;
};

}  // namespace

at::Tensor gate_of(const MemoryLayerImpl& layer, const at::Tensor& x) {
  Linear hidden = layer.gate_hidden, gate = layer.gate;
  if (!gate) return {};
  return torch::sigmoid(gate(hidden ? torch::silu(hidden(x)) : x));
}

Asked ask_token_by_token(const MemoryLayerImpl& layer, const at::Tensor& x,
                         const PackedKeys& packed_keys) {
  const auto product = [&](const Linear& linear, ops::Activation activation) {
    return ops::Product(kName, x, weights_of(*linear), linear->bias, activation);
  };
  ops::Product query = product(layer.query_proj, ops::Activation::kNone);
  Lookups lookups(layer, query.numbers(), packed_keys);
  std::optional<ops::Product> swilu, gate;  // of a gate of two layers the first
  ops::Stages stages;
  const int projected = query.add_to(stages, 0, query.columns());
  // What does not need the query: before the lookups, so that nobody waits for its last rows, and
  // behind them, for those who have none of their own.
  std::int64_t half = 0;
  if (layer.swilu_proj) {
    swilu.emplace(product(layer.swilu_proj, ops::Activation::kSilu));
    half = swilu->columns() / 2;
    swilu->add_to(stages, 0, half);
  }
  lookups.add_to(stages, {projected});
  if (swilu) swilu->add_to(stages, half, swilu->columns());
  if (layer.gate) {
    gate.emplace(layer.gate_hidden ? product(layer.gate_hidden, ops::Activation::kSilu)
                                   : product(layer.gate, ops::Activation::kSigmoid));
    gate->add_to(stages, 0, gate->columns());
  }
  stages.run();
  at::Tensor opened = gate ? gate->out() : at::Tensor();
  if (layer.gate_hidden) {
    ops::Product second(kName, opened, weights_of(*layer.gate), layer.gate->bias,
                        ops::Activation::kSigmoid);
    ops::Stages then;
    second.add_to(then, 0, second.columns());
    then.run();
    opened = second.out();
  }
  return {lookups.slots, lookups.weights, swilu ? swilu->out() : at::Tensor(), opened};
}

}  // namespace memlayers::nn
