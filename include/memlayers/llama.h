// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "memlayers/config.h"
#include "memlayers/linear.h"
#include "memlayers/memory_layer.h"
#include "memlayers/pool.h"

namespace memlayers {

namespace nn {
struct Step;
}
class LlamaImpl;

// What all caches that share it may take together.
class CacheBudget {
 public:
  explicit CacheBudget(std::optional<std::int64_t> most_bytes = {}) : most_(most_bytes) {}
  std::optional<std::int64_t> most_bytes() const { return most_; }  // absent: what there is
  std::int64_t bytes() const { return bytes_; }                     // taken now

 private:
  friend class KvCache;
  friend class KvPage;
  std::optional<std::int64_t> most_;
  std::atomic<std::int64_t> bytes_ = 0;
};

// Keys and values of kTokens tokens of a sequence, for all layers. Counts in a budget as long as it
// lives; several caches whose tokens begin alike may hold it. Once it is full nothing of it
// changes.
class KvPage {
 public:
  static constexpr std::int64_t kTokens = 64;
  // `bytes` of the budget are its own from here: whoever reserved them gives them up.
  KvPage(at::Tensor numbers, std::shared_ptr<CacheBudget> budget);
  ~KvPage();
  KvPage(const KvPage&) = delete;
  KvPage& operator=(const KvPage&) = delete;
  const at::Tensor& numbers() const { return numbers_; }  // as ops::CachedTokens has them
  std::int64_t bytes() const { return static_cast<std::int64_t>(numbers_.nbytes()); }
  // Which tokens these are.
  std::span<const std::int32_t> ids() const { return ids_; }
  void set_id(std::int64_t place, std::int32_t id) { ids_[static_cast<std::size_t>(place)] = id; }

 private:
  at::Tensor numbers_;
  std::array<std::int32_t, kTokens> ids_ = {};
  std::shared_ptr<CacheBudget> budget_;
};

// Keys and values of the tokens of one sequence, for all layers, in pages of kPageTokens tokens:
// the memory of a page is taken when its first token comes. Not for use from several threads.
class KvCache {
 public:
  static constexpr std::int64_t kPageTokens = KvPage::kTokens;

  // For at most `capacity` tokens, in the type of the model's weights, of which the first are those
  // of `begin`: full pages of other caches of this model. What the others will take counts in the
  // budget until the cache is gone. Throws Error where it does not fit, ValueError for pages of
  // another model or more than the capacity.
  KvCache(LlamaImpl& model, std::int64_t capacity, std::shared_ptr<CacheBudget> budget = {},
          std::vector<std::shared_ptr<KvPage>> begin = {});
  ~KvCache();
  KvCache(KvCache&& other) noexcept;
  KvCache& operator=(KvCache&& other) noexcept;

  std::int64_t length() const { return length_; }  // tokens held
  std::int64_t capacity() const { return capacity_; }
  std::int64_t bytes() const { return bytes_; }  // that all of its pages take but those of others
  // What `tokens` tokens of the model take.
  static std::int64_t bytes_of(const LlamaImpl& model, std::int64_t tokens);
  // Of the first length() / kPageTokens, which are full.
  const std::shared_ptr<KvPage>& page(std::int64_t index) const {
    return pages_[static_cast<std::size_t>(index)];
  }
  // Holds this page, which has the same numbers, in place of its own.
  void share(std::int64_t index, std::shared_ptr<KvPage> page);
  // Takes back what stands behind the first `length` tokens: as if they had not come. Not those of
  // pages of other caches.
  void cut(std::int64_t length);
  // Of a model that reads its pool from a store: the version whose rows and sub-keys the tokens are
  // computed with; that of the first step, unless set_rows() named another. All later ones keep to
  // it, whatever is edited meanwhile; what is cached under another version must never be mixed with
  // it. Absent before, and for other models.
  std::optional<std::uint64_t> pool_version() const;
  // Before the first step: the snapshot of the pool's store to read.
  void set_rows(Snapshot rows);
  const std::optional<Snapshot>& rows() const { return rows_; }
  // Before the first step: memory layers give nothing, as if their rows were zero.
  void leave_out_memory();
  bool leaves_out_memory() const { return leaves_out_memory_; }

