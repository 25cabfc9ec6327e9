// SPDX-License-Identifier: Apache-2.0
#include "nn/packed_weights.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "io/gguf/blocks.h"
#include "memlayers/error.h"
#include "nn/linear.h"
#include "nn/table.h"
#include "ops/linear/weights.h"
#include "ops/parallel.h"

namespace memlayers {
namespace nn {
namespace {

using io::gguf::TensorType;
using kernels::PackedWeights;
using kernels::WeightCode;
using kernels::WeightGroup;

WeightCode code_of(const TensorType& type) {
  const auto& types = io::gguf::multiplied_types();
  if (&type == types[0]) return WeightCode::kInt8;
  return &type == types[1] ? WeightCode::kInt4 : WeightCode::kInt4Offset;
}
const TensorType& type_of(WeightCode code) {
  const auto& types = io::gguf::multiplied_types();
  return *types[code == WeightCode::kInt8 ? 0 : code == WeightCode::kInt4 ? 1 : 2];
}

// A block: scale, offset where there is one, numbers; of 4 bits column i and i + 16 share a byte.
constexpr std::int64_t kHalfGroup = kernels::kWeightGroup / 2;

WeightGroup from_block(WeightCode code, const std::byte* block) {
  WeightGroup group;
  std::memcpy(&group.scale, block, sizeof group.scale);
  block += sizeof group.scale;
  if (code == WeightCode::kInt4Offset) {
    std::memcpy(&group.offset, block, sizeof group.offset);
    block += sizeof group.offset;
  }
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(block);
  if (code == WeightCode::kInt8) {
    for (std::int64_t i = 0; i < kernels::kWeightGroup; ++i) group.numbers[i] = bytes[i] ^ 0x80U;
  } else {
    for (std::int64_t i = 0; i < kHalfGroup; ++i) {
      group.numbers[i] = bytes[i] & 0xfU;
      group.numbers[kHalfGroup + i] = bytes[i] >> 4U;
    }
  }
  return group;
}

void to_block(WeightCode code, const WeightGroup& group, std::byte* block) {
  std::memcpy(block, &group.scale, sizeof group.scale);
  block += sizeof group.scale;
  if (code == WeightCode::kInt4Offset) {
    std::memcpy(block, &group.offset, sizeof group.offset);
    block += sizeof group.offset;
  }
  auto* bytes = reinterpret_cast<std::uint8_t*>(block);
  if (code == WeightCode::kInt8) {
    for (std::int64_t i = 0; i < kernels::kWeightGroup; ++i) bytes[i] = group.numbers[i] ^ 0x80U;
  } else {
    for (std::int64_t i = 0; i < kHalfGroup; ++i) {
      bytes[i] = static_cast<std::uint8_t>(group.numbers[i] | group.numbers[kHalfGroup + i] << 4U);
    }
  }
}

bool is_finite(std::uint16_t half) { return (half & 0x7c00U) != 0x7c00U; }

// `where()` is asked only where it is needed: of a model's groups there are millions.
template <class Where>
void check_scales(const Where& where, const WeightGroup& group) {
  if (is_finite(group.scale) && is_finite(group.offset)) return;
  throw Error(where() + ": expected finite scales, got NaN or infinity");
}

// Weights that are about to be packed, and who gets them.
struct ToPack {
  std::string name;
  PackedWeights shape;
  std::function<void(std::shared_ptr<const ops::Weights>)> give;
};

// The modules whose weights may be packed, with the name of each.
template <class F>
void for_each_packable(const Llama& model, const F& f) {
  f("model.embed_tokens.weight", model->embedding());
  for (auto& [name, linear] : model->packable_linears()) f(name, linear);
}

// Fills each, rows by fill(weights, first, last, tiles), in one memory in huge pages.
void pack(
    const std::vector<ToPack>& all,
    const std::function<void(const ToPack&, std::int64_t, std::int64_t, std::uint8_t*)>& fill) {
  constexpr std::int64_t kAligned = 64;
  std::vector<std::int64_t> at{0};
  for (const ToPack& weights : all) {
    const std::int64_t bytes = weights.shape.tile_count() * weights.shape.tile_bytes();
    at.push_back(at.back() + (bytes + kAligned - 1) / kAligned * kAligned);
  }
  if (all.empty()) return;
  const at::Tensor table = make_table({at.back()}, at::kByte, std::nullopt).tensor;
  std::vector<std::shared_ptr<const ops::Weights>> packed;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const PackedWeights& shape = all[i].shape;
    const at::Tensor tiles = table.narrow(0, at[i], shape.tile_count() * shape.tile_bytes());
    auto* to = tiles.mutable_data_ptr<std::uint8_t>();
    ops::parallel_ranges(shape.tile_count(), shape.tile_bytes() * 4,
                         [&](std::int64_t begin, std::int64_t end) {
                           fill(all[i], begin * kernels::kWeightTile,
                                std::min(end * kernels::kWeightTile, shape.rows), to);
                         });
    packed.push_back(
        std::make_shared<const ops::Weights>(tiles, shape.code, shape.rows, shape.width));
  }
  for (std::size_t i = 0; i < all.size(); ++i) all[i].give(packed[i]);  // all, or none
}

template <class Module>
std::function<void(std::shared_ptr<const ops::Weights>)> giver(Module module) {
  return [module](std::shared_ptr<const ops::Weights> weights) mutable {
    module->set_packed(std::move(weights));
  };
}

}  // namespace

void read_packed(Llama& model, const io::ModelSource& source) {
  std::vector<ToPack> all;
  for_each_packable(model, [&](const std::string& name, auto module) {
    const TensorType* type = source.blocks(name);
    if (type == nullptr) return;
    const auto& shape = source.weights().at(name).shape;
    all.push_back({name, {code_of(*type), shape[0], shape[1]}, giver(module)});
  });
  pack(all, [&](const ToPack& weights, std::int64_t first, std::int64_t last, std::uint8_t* tiles) {
    constexpr std::int64_t kAtOnce = 256;  // rows, before their pages leave memory
    const std::int64_t blocks = weights.shape.width / kernels::kWeightGroup,
                       bytes = type_of(weights.shape.code).block_bytes;
    std::vector<std::byte> rows(static_cast<std::size_t>(kAtOnce * blocks * bytes));
    for (std::int64_t r = first; r < last; ++r) {
      const std::int64_t row = (r - first) % kAtOnce;
      if (row == 0) {
        const std::int64_t count = std::min(kAtOnce, last - r);
        source.read_blocks(weights.name, r,
                           std::span(rows).first(static_cast<std::size_t>(count * blocks * bytes)));
      }
      for (std::int64_t b = 0; b < blocks; ++b) {
        const WeightGroup group =
            from_block(weights.shape.code, rows.data() + (row * blocks + b) * bytes);
        check_scales([&] { return source.path() + ": tensor \"" + weights.name + "\""; }, group);
        set_group(weights.shape, tiles, r, b, group);
      }
    }
  });
}

std::int64_t packed_bytes(const Llama& model) {
  std::int64_t bytes = 0;
  for_each_packable(model, [&](const std::string& /*name*/, const auto& module) {
    if (const ops::Weights* weights = module->packed()) {
      bytes += weights->out * (weights->in / kernels::kWeightGroup) *
               type_of(*weights->code).block_bytes;
    }
  });
  return bytes;
}

std::map<std::string, Blocks> packed_blocks(const Llama& model) {
  std::map<std::string, Blocks> found;
  for_each_packable(model, [&](const std::string& name, const auto& module) {
    if (module->packed() == nullptr) return;
    const PackedWeights weights = *module->packed()->packed();
    const TensorType& type = type_of(weights.code);
    const std::int64_t blocks = weights.width / kernels::kWeightGroup;
    at::Tensor bytes = torch::empty({weights.rows, blocks * type.block_bytes}, torch::kByte);
    auto* to = reinterpret_cast<std::byte*>(bytes.mutable_data_ptr<std::uint8_t>());
    ops::parallel_ranges(weights.rows, bytes.size(1) * 4,
                         [&](std::int64_t begin, std::int64_t end) {
                           for (std::int64_t row = begin; row < end; ++row) {
                             for (std::int64_t b = 0; b < blocks; ++b) {
                               to_block(weights.code, group_of(weights, row, b),
                                        to + (row * blocks + b) * type.block_bytes);
                             }
                           }
                         });
    found.emplace(name, Blocks{&type, bytes});
  });
  return found;
}

}  // namespace nn

