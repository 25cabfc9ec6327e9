// SPDX-License-Identifier: Apache-2.0
#include "memlayers/memory_layer.h"

#include <torch/nn/init.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

#include "memlayers/error.h"
#include "nn/asked.h"
#include "nn/linear.h"
#include "nn/lookup_hook.h"
#include "nn/ngrams.h"
#include "nn/output_hook.h"
#include "nn/product_keys.h"
#include "nn/rms_norm.h"
#include "nn/token_by_token.h"
#include "nn/unset_weights.h"

namespace memlayers {
namespace {

void draw(Linear& layer) {
  const torch::NoGradGuard no_grad;
  const auto in = static_cast<double>(layer->options.in_features());
  torch::nn::init::normal_(layer->weight, 0, 1 / std::sqrt(in));
  torch::nn::init::zeros_(layer->bias);
}

Linear linear(std::int64_t in, std::int64_t out) {
  Linear layer = nn::make_linear(in, out, /*has_bias=*/true);
  if (!nn::are_weights_unset()) draw(layer);
  return layer;
}

}  // namespace

MemoryLayerImpl::MemoryLayerImpl(std::int64_t dim, const MemoryConfig& config, MemoryPool pool)
    : dim_(dim), config_(config), product_keys_(std::make_unique<nn::ProductKeys>(*this)) {
  const bool is_peer = config.is_peer();
  const std::int64_t v_dim = config.value_dim(dim);
  try {
    config.validate_layer(dim);
  } catch (const Error& error) {
    TORCH_CHECK_VALUE(false, error.what());
  }
  TORCH_CHECK_VALUE(!pool.is_empty(), "MemoryLayer: expected a pool, got none");
  const std::int64_t width = config.row_width(dim);
  TORCH_CHECK_VALUE(pool->options().n_keys == config.n_keys && pool->width() == width,
                    "MemoryLayer: expected a pool of n_keys ", config.n_keys, " and width ", width,
                    ", got ", pool->options().n_keys, " and ", pool->width());
  TORCH_CHECK_VALUE(!is_peer || !pool->is_sharded() || pool->options().u_width == dim,
                    "MemoryLayer: expected a pool of a memory group with u_width ", dim, ", got ",
                    pool->options().u_width);
  pool_ = register_module("pool", std::move(pool));

  make_lookup();
  if (config.has_swilu()) swilu_proj = register_module("swilu_proj", linear(dim, v_dim));
  if (config.has_value_proj(dim)) {
    value_proj = register_module("value_proj", linear(v_dim, dim));
  }
  if (config.gate_dim) gate_hidden = register_module("gate_hidden", linear(dim, *config.gate_dim));
  if (config.gate) gate = register_module("gate", linear(config.gate_dim.value_or(dim), 1));
}

MemoryLayerImpl::~MemoryLayerImpl() = default;

void MemoryLayerImpl::make_lookup() {
  if (config_.is_ngram()) {
    key_proj = register_module("key_proj", linear(config_.value_dim(dim_), dim_));
    query_norm = register_parameter("query_norm", torch::empty({dim_}));
    key_norm = register_parameter("key_norm", torch::empty({dim_}));
  } else {
    const std::int64_t H = config_.heads, d = config_.k_dim;
    const bool is_trained = !config_.frozen_keys;
    keys = register_parameter("keys", torch::empty({H, 2, config_.n_keys, d / 2}), is_trained);
    query_proj = register_module("query_proj", nn::make_linear(dim_, H * d, /*has_bias=*/true));
    if (config_.qk_norm) {
      query_norm = register_parameter("query_norm", torch::empty({d}));
      key_norm = register_parameter("key_norm", torch::empty({d}), is_trained);
    }
  }
  if (!nn::are_weights_unset()) reset_lookup();
}

void MemoryLayerImpl::reset_lookup() {
  const torch::NoGradGuard no_grad;
  if (config_.is_ngram()) {
    query_norm.fill_(1);
    key_norm.fill_(1);
    return;
  }
  const double bound = 1 / std::sqrt(static_cast<double>(config_.k_dim));
  torch::nn::init::uniform_(keys, -bound, bound);
  torch::nn::init::xavier_uniform_(query_proj->weight);
  torch::nn::init::zeros_(query_proj->bias);
  if (config_.qk_norm) {
    // With unit query entries the score of a slot then starts with variance 1.
    query_norm.fill_(1);
    key_norm.fill_(bound);
  }
}

void MemoryLayerImpl::reset_parameters() {
  reset_lookup();
  for (Linear* layer : {&key_proj, &swilu_proj, &value_proj, &gate_hidden, &gate}) {
    if (*layer) draw(*layer);
  }
}

void MemoryLayerImpl::open_keys() {
  config_.open_keys.reset();
  product_keys_->forget();
}

at::Tensor MemoryLayerImpl::keys_of(const Snapshot* rows) const {
  product_keys_->expect_change();
  return product_keys_->of(rows);
}

std::tuple<at::Tensor, at::Tensor> MemoryLayerImpl::select(const at::Tensor& x,
                                                           const Snapshot* rows) {
  TORCH_CHECK_VALUE(
      !config_.is_ngram(),
      "MemoryLayer::select: expected a memory with keys, got one of variant \"ngram\"");
  product_keys_->expect_change();
  return look_up(x, rows);
}

std::tuple<at::Tensor, at::Tensor> MemoryLayerImpl::look_up(const at::Tensor& x,
                                                            const Snapshot* rows) {
  const std::int64_t T = x.size(0), H = config_.heads, d = config_.k_dim;
  const at::Tensor query = nn::scored_query(*this, query_proj(x).view({T, H, d}));
  return nn::is_token_by_token(x)
             ? lookup_softmax(query, *product_keys_->packed(rows), config_.knn)
             : lookup_softmax(query, nn::scored_keys(*this, product_keys_->of(rows)), config_.knn);
}

at::Tensor MemoryLayerImpl::sum_rows(const at::Tensor& x, const at::Tensor& slots,
                                     const at::Tensor& weights, const Snapshot* rows) {
  nn::LookupHook::show(*this, slots, weights);
  const at::Tensor scaled = output_scale == 1 ? weights : weights * output_scale;
  return config_.variant == MemoryVariant::kPeer
             ? pool_->peer_gather(x.to(torch::kFloat), slots, scaled, rows)
             : pool_->gather(slots, scaled, rows);
}

nn::Asked MemoryLayerImpl::ask(const at::Tensor& x, const Snapshot* rows) {
  const bool is_token_by_token =
      nn::is_token_by_token(x) &&
      std::ranges::all_of(std::array{&query_proj, &swilu_proj, &gate_hidden, &gate, &value_proj},
                          [&](const Linear* linear) {
                            return !*linear || nn::weights_of(**linear).take(x.scalar_type());
                          });
  if (is_token_by_token) {
    nn::Asked asked = nn::ask_token_by_token(*this, x, *product_keys_->packed(rows));
    pool_->prefetch(asked.slots);
    return asked;
  }
  const auto [slots, weights] = look_up(x, rows);
  pool_->prefetch(slots);
  // The rest while the disk reads the rows.
  return {.slots = slots.flatten(1),
          .weights = weights.flatten(1),
          .swilu = swilu_proj ? torch::silu(swilu_proj(x)) : at::Tensor(),
          .gate = nn::gate_of(*this, x)};
}

nn::Asked MemoryLayerImpl::hash(const at::Tensor& suffixes, std::int64_t tokens) {
  TORCH_CHECK_VALUE(suffixes.defined() && suffixes.size(0) == tokens,
                    "MemoryLayer: expected suffixes of ", tokens,
                    " tokens for variant \"ngram\", got ",
                    suffixes.defined() ? std::to_string(suffixes.size(0)) : "none");
  const at::Tensor slots = nn::ngram_slots(suffixes, number, config_).flatten(1);
  pool_->prefetch(slots);
  // The sum of rows is then of the size of one.
  const double weight = 1 / std::sqrt(static_cast<double>(slots.size(1)));
  return {.slots = slots, .weights = torch::full(slots.sizes(), weight), .swilu = {}, .gate = {}};
}

at::Tensor MemoryLayerImpl::opened(const at::Tensor& x, const at::Tensor& y) {
  const at::Tensor key = nn::rms_norm(key_proj(y), key_norm, nn::kNormEps);
  return nn::sigmoid_of_dots(nn::rms_norm(x, query_norm, nn::kNormEps), key,
                             1 / std::sqrt(static_cast<double>(dim_)));
}

at::Tensor MemoryLayerImpl::forward(const at::Tensor& x, const Snapshot* rows, bool continues,
                                    const at::Tensor& suffixes) {
  TORCH_CHECK_VALUE(x.dim() >= 1 && x.size(-1) == dim_, "MemoryLayer: expected x [..., ", dim_,
                    "], got ", x.sizes());
  const at::Tensor flat = x.dim() == 2 ? x : x.reshape({-1, dim_});  // [T, dim]
  if (!continues) product_keys_->expect_change();
  std::optional<Snapshot> now;  // sub-keys and rows of one version
  if (rows == nullptr && (now = pool_->snapshot())) rows = &*now;
  const nn::Asked asked = config_.is_ngram() ? hash(suffixes, flat.size(0)) : ask(flat, rows);
  at::Tensor y = nn::as_type(sum_rows(flat, asked.slots, asked.weights, rows), x.scalar_type());
  const at::Tensor gate_of_tokens = config_.is_ngram() ? opened(flat, y) : asked.gate;
  if (swilu_proj) y = nn::times(y, asked.swilu);
  if (value_proj) y = value_proj(y);
  if (gate_of_tokens.defined()) y = nn::times(y, gate_of_tokens);
  y = nn::OutputHook::given(*this, flat, y);
  if (x.dim() == 2) return y;
  std::vector<std::int64_t> shape(x.sizes().begin(), x.sizes().end());
  shape.back() = y.size(-1);
  return y.view(shape);
}

}  // namespace memlayers
