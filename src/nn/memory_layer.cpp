// SPDX-License-Identifier: Apache-2.0
#include "memlayers/memory_layer.h"

#include <array>
#include <cmath>
#include <utility>

#include "memlayers/error.h"
#include "nn/lookup_hook.h"
#include "nn/lookup_inputs.h"
#include "nn/project.h"
#include "nn/rms_norm.h"

namespace memlayers {
namespace {

// Norm of query halves and sub-keys; added under the root.
constexpr double kNormEps = 1e-6;

torch::nn::Linear linear(std::int64_t in, std::int64_t out) {
  torch::nn::Linear layer(in, out);
  const torch::NoGradGuard no_grad;
  torch::nn::init::normal_(layer->weight, 0, 1 / std::sqrt(static_cast<double>(in)));
  torch::nn::init::zeros_(layer->bias);
  return layer;
}

thread_local const nn::LookupHook::Act* hook = nullptr;

}  // namespace

namespace nn {

at::Tensor scored_keys(const MemoryLayerImpl& layer) {
  const MemoryConfig& config = layer.config();
  at::Tensor keys = layer.keys.to(torch::kFloat);
  if (config.open_keys) keys = keys.slice(2, 0, *config.open_keys);
  if (!config.qk_norm) return keys;
  return rms_norm(keys, layer.key_norm.view({2, 1, config.k_dim / 2}), kNormEps);
}

at::Tensor scored_query(const MemoryLayerImpl& layer, const at::Tensor& projected) {
  const at::Tensor query = projected.to(torch::kFloat);
  if (!layer.config().qk_norm) return query;
  const std::int64_t T = query.size(0), h = query.size(1), half = query.size(2) / 2;
  return rms_norm(query.view({T, h, 2, half}), layer.query_norm.view({2, half}), kNormEps)
      .view({T, h, 2 * half});
}

LookupHook::LookupHook(Act act) : act_(std::move(act)) { hook = &act_; }
LookupHook::~LookupHook() { hook = nullptr; }

}  // namespace nn

MemoryLayerImpl::MemoryLayerImpl(std::int64_t dim, const MemoryConfig& config, MemoryPool pool)
    : dim_(dim), config_(config) {
  const bool is_peer = config.variant == MemoryVariant::kPeer;
  const std::int64_t v_dim = config.v_dim.value_or(dim);
  try {
    config.validate_layer(dim);
  } catch (const Error& error) {
    TORCH_CHECK_VALUE(false, error.what());
  }
  TORCH_CHECK_VALUE(!pool.is_empty(), "MemoryLayer: expected a pool, got none");
  const std::int64_t width = is_peer ? dim + v_dim : v_dim;
  TORCH_CHECK_VALUE(pool->options().n_keys == config.n_keys && pool->width() == width,
                    "MemoryLayer: expected a pool of n_keys ", config.n_keys, " and width ", width,
                    ", got ", pool->options().n_keys, " and ", pool->width());
  TORCH_CHECK_VALUE(!is_peer || !pool->is_sharded() || pool->options().u_width == dim,
                    "MemoryLayer: expected a pool of a memory group with u_width ", dim, ", got ",
                    pool->options().u_width);
  pool_ = register_module("pool", std::move(pool));

  const std::int64_t H = config.heads, d = config.k_dim;
  keys = register_parameter("keys", torch::empty({H, 2, config.n_keys, d / 2}));
  query_proj = register_module("query_proj", torch::nn::Linear(dim, H * d));
  {
    const torch::NoGradGuard no_grad;
    const double bound = 1 / std::sqrt(static_cast<double>(d));
    torch::nn::init::uniform_(keys, -bound, bound);
    torch::nn::init::xavier_uniform_(query_proj->weight);
    torch::nn::init::zeros_(query_proj->bias);
  }
  if (config.qk_norm) {
    // With unit query entries the score of a slot then starts with variance 1.
    query_norm = register_parameter("query_norm", torch::ones({d}));
    key_norm =
        register_parameter("key_norm", torch::full({d}, 1 / std::sqrt(static_cast<double>(d))));
  }
  const bool is_plus = config.variant == MemoryVariant::kMemoryPlus;
  if (is_plus) swilu_proj = register_module("swilu_proj", linear(dim, v_dim));
  if (config.value_proj.value_or(is_plus || v_dim != dim)) {
    value_proj = register_module("value_proj", linear(v_dim, dim));
  }
  if (config.gate) gate = register_module("gate", linear(dim, 1));
}

at::Tensor MemoryLayerImpl::sub_keys() const { return nn::scored_keys(*this); }

void MemoryLayerImpl::open_keys() {
  config_.open_keys.reset();
  packed_ = nullptr;
}

std::shared_ptr<const PackedKeys> MemoryLayerImpl::packed_keys() {
  const auto stamp = [](const at::Tensor& tensor) {
    return tensor.defined()
               ? std::pair<const void*, std::uint32_t>{tensor.const_data_ptr(), tensor._version()}
               : std::pair<const void*, std::uint32_t>{};
  };
  const std::lock_guard lock(packed_mutex_);
  const std::array now{stamp(keys), stamp(key_norm)};
  if (packed_ == nullptr || now != packed_stamp_) {
    PackedKeys packed = pack_keys(sub_keys());
    packed.rows = nn::in_huge_pages(packed.rows);
    packed_ = std::make_shared<const PackedKeys>(std::move(packed));
    packed_stamp_ = now;
  }
  return packed_;
}

std::tuple<at::Tensor, at::Tensor> MemoryLayerImpl::select(const at::Tensor& x) {
  const std::int64_t T = x.size(0), H = config_.heads, d = config_.k_dim;
  const at::Tensor query = nn::scored_query(*this, nn::project(query_proj, x).view({T, H, d}));
  auto [slots, weights] = nn::is_decoding(x) ? lookup_softmax(query, *packed_keys(), config_.knn)
                                             : lookup_softmax(query, sub_keys(), config_.knn);
  pool_->prefetch(slots);
  return {slots, weights};
}

at::Tensor MemoryLayerImpl::forward(const at::Tensor& x, const Snapshot* rows) {
  TORCH_CHECK_VALUE(x.dim() >= 1 && x.size(-1) == dim_, "MemoryLayer: expected x [..., ", dim_,
                    "], got ", x.sizes());
  const at::Tensor flat = x.reshape({-1, dim_});  // [T, dim]
  const std::int64_t T = flat.size(0), J = config_.heads * config_.knn;
  auto [slots, weights] = select(flat);
  if (hook != nullptr) (*hook)(*this, slots, weights);
  slots = slots.view({T, J});
  weights = weights.view({T, J});
  at::Tensor y = config_.variant == MemoryVariant::kPeer
                     ? pool_->peer_gather(flat.to(torch::kFloat), slots, weights, rows)
                     : pool_->gather(slots, weights, rows);
  y = y.to(x.scalar_type());
  if (swilu_proj) y = y * torch::silu(nn::project(swilu_proj, flat));
  if (value_proj) y = nn::project(value_proj, y);
  if (gate) y = y * torch::sigmoid(nn::project(gate, flat));
  std::vector<std::int64_t> shape(x.sizes().begin(), x.sizes().end());
  shape.back() = y.size(-1);
  return y.view(shape);
}

}  // namespace memlayers
