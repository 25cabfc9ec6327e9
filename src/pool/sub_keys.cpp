// SPDX-License-Identifier: Apache-2.0
#include "pool/sub_keys.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "io/mapped_read.h"

namespace memlayers {

SubKeyGrid sub_key_grid(const ModelConfig& config) {
  if (!config.memory || config.memory->is_ngram()) return {};
  SubKeyGrid grid{.layers = config.memory_layers(),
                  .heads = config.memory->heads,
                  .n_keys = config.memory->n_keys,
                  .width = config.memory->k_dim / 2};
  std::ranges::sort(grid.layers);
  return grid;
}

namespace pool {
namespace {

// As they lie in a file.
static_assert(sizeof(SubKeyPlace) == 4 * sizeof(std::int64_t));

std::string text(const SubKeyPlace& place) {
  return "sub-key " + std::to_string(place.index) + " of layer " + std::to_string(place.layer) +
         ", head " + std::to_string(place.head) + ", half " + std::to_string(place.half);
}

}  // namespace

std::vector<io::TensorToWrite> tensors_of(const SubKeys& keys) {
  if (keys.places.empty()) return {};
  const auto count = static_cast<std::int64_t>(keys.places.size());
  return {{"key_places", io::ElementType::kI64, {count, 4}, place_bytes(keys)},
          {"keys", io::ElementType::kF32, {count, keys.width}, number_bytes(keys)}};
}

SubKeys read_sub_keys(const io::SafetensorsFile& file) {
  if (!file.tensors().contains("keys") && !file.tensors().contains("key_places")) return {};
  const io::TensorView &places = file.at("key_places"), &numbers = file.at("keys");
  if (places.type != io::ElementType::kI64 || places.shape.size() != 2 || places.shape[1] != 4 ||
      numbers.type != io::ElementType::kF32 || numbers.shape.size() != 2 ||
      numbers.shape[0] != places.shape[0]) {
    throw Error(file.path() +
                ": tensors \"key_places\", \"keys\": expected I64 [m, 4] and F32 [m, k_dim / 2], "
                "got other shapes or types");
  }
  SubKeys keys{.width = numbers.shape[1]};
  if (places.shape[0] == 0) return {};
  std::vector<SubKeyPlace> found(static_cast<std::size_t>(places.shape[0]));
  std::vector<float> as_found(numbers.bytes.size() / sizeof(float));
  io::copy_mapped(found.data(), places.bytes);
  io::copy_mapped(as_found.data(), numbers.bytes);
  std::vector<std::size_t> order(found.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return found[i]; });
  const auto width = static_cast<std::size_t>(keys.width);
  for (const std::size_t i : order) {
    keys.places.push_back(found[i]);
    const std::span one = std::span(as_found).subspan(i * width, width);
    keys.numbers.insert(keys.numbers.end(), one.begin(), one.end());
  }
  return keys;
}

SubKeys to_sub_keys(std::span<const std::byte> bytes, std::int64_t count, std::int64_t width) {
  if (count == 0) return {};
  SubKeys keys{.width = width};
  keys.places.resize(static_cast<std::size_t>(count));
  keys.numbers.resize(static_cast<std::size_t>(count * width));
  const std::size_t places = place_bytes(keys).size();
  io::copy_mapped(keys.places.data(), bytes.first(places));
  io::copy_mapped(keys.numbers.data(), bytes.subspan(places, number_bytes(keys).size()));
  return keys;
}

void check_sub_keys(const std::string& what, const SubKeys& keys) {
  if (keys.width < 0 || (keys.width == 0) != keys.places.empty() ||
      keys.numbers.size() / std::max<std::size_t>(1, keys.places.size()) !=
          static_cast<std::size_t>(keys.width) ||
      keys.numbers.size() != keys.places.size() * static_cast<std::size_t>(keys.width)) {
    throw Error(what + ": expected " + std::to_string(keys.width) + " numbers for each of " +
                std::to_string(keys.places.size()) + " sub-keys, got " +
                std::to_string(keys.numbers.size()));
  }
  for (std::size_t i = 0; i < keys.places.size(); ++i) {
    const SubKeyPlace& place = keys.places[i];
    if (place.layer < 0 || place.head < 0 || place.index < 0 || place.half < 0 || place.half > 1) {
      throw Error(what + ": expected sub-keys of half 0 or 1 and numbers >= 0, got " + text(place));
    }
    if (i > 0 && place == keys.places[i - 1]) {
      throw Error(what + ": expected each sub-key once, got " + text(place) + " twice");
    }
    if (i > 0 && place < keys.places[i - 1]) {
      throw Error(what + ": expected ascending sub-keys, got " + text(place) + " behind " +
                  text(keys.places[i - 1]));
    }
    if (!std::ranges::all_of(numbers_of(keys, i), [](float x) { return std::isfinite(x); })) {
      throw Error(what + ": expected finite numbers, got NaN or infinity in " + text(place));
    }
  }
}

void check_fits(const std::string& what, const SubKeys& keys, const SubKeyGrid& grid) {
  if (keys.places.empty()) return;
  if (keys.width != grid.width) {
    throw Error(what + ": expected sub-keys of " + std::to_string(grid.width) +
                " numbers, the model's k_dim / 2, got " + std::to_string(keys.width));
  }
  for (const SubKeyPlace& place : keys.places) {
    if (std::ranges::binary_search(grid.layers, place.layer) && place.head < grid.heads &&
        place.index < grid.n_keys) {
      continue;
    }
    std::string layers;
    for (const std::int64_t layer : grid.layers) {
      layers += (layers.empty() ? "" : ", ") + std::to_string(layer);
    }
    throw Error(what + ": expected sub-keys that the model has (" + std::to_string(grid.n_keys) +
                " in each half of " + std::to_string(grid.heads) + " heads of layers " + layers +
                "), got " + text(place));
  }
}

std::optional<std::size_t> find(const SubKeys& keys, const SubKeyPlace& place) {
  const auto found = std::ranges::lower_bound(keys.places, place);
  if (found == keys.places.end() || *found != place) return std::nullopt;
  return static_cast<std::size_t>(found - keys.places.begin());
}

SubKeys together(std::span<const SubKeys* const> layers) {
  std::map<SubKeyPlace, std::span<const float>> top;
  SubKeys all;
  for (const SubKeys* keys : layers) {
    if (keys->places.empty()) continue;
    if (all.width != 0 && keys->width != all.width) {
      throw Error("patches: expected sub-keys of " + std::to_string(all.width) +
                  " numbers in all of them, got " + std::to_string(keys->width) + " in one");
    }
    all.width = keys->width;
    for (std::size_t i = 0; i < keys->places.size(); ++i) {
      top[keys->places[i]] = numbers_of(*keys, i);
    }
  }
  for (const auto& [place, numbers] : top) {
    all.places.push_back(place);
    all.numbers.insert(all.numbers.end(), numbers.begin(), numbers.end());
  }
  return all;
}

}  // namespace pool
}  // namespace memlayers
