// SPDX-License-Identifier: Apache-2.0
#include "nn/product_keys.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <string>
#include <utility>

#include "io/folder.h"
#include "memlayers/error.h"
#include "nn/huge_pages.h"
#include "nn/rms_norm.h"
#include "nn/table.h"
#include "ops/borrowed.h"
#include "ops/parallel.h"

namespace memlayers::nn {
namespace {

// A hash of the bytes, by all threads: they are read once, from memory.
std::uint64_t hash_of(const at::Tensor& tensor) {
  constexpr std::int64_t kBlock = 1 << 18;
  const at::Tensor lined_up = tensor.detach().cpu().contiguous();
  const std::span<const std::byte> bytes = bytes_of(lined_up);
  const auto size = static_cast<std::int64_t>(bytes.size());
  std::vector<std::uint64_t> hashes((size + kBlock - 1) / kBlock);
  ops::parallel_ranges(static_cast<std::int64_t>(hashes.size()), kBlock,
                       [&](std::int64_t first, std::int64_t last) {
                         for (std::int64_t i = first; i < last; ++i) {
                           const std::int64_t at = i * kBlock, count = std::min(kBlock, size - at);
                           hashes[i] = io::xxh3(bytes.subspan(at, count));
                         }
                       });
  return io::xxh3(std::as_bytes(std::span(hashes)));
}

std::uint64_t content_of(const MemoryLayerImpl& layer) {
  const std::uint64_t keys = hash_of(layer.keys);
  return layer.key_norm.defined() ? keys ^ hash_of(layer.key_norm) : keys;
}

}  // namespace

at::Tensor scored_keys(const MemoryLayerImpl& layer, const at::Tensor& layer_keys) {
  const MemoryConfig& config = layer.config();
  at::Tensor keys = layer_keys.to(torch::kFloat);
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
    keys.select(0, place.head)
        .select(0, place.half)
        .select(0, place.index)
        .copy_(ops::borrowed(sub_keys.numbers.data() + i * width, {sub_keys.width}));
  }
}

struct ProductKeys::Copy {
  std::weak_ptr<const SubKeys> patched;  // gone with the last version that has it
  at::Tensor keys;
  std::shared_ptr<const PackedKeys> packed = {};  // null until decoding needs it

  bool is_of(const auto& other) const {  // null: the layer's own
    return !patched.owner_before(other) && !other.owner_before(patched);
  }
};

ProductKeys::ProductKeys(const MemoryLayerImpl& layer) : layer_(layer) {}
ProductKeys::~ProductKeys() = default;

std::shared_ptr<const SubKeys> ProductKeys::patched(const Snapshot* rows) const {
  const auto all = rows == nullptr ? nullptr : rows->sub_keys();
  if (all == nullptr) return nullptr;
  const auto first = std::ranges::lower_bound(all->places, SubKeyPlace{.layer = layer_.number});
  return first == all->places.end() || first->layer != layer_.number ? nullptr : all;
}

ProductKeys::Stamp ProductKeys::stamp_of(const at::Tensor& tensor) {
  if (!tensor.defined()) return {};
  return {tensor.const_data_ptr(), tensor.is_inference() ? 0 : tensor._version()};
}

void ProductKeys::drop_stale() const {
  const Stamp keys = stamp_of(layer_.keys), norm = stamp_of(layer_.key_norm);
  const bool is_known = !copies_.empty() && keys == keys_stamp_ && norm == norm_stamp_;
  if (!is_known || !is_compared_) {
    const std::uint64_t content = content_of(layer_);
    if (!is_known || content != content_) copies_.clear();
    content_ = content;
    is_compared_ = true;
  }
  keys_stamp_ = keys;
  norm_stamp_ = norm;
  std::erase_if(copies_, [](const auto& copy) {
    return !copy->is_of(std::weak_ptr<const SubKeys>()) && copy->patched.expired();
  });
}

ProductKeys::Copy& ProductKeys::copy_of(const std::shared_ptr<const SubKeys>& patched) const {
  drop_stale();
  for (const auto& copy : copies_) {
    if (copy->is_of(patched)) return *copy;
  }
  // Kept for any later call, whatever mode this one is in.
  const c10::InferenceMode not_only_inference(false);
  at::Tensor made = layer_.keys.detach();
  if (patched != nullptr) {
    made = made.clone();
    write_sub_keys(*patched, layer_.number, made);
  }
  copies_.push_back(std::make_unique<Copy>(Copy{patched, made}));
  return *copies_.back();
}

at::Tensor ProductKeys::of(const Snapshot* rows) const {
  const auto patched = this->patched(rows);
  if (patched == nullptr) return layer_.keys;
  const std::lock_guard lock(mutex_);
  return copy_of(patched).keys;
}

std::shared_ptr<const PackedKeys> ProductKeys::packed(const Snapshot* rows) const {
  const auto patched = this->patched(rows);
  const std::lock_guard lock(mutex_);
  Copy& found = copy_of(patched);
  if (found.packed == nullptr) {
    PackedKeys packed = pack_keys(scored_keys(layer_, found.keys));
    packed.rows = in_huge_pages(packed.rows);
    if (!packed.keys.is_alias_of(layer_.keys)) packed.keys = in_huge_pages(packed.keys);
    found.packed = std::make_shared<const PackedKeys>(std::move(packed));
  }
  return found.packed;
}

void ProductKeys::expect_change() const {
  const std::lock_guard lock(mutex_);
  is_compared_ = false;
}

void ProductKeys::forget() const {
  const std::lock_guard lock(mutex_);
  copies_.clear();
}

}  // namespace memlayers::nn
