// SPDX-License-Identifier: Apache-2.0
#include "nn/step.h"

#include <torch/types.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "nn/ngrams.h"

namespace memlayers::nn {

static_assert(KvCache::kPageTokens == ops::kPageTokens);

namespace {

float rounded(float x, at::ScalarType type) {
  return type == at::kFloat ? x : static_cast<float>(c10::BFloat16(x));
}

void check(std::span<const SequenceTokens> sequences, const ModelConfig& config) {
  TORCH_CHECK_VALUE(!sequences.empty(), "Llama::step: expected at least one sequence, got none");
  std::vector<const KvCache*> caches;
  for (const SequenceTokens& sequence : sequences) {
    const KvCache& cache = *sequence.cache;
    const auto count = static_cast<std::int64_t>(sequence.tokens.size());
    TORCH_CHECK_VALUE(count > 0 && cache.length() + count <= cache.capacity(),
                      "Llama::step: expected 1 to ", cache.capacity() - cache.length(),
                      " tokens more in a cache of ", cache.capacity(), ", got ", count);
    for (const std::int32_t token : sequence.tokens) {
      TORCH_CHECK_VALUE(token >= 0 && token < config.vocab_size,
                        "Llama::step: expected token ids in [0, ", config.vocab_size, "), got ",
                        token);
    }
    caches.push_back(&cache);
  }
  std::ranges::sort(caches);
  TORCH_CHECK_VALUE(std::ranges::adjacent_find(caches) == caches.end(),
                    "Llama::step: expected each cache once, got one twice");
}

bool reads_same(const Step::Reads& reads, const KvCache& cache) {
  if (reads.leaves_out_memory || cache.leaves_out_memory()) {
    return reads.leaves_out_memory == cache.leaves_out_memory();
  }
  const auto& rows = cache.rows();
  return rows ? reads.rows != nullptr && *reads.rows == *rows : reads.rows == nullptr;
}

// By the position alone: functions over tensors may round otherwise at their ends.
void rotations(ops::PagedTokens& tokens, const at::Tensor& frequencies, double scale) {
  const auto factor = static_cast<float>(scale);
  tokens.cos = at::empty({tokens.count, tokens.head_dim});
  tokens.sin = at::empty({tokens.count, tokens.head_dim});
  auto* cos = tokens.cos.mutable_data_ptr<float>();
  auto* sin = tokens.sin.mutable_data_ptr<float>();
  const auto* frequency = frequencies.const_data_ptr<float>();
  const std::int64_t half = tokens.head_dim / 2;
  for (const ops::CachedTokens& part : tokens.sequences) {
    for (std::int64_t t = 0; t < part.count; ++t) {
      for (std::int64_t i = 0; i < half; ++i) {
        const float angle = static_cast<float>(part.past + t) * frequency[i];
        cos[i] = cos[half + i] = rounded(std::cos(angle) * factor, tokens.type);
        sin[i] = sin[half + i] = rounded(std::sin(angle) * factor, tokens.type);
      }
      cos += tokens.head_dim;
      sin += tokens.head_dim;
    }
  }
}

}  // namespace

Step::Step(std::span<const SequenceTokens> sequences, const ModelConfig& config, MemoryPool pool,
           const at::Tensor& frequencies) {
  check(sequences, config);
  tokens.kv_heads = config.num_kv_heads();
  tokens.head_dim = config.attention_head_dim();
  tokens.type = sequences[0].cache->type_;
  const std::array<std::int64_t, 5> shape{config.layers, 2, tokens.kv_heads, KvCache::kPageTokens,
                                          tokens.head_dim};
  std::optional<Snapshot> now;
  for (const SequenceTokens& sequence : sequences) {
    KvCache& cache = *sequence.cache;
    TORCH_CHECK_VALUE(cache.page_shape_ == shape && cache.type_ == tokens.type,
                      "Llama::step: expected caches of this model, got one of layers, heads and "
                      "width ",
                      at::IntArrayRef(cache.page_shape_), " of ", cache.type_);
    const auto count = static_cast<std::int64_t>(sequence.tokens.size());
    const std::int64_t pages =
        (cache.length_ + count + KvCache::kPageTokens - 1) / KvCache::kPageTokens;
    while (static_cast<std::int64_t>(cache.pages_.size()) < pages) cache.add_page();
    for (std::int64_t t = 0; t < count; ++t) {
      const std::int64_t at = cache.length_ + t;
      cache.pages_[static_cast<std::size_t>(at / KvCache::kPageTokens)]->set_id(
          at % KvCache::kPageTokens, sequence.tokens[static_cast<std::size_t>(t)]);
    }
    ops::CachedTokens part{tokens.count, count, cache.length_, {}};
    for (const auto& page : cache.pages_) {
      part.pages.push_back(static_cast<std::byte*>(page->numbers().mutable_data_ptr()));
    }
    tokens.sequences.push_back(std::move(part));
    if (!pool.is_empty() && !cache.rows_) {
      if (!now) now = pool->snapshot();
      cache.rows_ = now;
    }
    if (!reads.empty() && reads_same(reads.back(), cache)) {
      reads.back().end += count;
    } else {
      const Snapshot* rows = cache.rows_ ? &*cache.rows_ : nullptr;
      reads.push_back({tokens.count, tokens.count + count, rows, cache.leaves_out_memory_});
    }
    tokens.count += count;
  }
  rotations(tokens, frequencies, config.rope.attention_factor);
  if (const std::int64_t seen = suffix_length(config); seen > 0) look_back(sequences, seen);
}

namespace {

// The tokens of a sequence that end at `position`, of those that its pages hold.
void write_suffix(const std::vector<std::shared_ptr<KvPage>>& pages, std::int64_t position,
                  std::span<std::int64_t> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::int64_t at = position - static_cast<std::int64_t>(i);
    out[i] = at < 0 ? kNoToken
                    : pages[static_cast<std::size_t>(at / KvCache::kPageTokens)]
                          ->ids()[static_cast<std::size_t>(at % KvCache::kPageTokens)];
  }
}

}  // namespace

void Step::look_back(std::span<const SequenceTokens> sequences, std::int64_t length) {
  suffixes = at::empty({tokens.count, length}, at::kLong);
  std::span<std::int64_t> rest(suffixes.mutable_data_ptr<std::int64_t>(),
                               static_cast<std::size_t>(tokens.count * length));
  const auto width = static_cast<std::size_t>(length);
  for (const SequenceTokens& sequence : sequences) {
    const KvCache& cache = *sequence.cache;
    for (std::size_t t = 0; t < sequence.tokens.size(); ++t, rest = rest.subspan(width)) {
      write_suffix(cache.pages_, cache.length_ + static_cast<std::int64_t>(t), rest.first(width));
    }
  }
}

void Step::commit(std::span<const SequenceTokens> sequences) const {
  for (const SequenceTokens& sequence : sequences) {
    sequence.cache->length_ += static_cast<std::int64_t>(sequence.tokens.size());
  }
}

}  // namespace memlayers::nn
