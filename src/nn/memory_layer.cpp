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
#include "nn/lookup_hook.h"
#include "nn/lookup_inputs.h"
#include "nn/project.h"
#include "nn/rms_norm.h"
#include "ops/few_tokens.h"

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

namespace {

// What `keys` of the layer are scored as.
at::Tensor scored(const MemoryLayerImpl& layer, const at::Tensor& layer_keys) {
  const MemoryConfig& config = layer.config();
  at::Tensor keys = layer_keys.to(torch::kFloat);
  if (config.open_keys) keys = keys.slice(2, 0, *config.open_keys);
  if (!config.qk_norm) return keys;
  return rms_norm(keys, layer.key_norm.view({2, 1, config.k_dim / 2}), kNormEps);
}

}  // namespace

at::Tensor scored_keys(const MemoryLayerImpl& layer, const Snapshot* rows) {
  return scored(layer, layer.keys_of(rows));
}

void write_sub_keys(const SubKeys& sub_keys, std::int64_t layer, at::Tensor& keys) {
  const torch::NoGradGuard no_grad;
  const auto width = static_cast<std::size_t>(sub_keys.width);
  for (std::size_t i = 0; i < sub_keys.places.size(); ++i) {
    const SubKeyPlace& place = sub_keys.places[i];
    if (place.layer != layer) continue;
    if (sub_keys.width != keys.size(3) || place.head >= keys.size(0) ||
        place.index >= keys.size(2)) {
      throw Error("layer " + std::to_string(layer) + ": expected patches of sub-keys inside [" +
                  std::to_string(keys.size(0)) + ", 2, " + std::to_string(keys.size(2)) + ", " +
                  std::to_string(keys.size(3)) + "], got number " + std::to_string(place.index) +
                  " of head " + std::to_string(place.head) + " with " +
                  std::to_string(sub_keys.width) + " numbers");
    }
    // Only read; from_blob has no const twin.
    auto* numbers = const_cast<float*>(sub_keys.numbers.data() + i * width);
    keys.select(0, place.head)
        .select(0, place.half)
        .select(0, place.index)
        .copy_(torch::from_blob(numbers, {sub_keys.width}, torch::kFloat));
  }
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

MemoryLayerImpl::~MemoryLayerImpl() = default;

struct MemoryLayerImpl::CachedKeys {
  // Of which tensors they were made: address and number of changes.
  using Stamp = std::array<std::pair<const void*, std::uint32_t>, 2>;
  std::weak_ptr<const SubKeys> patched;  // gone with the last version that has it
  Stamp stamp;
  at::Tensor keys;
  std::shared_ptr<const PackedKeys> packed = {};  // null until decoding needs it
};

void MemoryLayerImpl::open_keys() {
  config_.open_keys.reset();
  cache_.clear();
}

std::shared_ptr<const SubKeys> MemoryLayerImpl::patched(const Snapshot* rows) const {
  const auto all = rows == nullptr ? nullptr : rows->sub_keys();
  if (all == nullptr) return nullptr;
  const auto first = std::ranges::lower_bound(all->places, SubKeyPlace{.layer = number});
  return first == all->places.end() || first->layer != number ? nullptr : all;
}

MemoryLayerImpl::CachedKeys& MemoryLayerImpl::cached(
    const std::shared_ptr<const SubKeys>& patched) const {
  const auto stamp_of = [](const at::Tensor& tensor) {
    return tensor.defined()
               ? std::pair<const void*, std::uint32_t>{tensor.const_data_ptr(), tensor._version()}
               : std::pair<const void*, std::uint32_t>{};
  };
  const CachedKeys::Stamp stamp{stamp_of(keys), stamp_of(key_norm)};
  const auto is_of = [](const CachedKeys& cached, const auto& other) {  // null: the layer's own
    return !cached.patched.owner_before(other) && !other.owner_before(cached.patched);
  };
  std::erase_if(cache_, [&](const auto& cached) {
    const bool is_own = is_of(*cached, std::weak_ptr<const SubKeys>());
    return cached->stamp != stamp || (!is_own && cached->patched.expired());
  });
  for (const auto& cached : cache_) {
    if (is_of(*cached, patched)) return *cached;
  }
  // Kept for any later call, whatever mode this one is in.
  const c10::InferenceMode not_only_inference(false);
  at::Tensor made = keys.detach();
  if (patched != nullptr) {
    made = made.clone();
    nn::write_sub_keys(*patched, number, made);
  }
  cache_.push_back(std::make_unique<CachedKeys>(CachedKeys{patched, stamp, made}));
  return *cache_.back();
}

at::Tensor MemoryLayerImpl::keys_of(const Snapshot* rows) const {
  const auto patched = this->patched(rows);
  if (patched == nullptr) return keys;
  const std::lock_guard lock(cache_mutex_);
  return cached(patched).keys;
}

std::shared_ptr<const PackedKeys> MemoryLayerImpl::packed_keys(const Snapshot* rows) const {
  const auto patched = this->patched(rows);
  const std::lock_guard lock(cache_mutex_);
  CachedKeys& found = cached(patched);
  if (found.packed == nullptr) {
    PackedKeys packed = pack_keys(nn::scored(*this, found.keys));
    packed.rows = nn::in_huge_pages(packed.rows);
    if (!packed.keys.is_alias_of(keys)) packed.keys = nn::in_huge_pages(packed.keys);
    found.packed = std::make_shared<const PackedKeys>(std::move(packed));
  }
  return found.packed;
}

std::tuple<at::Tensor, at::Tensor> MemoryLayerImpl::select(const at::Tensor& x,
                                                           const Snapshot* rows) {
  const std::int64_t T = x.size(0), H = config_.heads, d = config_.k_dim;
  const at::Tensor query = nn::scored_query(*this, nn::project(query_proj, x).view({T, H, d}));
  return nn::is_decoding(x) ? lookup_softmax(query, *packed_keys(rows), config_.knn)
                            : lookup_softmax(query, nn::scored_keys(*this, rows), config_.knn);
}

at::Tensor MemoryLayerImpl::sum_rows(const at::Tensor& x, const at::Tensor& slots,
                                     const at::Tensor& weights, const Snapshot* rows) {
  if (hook != nullptr) {
    const std::vector<std::int64_t> by_head{x.size(0), config_.heads, config_.knn};
    at::Tensor changeable = weights.view(by_head);
    (*hook)(*this, slots.view(by_head), changeable);
  }
  return config_.variant == MemoryVariant::kPeer
             ? pool_->peer_gather(x.to(torch::kFloat), slots, weights, rows)
             : pool_->gather(slots, weights, rows);
}

at::Tensor MemoryLayerImpl::forward_of_many(const at::Tensor& x, const Snapshot* rows) {
  const auto [slots, weights] = select(x, rows);
  pool_->prefetch(slots);
  at::Tensor swilu;  // while the disk reads the rows
  if (swilu_proj) swilu = torch::silu(nn::project(swilu_proj, x));
  at::Tensor y = sum_rows(x, slots.flatten(1), weights.flatten(1), rows).to(x.scalar_type());
  if (swilu_proj) y = y * swilu;
  if (value_proj) y = nn::project(value_proj, y);
  if (gate) y = y * torch::sigmoid(nn::project(gate, x));
  return y;
}

bool MemoryLayerImpl::is_few(const at::Tensor& x) const {
  const at::ScalarType type = x.scalar_type();
  if (!nn::is_decoding(x) || (type != torch::kFloat && type != torch::kBFloat16)) return false;
  return std::ranges::all_of(std::array{&query_proj, &swilu_proj, &gate, &value_proj},
                             [&](const torch::nn::Linear* linear) {
                               return !*linear || (*linear)->weight.scalar_type() == type;
                             });
}

at::Tensor MemoryLayerImpl::forward_of_few(const at::Tensor& x, const Snapshot* rows) {
  const auto keys_of_version = packed_keys(rows);
  const auto part = [](const torch::nn::Linear& linear) {
    return linear ? ops::Linear{linear->weight, linear->bias} : ops::Linear{};
  };
  const ops::LayerParts parts{.query = part(query_proj),
                              .swilu = part(swilu_proj),
                              .gate = part(gate),
                              .value = part(value_proj),
                              .query_norm = query_norm,
                              .norm_eps = kNormEps,
                              .keys = keys_of_version.get(),
                              .knn = config_.knn};
  const ops::Selected selected = ops::select_of_few_tokens(x, parts);
  pool_->prefetch(selected.slots);
  const at::Tensor sums = sum_rows(x, selected.slots, selected.weights, rows);
  return ops::values_of_few_tokens(sums, selected, parts, x.scalar_type());
}

at::Tensor MemoryLayerImpl::forward(const at::Tensor& x, const Snapshot* rows) {
  TORCH_CHECK_VALUE(x.dim() >= 1 && x.size(-1) == dim_, "MemoryLayer: expected x [..., ", dim_,
                    "], got ", x.sizes());
  const at::Tensor flat = x.dim() == 2 ? x : x.reshape({-1, dim_});  // [T, dim]
  std::optional<Snapshot> now;  // sub-keys and rows of one version
  if (rows == nullptr && (now = pool_->snapshot())) rows = &*now;
  const at::Tensor y = is_few(flat) ? forward_of_few(flat, rows) : forward_of_many(flat, rows);
  if (x.dim() == 2) return y;
  std::vector<std::int64_t> shape(x.sizes().begin(), x.sizes().end());
  shape.back() = y.size(-1);
  return y.view(shape);
}

}  // namespace memlayers