 private:
  friend class LlamaImpl;
  friend struct nn::Step;
  void add_page();

  std::vector<std::shared_ptr<KvPage>> pages_;  // page_shape_ each
  std::array<std::int64_t, 5> page_shape_;
  at::ScalarType type_;
  // Bytes: of its own pages, and of these what is reserved for those that are not there yet.
  std::int64_t capacity_, bytes_ = 0, reserved_ = 0, length_ = 0, first_length_ = 0;
  std::shared_ptr<CacheBudget> budget_;
  std::optional<Snapshot> rows_;
  bool leaves_out_memory_ = false;
};

// The next tokens of one sequence.
struct SequenceTokens {
  KvCache* cache;
  std::span<const std::int32_t> tokens;
};

// Sequences in one row of tokens: `prefix` tokens that all of them begin with, then of each the
// `lengths` that follow. A token sees the prefix and its own sequence, and stands where it stands
// there.
struct PackedSequences {
  std::int64_t prefix = 0;
  std::vector<std::int64_t> lengths = {};
};

struct DecoderLayerImpl;  // src/nn/decoder_layer.h

// A LLaMA-family decoder [LLaMA23] in which the feed-forward of any layer can be a memory layer.
// dense_parameters() are named as in Hugging Face's LlamaForCausalLM; a memory layer's own stand
// under model.layers.N.memory.*; the pool is shared and not among them.
class LlamaImpl : public torch::nn::Module {
 public:
  // Random weights (Linear and embeddings normal with std 0.02, memory as docs/math.md says), from
  // torch's global generator; the pool's from `pool_seed`, or zero where that is absent (a pool
  // about to be loaded). `pool_folder`, `group`: PoolOptions::folder and group. Throws Error where
  // the configuration is impossible.
  explicit LlamaImpl(const ModelConfig& config, std::optional<std::uint64_t> pool_seed = 0,
                     const std::optional<std::string>& pool_folder = {},
                     const MemoryGroup& group = {});
  // A model that reads its pool's rows from `store` (PoolOptions::store), for serving.
  LlamaImpl(const ModelConfig& config, std::shared_ptr<StoreReader> store);

  // Logits [B, T, vocab_size] float32 of the tokens [B, T] int64.
  at::Tensor forward(const at::Tensor& tokens);

  // The two halves of forward: hidden states [B, T, dim] after the last norm, and their logits
  // [..., vocab_size] float32. A trainer computes logits only where there is a loss.
  // `document_begin`: where a row holds several documents, [B, T] int64, the column in which the
  // document of each token begins. Attention and positions are then those of each document alone.
  at::Tensor hidden_states(const at::Tensor& tokens, const at::Tensor& document_begin = {});
  // The same of this snapshot of the pool's store; null: how it is now.
  at::Tensor hidden_states(const at::Tensor& tokens, const at::Tensor& document_begin,
                           const Snapshot* rows);
  at::Tensor logits(const at::Tensor& hidden);

  // hidden_states(), cut where the first memory layer begins, for who changes nothing but memory:
  // what it is added to [B, T, dim], behind the attention of its layer, which no memory changes;
  // and from there on, with the tokens again where a memory of variant kNgram asks for them. Both
  // throw ValueError for a model without memory layers.
  at::Tensor states_before_memory(const at::Tensor& tokens);
  at::Tensor hidden_states_from(const at::Tensor& states, const at::Tensor& tokens = {});

  // The three above of sequences that are packed: tokens [1, T], what is behind them [1, T, dim].
  // Throws ValueError where lengths are not those of the tokens or below 1, and for a memory of
  // variant kNgram where the sequences share a prefix.
  at::Tensor hidden_states(const at::Tensor& tokens, const PackedSequences& packed);
  at::Tensor states_before_memory(const at::Tensor& tokens, const PackedSequences& packed);
  at::Tensor hidden_states_from(const at::Tensor& states, const at::Tensor& tokens,
                                const PackedSequences& packed);

