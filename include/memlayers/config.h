// SPDX-License-Identifier: Apache-2.0
// The configuration of a memory layer, a decoder and a training run: plain structs. Every field has
// a default; validate() throws Error naming the first wrong field, its value and what was wanted.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace memlayers {

// Element type of the pool's rows. Rows of 8 bits (a scale a row) and 4 bits (a scale for 32
// columns) are read, not trained: docs/formats.md.
enum class RowType { kFloat32, kBFloat16, kInt8, kInt4 };
// "float32", "bfloat16", "int8", "int4"
constexpr const char* row_type_name(RowType type) {
  switch (type) {
    case RowType::kFloat32:
      return "float32";
    case RowType::kBFloat16:
      return "bfloat16";
    case RowType::kInt8:
      return "int8";
    case RowType::kInt4:
      break;
  }
  return "int4";
}
constexpr bool is_quantized(RowType type) {
  return type == RowType::kInt8 || type == RowType::kInt4;
}

// What a layer does with the rows it reads; docs/math.md.
enum class MemoryVariant {
  kPlain,       // y, or y Wo + bo
  kMemoryPlus,  // (y * silu(x Wg + bg)) Wo + bo           ("Memory+" of [MEM24])
  kPeer,        // rows are pairs (U, V): weights become w * gelu(x . U)   [PEER24]
  kNgram,       // rows by a hash of the last tokens, no keys; a gate of x and y   [ENGRAM26]
};

enum class MemoryPlacement {
  kReplace,  // the memory layer stands in place of the feed-forward block
  kBeside,   // the outputs of both are added
};

struct MemoryConfig {
  // Decoder layers that hold a memory layer, counted from 0, ascending. Absent: see
  // default_memory_layers(). Empty: none (the dense twin).
  std::optional<std::vector<std::int64_t>> layers = {};
  std::int64_t n_keys = 128;  // sub-keys per set: the pool has n_keys^2 slots
  std::int64_t heads = 4;     // independent lookups per token; kNgram: hashes
  // Slots read per head, at most n_keys; kNgram: of the last 2, 3, .. knn + 1 tokens.
  std::int64_t knn = 32;
  std::int64_t k_dim = 128;                // width of a query; each half is k_dim / 2, so even
  std::optional<std::int64_t> v_dim = {};  // width of a value row; absent: the model's dim
  MemoryVariant variant = MemoryVariant::kMemoryPlus;
  MemoryPlacement placement = MemoryPlacement::kReplace;
  // Wo: absent means "where it is needed": always for Memory+, else where v_dim differs from dim.
  std::optional<bool> value_proj = {};
  bool qk_norm = true;       // RMSNorm with a learned scale on query halves and sub-keys
  bool frozen_keys = false;  // sub-keys and their scale stay as they were drawn
  bool gate = false;         // multiply the output by sigmoid(x . g + b), one number a token
  // Width of the gate's inner layer: sigmoid(silu(x G + c) . g + b). Absent: the gate is linear.
  std::optional<std::int64_t> gate_dim = {};
  // By what the weighted sum of each memory layer is multiplied, one number for each of `layers`:
  // of the size of what a retrofitted memory is added to (docs/retrofit.md). Empty: 1.
  std::vector<double> output_scales = {};
  RowType row_dtype = RowType::kFloat32;
  // Of a memory that has grown and was not trained since: lookups see only the first so many
  // sub-keys of each set, so that the model says what it said before. Absent: all n_keys.
  std::optional<std::int64_t> open_keys = {};

  std::int64_t slots() const { return n_keys * n_keys; }
  // What follows from the fields, in a decoder of width `dim`.
  std::int64_t value_dim(std::int64_t dim) const { return v_dim.value_or(dim); }
  std::int64_t row_width(std::int64_t dim) const;  // of a pool row: v_dim, for PEER dim + v_dim
  bool is_peer() const { return variant == MemoryVariant::kPeer; }
  bool is_ngram() const { return variant == MemoryVariant::kNgram; }
  bool has_swilu() const { return variant == MemoryVariant::kMemoryPlus; }  // Wg of docs/math.md
  bool has_value_proj(std::int64_t dim) const;                              // Wo
  void validate_layer(std::int64_t dim) const;  // one layer by itself: all but `layers`
  void validate(std::int64_t dim, std::int64_t decoder_layers) const;
};

