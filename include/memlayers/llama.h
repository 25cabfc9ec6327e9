// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "memlayers/config.h"
#include "memlayers/memory_layer.h"
#include "memlayers/pool.h"

namespace memlayers {

// Keys and values of the tokens a decoder has seen, for all layers: one per generation. Rows of a
// batch may have prompts of different lengths: they are padded on the left, and `padding` says by
// how much. Not for use from several threads.
class KvCache {
 public:
  // For `batch` rows of at most `capacity` tokens.
  KvCache(const ModelConfig& config, std::int64_t batch, std::int64_t capacity);
  std::int64_t length() const { return length_; }  // tokens held, padding included
  std::int64_t capacity() const { return capacity_; }
  std::int64_t batch() const { return batch_; }
  // Tokens of padding at the left of each row, [batch]; absent: none. Set before the first forward.
  void set_padding(std::vector<std::int64_t> padding);
  const std::vector<std::int64_t>& padding() const { return padding_; }
  // Of a model that reads its pool from a store: the version whose rows and sub-keys the tokens
  // were computed with, that of the first forward. All later ones keep to it, whatever is edited
  // meanwhile; what is cached under another version must never be mixed with it. Absent before, and
  // for other models.
  std::optional<std::uint64_t> pool_version() const;
  // Keeps only the rows named, in that order (finished rows leave the batch).
  void keep_rows(const std::vector<std::int64_t>& rows);

 private:
  friend class LlamaImpl;
  friend class AttentionImpl;
  std::int64_t batch_, capacity_, length_ = 0;
  std::vector<std::int64_t> padding_;
  std::optional<Snapshot> rows_;
  std::vector<at::Tensor> keys_, values_;  // a layer: [batch, kv_heads, capacity, head_dim]
};

struct DecoderLayerImpl;  // src/nn/decoder_layer.h

// A LLaMA-family decoder [LLaMA23] in which the feed-forward of any layer can be a memory layer.
// dense_parameters() are named as in Hugging Face's LlamaForCausalLM; a memory layer's own stand
// under model.layers.N.memory.*; the pool is shared and not among them.
class LlamaImpl : public torch::nn::Module {
 public:
  // Random weights (Linear and embeddings normal with std 0.02, memory as DESIGN.md says), from
  // torch's global generator; the pool's from `pool_seed`, or zero where that is absent (a pool
  // about to be loaded). `pool_folder`, `group`: PoolOptions::folder and group. Throws Error where
  // the configuration is impossible.
  explicit LlamaImpl(const ModelConfig& config, std::optional<std::uint64_t> pool_seed = 0,
                     const std::optional<std::string>& pool_folder = {},
                     const MemoryGroup& group = {});
  // A model that reads its pool's rows from `store` (PoolOptions::store), for serving.
  LlamaImpl(const ModelConfig& config, std::shared_ptr<StoreReader> store);

  // Logits [B, T, vocab_size] float32 of the tokens [B, T] int64; with a cache the tokens continue
  // those it holds, and it takes them in.
  at::Tensor forward(const at::Tensor& tokens, KvCache* cache = nullptr);

  // The two halves of forward: hidden states [B, T, dim] after the last norm, and their logits
  // [..., vocab_size] float32. A trainer computes logits only where there is a loss.
  at::Tensor hidden_states(const at::Tensor& tokens, KvCache* cache = nullptr);
  at::Tensor logits(const at::Tensor& hidden);

  const ModelConfig& config() const { return config_; }
  MemoryPool pool() const { return pool_; }  // empty without memory layers
  std::vector<std::pair<std::int64_t, MemoryLayer>> memory_layers() const;  // layer number, layer

  // Stores the pool's rows in 8 or 4 bits from now on, as MemoryPool::quantize(); config() says so.
  // Throws ValueError without a pool.
  void quantize_pool(RowType type);

  // MemoryLayer::open_keys() for all layers; config() says so. Training begins with it.
  void open_keys();

  // Everything but the pool, under its Hugging Face name, in a fixed order. A tied lm_head is not
  // listed twice.
  std::vector<std::pair<std::string, at::Tensor>> dense_parameters() const;

 private:
  LlamaImpl(const ModelConfig& config, const PoolOptions& pool);

  ModelConfig config_;
  MemoryPool pool_{nullptr};
  torch::nn::Embedding embed_tokens_{nullptr};
  std::vector<std::shared_ptr<DecoderLayerImpl>> layers_;
  torch::Tensor norm_;
  torch::nn::Linear lm_head_{nullptr};
  at::Tensor rope_frequencies_;  // float32; no buffer, so that to(dtype) leaves it as it is
};
TORCH_MODULE(Llama);

// Mean cross entropy over the targets [B, T] int64 that are not `ignored` (-100), computed in
// float32 from hidden states; logits are made only for those positions. NaN-free: 0 where none is
// left.
at::Tensor answer_loss(Llama& model, const at::Tensor& hidden, const at::Tensor& targets);
constexpr std::int64_t kIgnoredTarget = -100;

// Floating point operations of one forward pass per token at sequence length `context`: two for
// each multiply-add of the matrix products (attention scores and mixing included), of the score
// products of a lookup, and of the weighted sums. A training step costs three times that.
struct Flops {
  double attention = 0, feed_forward = 0, memory = 0, logits = 0;
  double total() const { return attention + feed_forward + memory + logits; }
};
Flops count_flops(const ModelConfig& config, std::int64_t context);

// A model folder in Hugging Face's layout. save writes config.json, model.safetensors and pool/
// into the folder `path`, which must exist; load reads them and a plain LLaMA folder as well. Both
// hold the pool in memory once (with `pool_folder`, PoolOptions::folder, not even that). In a
// memory group all processes save and load together, each some of the files of the pool; the first
// one writes the rest.
// Throws Error naming file and tensor for anything missing, of another shape or dtype, or not
// finite.
// What patches of the pool's store (docs/store.md) have changed is loaded as changed.
void save_model(const Llama& model, const std::string& path);
Llama load_model(const std::string& path, const std::optional<std::string>& pool_folder = {},
                 const MemoryGroup& group = {});
// The same for serving: the pool's rows are read where they lie, mapped, so that opening takes no
// longer for a larger pool, and MemoryPool::refresh() follows edits. Such a model is not trained or
// saved.
Llama open_model(const std::string& path, const StoreOptions& options = {});

}  // namespace memlayers
