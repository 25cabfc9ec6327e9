// SPDX-License-Identifier: Apache-2.0
// Products of queries with the keys of a page, a softmax of all scores of a query, and a sum of
// values in the order of the tokens: each a kernel whose result for one query depends on that query
// and its keys alone.
#include "ops/paged_attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "kernels/kernels.h"
#include "ops/parallel.h"
#include "ops/stages.h"

namespace memlayers::ops {
namespace {

// Queries of a prompt that read the keys together.
constexpr std::int64_t kBlock = 16;

template <class Row>
using Element = std::conditional_t<std::is_same_v<Row, float>, float, c10::BFloat16>;

// The halves of a head are a pair of coordinates each: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1
// sin), each product and the sum rounded to the type, as operators on tensors do.
template <class Number>
void rotate(const Number* x, const float* cos, const float* sin, std::int64_t width, Number* to) {
  const std::int64_t half = width / 2;
  for (std::int64_t i = 0; i < half; ++i) {
    const auto x1 = static_cast<float>(x[i]), x2 = static_cast<float>(x[half + i]);
    const Number a(x1 * cos[i]), b(-x2 * sin[i]), c(x2 * cos[half + i]), d(x1 * sin[half + i]);
    to[i] = Number(static_cast<float>(a) + static_cast<float>(b));
    to[half + i] = Number(static_cast<float>(c) + static_cast<float>(d));
  }
}

template <class Row>
class Attention {
  using Number = Element<Row>;

 public:
  Attention(const PagedTokens& tokens, std::int64_t layer, const at::Tensor& q, const at::Tensor& k,
            const at::Tensor& v, const AttentionKind& kind)
      : tokens_(tokens),
        kind_(kind),
        layer_(layer),
        width_(tokens.head_dim),
        kv_heads_(tokens.kv_heads),
        group_(q.size(1) / (tokens.kv_heads * tokens.head_dim)),
        scale_(1 / std::sqrt(static_cast<float>(tokens.head_dim))),
        q_(q.const_data_ptr<Number>()),
        k_(k.const_data_ptr<Number>()),
        v_(v.const_data_ptr<Number>()),
        queries_(at::empty({tokens.count, q.size(1)})),
        out_(at::empty_like(q)) {}

  at::Tensor run() {
    parallel_ranges(tokens_.count, 16 * (group_ + 2) * kv_heads_ * width_,
                    [&](std::int64_t begin, std::int64_t end) { take_in(begin, end); });
    struct Unit {
      const CachedTokens* part;
      std::int64_t head, begin, count;
    };
    std::vector<Unit> units;
    std::int64_t work = 0;
    for (const CachedTokens& part : tokens_.sequences) {
      for (std::int64_t begin = 0; begin < part.count; begin += kBlock) {
        const std::int64_t count = std::min(kBlock, part.count - begin);
        for (std::int64_t head = 0; head < kv_heads_; ++head) {
          units.push_back({&part, head, begin, count});
        }
        work += count * kv_heads_ * (part.past + begin + count) * group_ * width_;
      }
    }
    const auto all = static_cast<std::int64_t>(units.size());
    Stages stages;  // units differ in their work
    stages.add(0, all, work / all, {}, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> scores, sums;
      for (std::int64_t i = begin; i < end; ++i) {
        const Unit& unit = units[static_cast<std::size_t>(i)];
        mix(*unit.part, unit.head, unit.begin, unit.count, scores, sums);
      }
    });
    stages.run();
    return out_;
  }

 private:
  std::int64_t row_width() const { return kv_heads_ * group_ * width_; }

  void place(const Number* x, const float* cos, const float* sin, Number* to) const {
    if (kind_.is_rotated) {
      rotate(x, cos, sin, width_, to);
    } else {
      std::copy_n(x, width_, to);
    }
  }

  // Rotated queries, scaled, and keys and values of tokens [begin, end).
  void take_in(std::int64_t begin, std::int64_t end) {
    std::vector<Number> rotated(static_cast<std::size_t>(width_));
    auto part = std::ranges::find_if(
        tokens_.sequences, [&](const CachedTokens& p) { return p.begin + p.count > begin; });
    for (std::int64_t n = begin; n < end; ++n) {
      while (n >= part->begin + part->count) ++part;
      const float* cos = tokens_.cos.const_data_ptr<float>() + n * width_;
      const float* sin = tokens_.sin.const_data_ptr<float>() + n * width_;
      auto* query = queries_.mutable_data_ptr<float>() + n * row_width();
      for (std::int64_t head = 0; head < kv_heads_ * group_; ++head) {
        const std::int64_t at = head * width_;
        place(q_ + n * row_width() + at, cos, sin, rotated.data());
        for (std::int64_t i = 0; i < width_; ++i) {
          query[at + i] = static_cast<float>(rotated[static_cast<std::size_t>(i)]) * scale_;
        }
      }
      const std::int64_t position = part->past + n - part->begin;
      const std::int64_t page = position / kPageTokens, row = position % kPageTokens * width_;
      for (std::int64_t head = 0; head < kv_heads_; ++head) {
        const std::int64_t from = (n * kv_heads_ + head) * width_;
        auto* keys = reinterpret_cast<Number*>(tokens_.keys(*part, page, layer_, head));
        auto* values = reinterpret_cast<Number*>(tokens_.values(*part, page, layer_, head));
        place(k_ + from, cos, sin, keys + row);
        std::copy_n(v_ + from, width_, values + row);
      }
    }
  }