void LlamaImpl::quantize_weights(RowType type) {
  TORCH_CHECK_VALUE(is_quantized(type), "Llama::quantize_weights: expected int8 or int4, got ",
                    row_type_name(type));
  TORCH_CHECK_VALUE(!config_.weights, "Llama::quantize_weights: expected plain weights, got ",
                    row_type_name(*config_.weights));
  const torch::NoGradGuard no_grad;
  std::vector<nn::ToPack> all;
  std::map<std::string, at::Tensor> from;
  const auto add = [&](const std::string& name, const auto& module, RowType as) {
    const at::Tensor weight = module->weight.detach().to(torch::kFloat).contiguous();
    if (weight.size(1) % kernels::kWeightGroup != 0) return;
    const auto code =
        as == RowType::kInt8 ? kernels::WeightCode::kInt8 : kernels::WeightCode::kInt4Offset;
    all.push_back({name, {code, weight.size(0), weight.size(1)}, nn::giver(module)});
    from.emplace(name, weight);
  };
  // Of what a token's numbers come from and go to 4 bits would cost most.
  add("model.embed_tokens.weight", embed_tokens_, RowType::kInt8);
  for (auto& [name, linear] : packable_linears()) {
    add(name, linear, name == "lm_head.weight" ? RowType::kInt8 : type);
  }
  nn::pack(all, [&](const nn::ToPack& weights, std::int64_t first, std::int64_t last,
                    std::uint8_t* tiles) {
    const std::int64_t width = weights.shape.width;
    const float* numbers = from.at(weights.name).const_data_ptr<float>();
    for (std::int64_t row = first; row < last; ++row) {
      for (std::int64_t group = 0; group < width / kernels::kWeightGroup; ++group) {
        const float* x = numbers + row * width + group * kernels::kWeightGroup;
        const auto packed = quantize_group(weights.shape.code, x, kernels::kWeightGroup);
        nn::check_scales([&] { return "Llama::quantize_weights: " + weights.name; }, packed);
        set_group(weights.shape, tiles, row, group, packed);
      }
    }
  });
  config_.weights = type;
}

}  // namespace memlayers