// Rotary position embedding, with the scalings that LLaMA-family checkpoints use.
struct RopeConfig {
  double theta = 10000.0;
  std::string type = "default";  // "default", "linear", "dynamic", "llama3" or "yarn"
  double factor = 1.0;           // all but default
  double low_freq_factor = 1.0;  // llama3
  double high_freq_factor = 4.0;
  // llama3, yarn: original_max_position_embeddings; dynamic: max_position_embeddings
  std::int64_t original_context = 8192;
  double beta_fast = 32.0;  // yarn: turns in the original context above which waves are kept ...
  double beta_slow = 1.0;   // ... and below which they are slowed by `factor`
  bool truncate = true;     // yarn: the dimensions between them are whole numbers
  double attention_factor = 1.0;  // yarn: of sine and cosine
};

enum class DenseType { kFloat32, kBFloat16 };  // element type of everything but the pool

struct ModelConfig {
  static constexpr std::int64_t kMostLayers = 1 << 16, kMostExperts = 1 << 12;
  std::int64_t dim = 256;                     // hidden_size
  std::int64_t layers = 8;                    // num_hidden_layers
  std::int64_t heads = 8;                     // num_attention_heads
  std::optional<std::int64_t> kv_heads = {};  // num_key_value_heads; absent: heads
  std::optional<std::int64_t> head_dim = {};  // absent: dim / heads
  std::int64_t ff_dim = 688;                  // intermediate_size
  // Feed-forward blocks of each layer that has one, of which a token takes one; 1: no choice.
  std::int64_t experts = 1;
  std::int64_t vocab_size = 32000;
  std::int64_t context = 512;  // max_position_embeddings, tokens
  RopeConfig rope = {};
  double norm_eps = 1e-5;
  bool tie_embeddings = true;
  bool attention_bias = false;                     // of attention's projections ...
  std::optional<bool> attention_output_bias = {};  // ... and of its last one; absent: the same
  bool attention_norm = false;  // RMSNorm with a learned scale on each head's queries and keys
  // A query of these layers, ascending, sees so many tokens at most, itself included. Without
  // sliding_window all layers see all; without sliding_layers it is all of them.
  std::optional<std::int64_t> sliding_window = {};
  std::optional<std::vector<std::int64_t>> sliding_layers = {};
  std::vector<std::int64_t> unrotated_layers = {};  // without RoPE, ascending
  bool mlp_bias = false;
  std::optional<std::int64_t> bos_token = {};
  std::vector<std::int64_t> eos_tokens = {};  // any of these ends a generation
  std::optional<std::int64_t> pad_token = {};
  DenseType dtype = DenseType::kFloat32;
  // kInt8 or kInt4: matrices of attention, feed-forward blocks, embedding and output in blocks of 8
  // or 4 bits (docs/formats.md), for reading; absent: of dtype.
  std::optional<RowType> weights = {};
  std::optional<MemoryConfig> memory = {};  // absent: a plain LLaMA decoder

  std::int64_t num_kv_heads() const { return kv_heads.value_or(heads); }
  std::int64_t attention_head_dim() const { return head_dim.value_or(dim / heads); }
  bool has_attention_output_bias() const { return attention_output_bias.value_or(attention_bias); }
  std::optional<std::int64_t> window_of(std::int64_t layer) const;  // what it sees; absent: all
  std::int64_t value_dim() const;                                   // v_dim of the memory, resolved
  std::int64_t row_width() const;  // width of a pool row: v_dim, or dim + v_dim for PEER
  std::vector<std::int64_t> memory_layers() const;  // resolved; empty without memory
  void validate() const;
};

// Three layers (fewer in a shallow decoder), centred, with wide stride: [MEM24] Sec. 3 found that
// best. 24 layers: 5, 11, 17 (counted from 0).
std::vector<std::int64_t> default_memory_layers(std::int64_t decoder_layers);

// What the rows that were read in a step get; docs/training.md says which one when.
enum class PoolOptimizer {
  kAdamW,           // lazy: rows that were not read stay as they are; t is a row's own count
  kSgd,             // no state
  kRowwiseAdamW,    // lazy, one second moment a row; value_beta1 = 0: no first moment either
  kRowwiseAdagrad,  // one sum of mean squares a row
  kDenseAdamW,      // AdamW over the whole pool: rows that were not read move on by their momentum
};
enum class Schedule { kConstant, kCosine, kLinear };
enum class DataFormat {
  kAuto,   // by file name: .jsonl / .json is JSONL, else text
  kText,   // one document a file
  kLines,  // one document a line
  kJsonl,  // one object a line: "text", or "prompt" and "answer"
};