  // What the feed-forward blocks of these layers, ascending, take and give for the tokens [B, T]:
  // [B, T, dim]. Throws ValueError for a layer that has none.
  struct FeedForwardStates {
    at::Tensor in, out;
  };
  std::vector<FeedForwardStates> feed_forward_states(const at::Tensor& tokens,
                                                     std::span<const std::int64_t> layers);
  std::vector<FeedForwardStates> feed_forward_states(const at::Tensor& tokens,
                                                     std::span<const std::int64_t> layers,
                                                     const PackedSequences& packed);

  // One step of any number of sequences, of different lengths and versions of the pool: their next
  // tokens continue what the caches hold, and these take them in. Returns the hidden states after
  // the last norm, [all tokens, dim] in the order given, without gradients; step_logits() gives
  // their logits. The numbers of a token depend on its sequence up to it and on nothing else: the
  // same bits with whatever sequences beside it, however the tokens before it were cut into steps,
  // for any number of threads (of one instruction set). A model on the CPU. After an exception the
  // caches are as they were.
  // Throws ValueError for no tokens, a cache that is full or another model's, or one cache twice.
  at::Tensor step(std::span<const SequenceTokens> sequences);
  at::Tensor step_logits(const at::Tensor& hidden);  // [T, dim] -> [T, vocab_size] float32

  const ModelConfig& config() const { return config_; }
  // Of the numbers between the layers: that of the weights, or float32 beside those of 8 and 4
  // bits.
  at::ScalarType dense_type() const;
  MemoryPool pool() const { return pool_; }  // empty without memory layers
  std::vector<std::pair<std::int64_t, MemoryLayer>> memory_layers() const;  // layer number, layer

  // Of the last forward pass with gradients in training: how unevenly tokens chose among experts,
  // summed over the layers that have them, 1 each where all are chosen alike [Switch22]. Undefined
  // when it was taken, or without experts.
  at::Tensor take_balance();

  // Stores the pool's rows in 8 or 4 bits from now on, as MemoryPool::quantize(); config() says so.
  // Throws ValueError without a pool.
  void quantize_pool(RowType type);
  // Stores the matrices of attention and feed-forward blocks in `type`, kInt8 or kInt4, from now
  // on, and the embedding and the output in 8 bits: for reading on the CPU, in groups of 32
  // columns, as GGUF's Q8_0 and Q4_1; config() says so. Those of other widths stay as they are.
  // Throws ValueError for another type, or where they are already.
  void quantize_weights(RowType type);

  // MemoryConfig::output_scales from now on; config() says so. Throws ValueError for another number
  // of them than there are memory layers.
  void set_output_scales(std::vector<double> scales);

  // MemoryLayer::open_keys() for all layers; config() says so. Training begins with it.
  void open_keys();

  // Everything but the pool, under its Hugging Face name, in a fixed order. A tied lm_head is not
  // listed twice, a weight of 8 or 4 bits not at all.
  std::vector<std::pair<std::string, at::Tensor>> dense_parameters() const;

  // The modules whose weights may be of 8 or 4 bits: those of attention and feed-forward blocks,
  // the embedding and an output of its own. By the name of their weight.
  std::vector<std::pair<std::string, Linear>> packable_linears() const;
  Embedding embedding() const { return embed_tokens_; }

 private:
  struct Pass;  // what all layers are given beside the tokens' states
  LlamaImpl(const ModelConfig& config, const PoolOptions& pool);
  Pass pass_of(const at::Tensor& positions, const at::Tensor& tokens,
               const at::Tensor& document_begin, const Snapshot* rows = nullptr);
  Pass pass_of(const at::Tensor& tokens, std::int64_t length, const PackedSequences& packed);
  std::size_t first_memory() const;  // of layers_
  std::vector<FeedForwardStates> feed_forward_states(const at::Tensor& tokens,
                                                     std::span<const std::int64_t> layers,
                                                     const Pass& pass);
  at::Tensor through_all(const at::Tensor& tokens, const Pass& pass);
  at::Tensor up_to_memory(const at::Tensor& tokens, const Pass& pass);
  at::Tensor from_memory(const at::Tensor& states, const Pass& pass);

  ModelConfig config_;
  MemoryPool pool_{nullptr};
  Embedding embed_tokens_{nullptr};
  std::vector<std::shared_ptr<DecoderLayerImpl>> layers_;
  torch::Tensor norm_;
  Linear lm_head_{nullptr};
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