  // `count` queries of a part, of all heads that read this one's keys.
  void mix(const CachedTokens& part, std::int64_t head, std::int64_t begin, std::int64_t count,
           std::vector<float>& scores, std::vector<float>& sums) {
    const auto& kernel = kernels::active();
    const auto& rows = kernel.rows<Row>();
    const std::int64_t keys = part.past + begin + count,
                       pages = (keys + kPageTokens - 1) / kPageTokens;
    const std::int64_t stride = pages * kPageTokens;
    scores.resize(static_cast<std::size_t>(count * group_ * stride));  // [count, group, stride]
    const std::int64_t first = (part.begin + begin) * row_width() + head * group_ * width_;
    const float* query = queries_.const_data_ptr<float>() + first;
    for (std::int64_t page = 0; page < pages; ++page) {
      const auto* key = reinterpret_cast<const Row*>(tokens_.keys(part, page, layer_, head));
      const std::int64_t here = std::min(kPageTokens, keys - page * kPageTokens);
      float* to = scores.data() + page * kPageTokens;
      if (count == 1) {
        rows.products(key, width_, here, query, width_, group_, to, stride);
        continue;
      }
      for (std::int64_t g = 0; g < group_; ++g) {
        rows.products(key, width_, here, query + g * width_, row_width(), count, to + g * stride,
                      group_ * stride);
      }
    }
    // Pages that all of them see wholly are read by all together.
    const auto seen_by = [&](std::int64_t t) { return part.past + begin + t + 1; };
    const auto hidden_from = [&](std::int64_t t) {
      return kind_.window ? std::max<std::int64_t>(0, seen_by(t) - *kind_.window) : 0;
    };
    const auto page_of = [](std::int64_t token) { return token / kPageTokens; };
    const std::int64_t end = page_of(seen_by(0));
    const std::int64_t middle = std::min(end, page_of(hidden_from(count - 1) + kPageTokens - 1));
    sums.assign(static_cast<std::size_t>(count * group_ * width_), 0.0F);
    for (std::int64_t t = 0; t < count; ++t) {
      const std::int64_t seen = seen_by(t), hidden = hidden_from(t);
      for (std::int64_t n = t * group_; n < (t + 1) * group_; ++n) {
        float* weight = scores.data() + n * stride;
        kernel.softmax_of_all(weight + hidden, seen - hidden, weight + hidden);
        add_values(part, head, hidden, std::min(seen, middle * kPageTokens), weight, n, sums);
      }
    }
    for (std::int64_t page = middle; page < end; ++page) {
      const auto* value = reinterpret_cast<const Row*>(tokens_.values(part, page, layer_, head));
      rows.weighted_sums_add(value, width_, kPageTokens, scores.data() + page * kPageTokens, stride,
                             count * group_, sums.data());
    }
    for (std::int64_t t = 0; t < count; ++t) {
      const std::int64_t rest = std::max(end * kPageTokens, hidden_from(t));
      for (std::int64_t n = t * group_; n < (t + 1) * group_; ++n) {
        add_values(part, head, rest, seen_by(t), scores.data() + n * stride, n, sums);
        Number* to =
            out_.mutable_data_ptr<Number>() + first + t * row_width() + (n - t * group_) * width_;
        std::copy_n(sums.data() + n * width_, width_, to);
      }
    }
  }

  // Of tokens [begin, end) of a part, to sum number n.
  void add_values(const CachedTokens& part, std::int64_t head, std::int64_t begin, std::int64_t end,
                  const float* weight, std::int64_t n, std::vector<float>& sums) const {
    const auto& rows = kernels::active().rows<Row>();
    while (begin < end) {
      const std::int64_t page = begin / kPageTokens, row = begin % kPageTokens;
      const std::int64_t here = std::min(end - begin, kPageTokens - row);
      const auto* value = reinterpret_cast<const Row*>(tokens_.values(part, page, layer_, head));
      rows.weighted_sums_add(value + row * width_, width_, here, weight + begin, 0, 1,
                             sums.data() + n * width_);
      begin += here;
    }
  }

  const PagedTokens& tokens_;
  const AttentionKind& kind_;
  std::int64_t layer_, width_, kv_heads_, group_;
  float scale_;
  const Number *q_, *k_, *v_;
  at::Tensor queries_, out_;
};

}  // namespace

at::Tensor paged_attention(const PagedTokens& tokens, std::int64_t layer, const at::Tensor& q,
                           const at::Tensor& k, const at::Tensor& v, const AttentionKind& kind) {
  return tokens.type == at::kFloat
             ? Attention<float>(tokens, layer, q, k, v, kind).run()
             : Attention<kernels::BFloat16>(tokens, layer, q, k, v, kind).run();
}

}  // namespace memlayers::ops