struct DataConfig {
  std::vector<std::string> train = {};  // files, folders, or "-" for standard input
  std::vector<std::string> valid = {};  // empty: none
  DataFormat format = DataFormat::kAuto;
  // A tokenizer.model or tokenizer.json, or a folder that holds one. Absent: train one on `train`.
  std::optional<std::string> tokenizer = {};
  bool pack = true;  // join documents to full sequences; false: one document a sequence
  // A packed document attends to those before it in its sequence, and its positions go on from
  // theirs. Absent: false; in a run that is resumed, what it began with.
  std::optional<bool> across_documents = {};
  std::optional<std::string> cache = {};  // folder of the token cache; absent: <out>/cache
};

struct TrainStepConfig {
  std::optional<std::int64_t> steps = {};  // optimizer steps; give this or epochs
  std::optional<double> epochs = {};       // passes over the training data
  std::int64_t batch_tokens = 4096;        // tokens (padding included) of one micro-batch, at most
  std::int64_t accumulate = 1;             // micro-batches an optimizer step
  double lr = 3e-4;                        // dense weights, after warm-up
  double value_lr = 1e-3;                  // pool rows
  Schedule schedule = Schedule::kCosine;
  Schedule value_schedule = Schedule::kConstant;
  double min_lr_ratio = 0.1;        // where a decaying schedule ends, relative to its peak
  std::int64_t warmup = 0;          // steps
  double weight_decay = 0.1;        // dense matrices; norms and biases have none
  double value_weight_decay = 0.0;  // pool rows
  double beta1 = 0.9;
  double beta2 = 0.95;
  double value_beta1 = 0.9;
  double value_beta2 = 0.95;
  double eps = 1e-8;
  double balance = 0.01;  // of LlamaImpl::take_balance() in what is minimised, where experts are
  std::optional<double> clip = 1.0;       // norm of the dense gradient; absent: off
  std::optional<double> value_clip = {};  // norm of the pool's gradient; absent: off
  PoolOptimizer value_optimizer = PoolOptimizer::kAdamW;
  bool master_rows = false;  // bfloat16 rows: float32 master instead of stochastic rounding
  std::optional<std::string> pool_folder = {};  // of scratch files, in place of RAM; PoolOptions
  std::int64_t seed = 0;
  std::int64_t threads = 0;       // 0: all cores
  std::int64_t log_every = 10;    // steps
  std::int64_t eval_every = 0;    // steps; 0: only at the end
  std::int64_t save_every = 0;    // steps; 0: only at the end
  std::int64_t keep = 2;          // complete checkpoints kept
  std::int64_t sample_every = 0;  // steps; 0: never
  std::vector<std::string> sample_prompts = {};
  std::int64_t max_bad_steps = 20;  // non-finite losses in a row before giving up
  std::string resume = "auto";      // "auto", "never", or a checkpoint folder
};

// How a memory group divides the pool's table (docs/parallel.md).
enum class PoolSplitKind {
  kAuto,     // by columns as far as slices stay two cache lines wide, then by rows
  kColumns,  // a slice of every row
  kRows,     // whole rows
};

// What matters only where mpirun starts several processes.
struct ParallelConfig {
  std::int64_t groups = 1;  // memory groups: each holds the whole pool
  PoolSplitKind split = PoolSplitKind::kAuto;
  DenseType gradient_dtype = DenseType::kFloat32;  // of dense gradients on their way
  double bucket_mb = 4;                            // dense gradients sent together, in 10^6 bytes
  double timeout_s = 25;  // without an answer another process counts as lost
};

struct TrainConfig {
  std::string out = "runs/demo";
  std::optional<std::string> init = {};  // a model folder to start from, instead of random weights
  ModelConfig model;
  DataConfig data;
  TrainStepConfig train;
  ParallelConfig parallel;

  void validate() const;
};

// From a TOML file and overrides like "model.dim=256", in this order; reads no other file. Throws
// Error for an unknown key (with the nearest known one), a wrong type, an impossible value.
TrainConfig load_train_config(const std::string& path, const std::vector<std::string>& overrides);

// Every key with its default, unit and a sentence: what `memlayers train --help-config` prints.
std::string describe_train_config();

// The configuration as TOML that load_train_config() reads back to the same values.
std::string to_toml(const TrainConfig& config);

}  // namespace memlayers
