// SPDX-License-Identifier: Apache-2.0
#include "nn/ngrams.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "nn/token_by_token.h"
#include "ops/parallel.h"

namespace memlayers::nn {
namespace {

std::uint64_t mixed(std::uint64_t x) {  // SplitMix64's
  x += 0x9e3779b97f4a7c15U;
  x = (x ^ x >> 30U) * 0xbf58476d1ce4e5b9U;
  x = (x ^ x >> 27U) * 0x94d049bb133111ebU;
  return x ^ x >> 31U;
}

// floor(a * b / 2^64) of a full a and b below 2^62.
std::uint64_t upper_half(std::uint64_t a, std::uint64_t b) {
  constexpr std::uint64_t kLow = 0xffffffffU;
  const std::uint64_t a0 = a & kLow, a1 = a >> 32U, b0 = b & kLow, b1 = b >> 32U;
  const std::uint64_t middle = a1 * b0 + (a0 * b0 >> 32U);
  return a1 * b1 + (middle >> 32U) + (((middle & kLow) + a0 * b1) >> 32U);
}

// The multipliers of one hash: a sum of products of odd numbers and token ids, whose upper bits are
// spread evenly whatever the ids are.
class Hash {
 public:
  Hash(std::int64_t layer, std::int64_t head, std::int64_t length) : factors_(length) {
    std::uint64_t seed =
        mixed(mixed(mixed(static_cast<std::uint64_t>(layer)) ^ static_cast<std::uint64_t>(head)) ^
              static_cast<std::uint64_t>(length));
    offset_ = seed = mixed(seed);
    for (std::uint64_t& factor : factors_) factor = seed = mixed(seed) | 1U;
  }
  std::int64_t length() const { return static_cast<std::int64_t>(factors_.size()); }
  std::int64_t slot(const std::int64_t* suffix, std::int64_t slots) const {
    std::uint64_t sum = offset_;
    for (std::size_t i = 0; i < factors_.size(); ++i) {
      sum += factors_[i] * static_cast<std::uint64_t>(suffix[i] - kNoToken);
    }
    return static_cast<std::int64_t>(upper_half(sum, static_cast<std::uint64_t>(slots)));
  }

 private:
  std::uint64_t offset_;
  std::vector<std::uint64_t> factors_;
};

}  // namespace

std::int64_t suffix_length(const ModelConfig& config) {
  const bool has = !config.memory_layers().empty() && config.memory->is_ngram();
  return has ? config.memory->knn + 1 : 0;
}

at::Tensor suffixes_of(const at::Tensor& tokens, const at::Tensor& document_begin,
                       std::int64_t length) {
  const std::int64_t B = tokens.size(0), T = tokens.size(1);
  const at::Tensor ids = tokens.to(torch::kCPU, torch::kLong).contiguous();
  const at::Tensor begins =
      document_begin.defined() ? document_begin.to(torch::kLong).contiguous() : at::Tensor();
  at::Tensor suffixes = torch::full({B * T, length}, kNoToken, torch::kLong);
  const auto* id = ids.const_data_ptr<std::int64_t>();
  auto* out = suffixes.mutable_data_ptr<std::int64_t>();
  for (std::int64_t row = 0; row < B; ++row) {
    for (std::int64_t t = 0; t < T; ++t, out += length) {
      const std::int64_t at = row * T + t;
      const std::int64_t begin =
          begins.defined() ? begins.const_data_ptr<std::int64_t>()[at] : std::int64_t{0};
      for (std::int64_t i = 0; i < std::min(length, t - begin + 1); ++i) out[i] = id[at - i];
    }
  }
  return suffixes;
}

std::int64_t ngram_slot(std::span<const std::int64_t> suffix, std::int64_t layer, std::int64_t head,
                        std::int64_t slots) {
  return Hash(layer, head, static_cast<std::int64_t>(suffix.size())).slot(suffix.data(), slots);
}

at::Tensor ngram_slots(const at::Tensor& suffixes, std::int64_t layer, const MemoryConfig& config) {
  TORCH_CHECK_VALUE(suffixes.dim() == 2 && suffixes.size(1) == config.knn + 1 &&
                        suffixes.scalar_type() == torch::kLong && suffixes.is_cpu(),
                    "MemoryLayer: expected suffixes [T, ", config.knn + 1,
                    "] of type Long on the CPU for variant \"ngram\", got ", suffixes.sizes(),
                    " of type ", suffixes.scalar_type());
  std::vector<Hash> hashes;
  for (std::int64_t head = 0; head < config.heads; ++head) {
    for (std::int64_t i = 0; i < config.knn; ++i) hashes.emplace_back(layer, head, i + 2);
  }
  const std::int64_t T = suffixes.size(0), length = suffixes.size(1);
  const auto J = static_cast<std::int64_t>(hashes.size());
  at::Tensor slots = torch::empty({T, config.heads, config.knn}, torch::kLong);
  const at::Tensor lined_up = suffixes.contiguous();
  const auto* suffix = lined_up.const_data_ptr<std::int64_t>();
  auto* out = slots.mutable_data_ptr<std::int64_t>();
  ops::parallel_ranges(T, J * 16, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t t = first; t < last; ++t) {
      for (std::int64_t j = 0; j < J; ++j) {
        out[t * J + j] =
            hashes[static_cast<std::size_t>(j)].slot(suffix + t * length, config.slots());
      }
    }
  });
  return slots;
}

at::Tensor sigmoid_of_dots(const at::Tensor& x_in, const at::Tensor& y_in, double factor) {
  const at::Tensor x = x_in.to(torch::kFloat), y = y_in.to(torch::kFloat);
  if (!is_token_by_token(x_in)) {
    return torch::sigmoid((x * y).sum(-1, /*keepdim=*/true) * factor).to(x_in.scalar_type());
  }
  const at::Tensor a = x.contiguous(), b = y.contiguous();
  const std::int64_t T = a.size(0), width = a.size(1);
  at::Tensor out = torch::empty({T, 1});
  const auto *left = a.const_data_ptr<float>(), *right = b.const_data_ptr<float>();
  auto* to = out.mutable_data_ptr<float>();
  for (std::int64_t t = 0; t < T; ++t, left += width, right += width) {
    float sum = 0;
    for (std::int64_t i = 0; i < width; ++i) sum += left[i] * right[i];
    to[t] = 1 / (1 + std::exp(-sum * static_cast<float>(factor)));
  }
  return out.to(x_in.scalar_type());
}

}  // namespace memlayers::nn
