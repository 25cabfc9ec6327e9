// SPDX-License-Identifier: Apache-2.0
#include "io/config_keys.h"

#include <type_traits>
#include <utility>

#include "memlayers/error.h"

namespace memlayers::io {
namespace {

template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {
  using Value = T;
};

template <class T>
const char* type_text() {
  if constexpr (std::is_same_v<T, bool>) return "true or false";
  if constexpr (std::is_same_v<T, std::int64_t>) return "an integer";
  if constexpr (std::is_same_v<T, double>) return "a number";
  if constexpr (std::is_same_v<T, std::string>) return "a string";
  if constexpr (std::is_same_v<T, std::vector<std::int64_t>>) return "a list of integers";
  return "a list of strings";
}

template <class T>
T convert(const ConfigValue& value) {
  if constexpr (std::is_same_v<T, double>) {
    if (const auto* whole = std::get_if<std::int64_t>(&value)) return static_cast<double>(*whole);
  }
  if constexpr (std::is_same_v<T, std::vector<std::string>>) {  // one string is a list of one
    if (const auto* text = std::get_if<std::string>(&value)) return {*text};
  }
  return std::get<T>(value);  // the caller has checked the type
}

template <class T>
bool fits(const ConfigValue& value) {
  if constexpr (std::is_same_v<T, double>) {
    if (std::holds_alternative<std::int64_t>(value)) return true;
  }
  if constexpr (std::is_same_v<T, std::vector<std::string>>) {
    if (std::holds_alternative<std::string>(value)) return true;
  }
  // An empty list has no type of its own.
  if constexpr (std::is_same_v<T, std::vector<std::int64_t>>) {
    if (const auto* list = std::get_if<std::vector<std::string>>(&value)) return list->empty();
  }
  return std::holds_alternative<T>(value);
}

template <class T>
T take(const ConfigValue& value) {
  if constexpr (std::is_same_v<T, std::vector<std::int64_t>>) {
    if (std::holds_alternative<std::vector<std::string>>(value)) return {};
  }
  return convert<T>(value);
}

// `field` reaches the field of a TrainConfig that this key sets.
template <class Field>
ConfigKey key(std::string section, std::string name, std::string sentence, Field field) {
  using Stored = std::remove_cvref_t<decltype(field(std::declval<TrainConfig&>()))>;
  ConfigKey made{std::move(section), std::move(name), "", std::move(sentence), {}, {}};
  if constexpr (IsOptional<Stored>::value) {
    using T = typename IsOptional<Stored>::Value;
    made.type = type_text<T>();
    made.set = [field, type = made.type](TrainConfig& config, const ConfigValue& value) {
      if (!fits<T>(value)) throw Error("expected " + type);
      field(config) = take<T>(value);
    };
    made.get = [field](const TrainConfig& config) -> ConfigValue {
      const auto& stored = field(const_cast<TrainConfig&>(config));
      return stored ? ConfigValue(*stored) : ConfigValue();
    };
  } else {
    made.type = type_text<Stored>();
    made.set = [field, type = made.type](TrainConfig& config, const ConfigValue& value) {
      if (!fits<Stored>(value)) throw Error("expected " + type);
      field(config) = take<Stored>(value);
    };
    made.get = [field](const TrainConfig& config) {
      return ConfigValue(field(const_cast<TrainConfig&>(config)));
    };
  }
  return made;
}

template <class Enum, class Field>
ConfigKey choice(std::string section, std::string name, std::string sentence,
                 const std::vector<std::pair<std::string, Enum>>& names, Field field) {
  std::string type;
  for (const auto& [text, value] : names) {
    type += (type.empty() ? "\"" : " or \"") + text + "\"";
  }
  ConfigKey made{std::move(section), std::move(name), type, std::move(sentence), {}, {}};
  made.set = [names, type, field](TrainConfig& config, const ConfigValue& value) {
    if (const auto* text = std::get_if<std::string>(&value)) {
      for (const auto& [candidate, meaning] : names) {
        if (candidate == *text) {
          field(config) = meaning;
          return;
        }
      }
    }
    throw Error("expected " + type);
  };
  made.get = [names, field](const TrainConfig& config) -> ConfigValue {
    for (const auto& [text, meaning] : names) {
      if (field(const_cast<TrainConfig&>(config)) == meaning) return text;
    }
    return {};
  };
  return made;
}

// The memory's fields: setting one brings the memory into being, reading needs it to be there.
MemoryConfig& memory_of(TrainConfig& config) {
  if (!config.model.memory) config.model.memory.emplace();
  return *config.model.memory;
}

ConfigKey only_with_memory(ConfigKey made) {
  made.get = [get = made.get](const TrainConfig& config) {
    return config.model.memory ? get(config) : ConfigValue();
  };
  return made;
}

#define MODEL(field) [](TrainConfig& c) -> auto& { return c.model.field; }
#define MEMORY(field) [](TrainConfig& c) -> auto& { return memory_of(c).field; }
#define DATA(field) [](TrainConfig& c) -> auto& { return c.data.field; }
#define PARALLEL(field) [](TrainConfig& c) -> auto& { return c.parallel.field; }
#define TRAIN(field) [](TrainConfig& c) -> auto& { return c.train.field; }

void add_model_keys(std::vector<ConfigKey>& keys) {
  const std::string s = "model";
  keys.push_back(key(s, "dim", "width of the hidden states", MODEL(dim)));
  keys.push_back(key(s, "layers", "number of decoder layers", MODEL(layers)));
  keys.push_back(key(s, "heads", "attention heads", MODEL(heads)));
  keys.push_back(key(s, "kv_heads", "heads of keys and values (absent: heads)", MODEL(kv_heads)));
  keys.push_back(
      key(s, "head_dim", "width of an attention head (absent: dim / heads)", MODEL(head_dim)));
  keys.push_back(key(s, "ff_dim", "inner width of the SwiGLU feed-forward", MODEL(ff_dim)));
  keys.push_back(key(s, "experts",
                     "feed-forwards of a layer, of which a token takes one (1: no choice)",
                     MODEL(experts)));
  keys.push_back(key(s, "vocab_size",
                     "tokens, when the tokenizer is trained here; else the tokenizer's",
                     MODEL(vocab_size)));
  keys.push_back(key(s, "context", "longest sequence, in tokens", MODEL(context)));
  keys.push_back(key(s, "rope_theta", "base of the rotary position embedding", MODEL(rope.theta)));
  keys.push_back(choice<std::string>(
      s, "rope_type", "scaling of the rotary position embedding",
      {{"default", "default"}, {"linear", "linear"}, {"llama3", "llama3"}}, MODEL(rope.type)));
  keys.push_back(key(s, "rope_factor", "by how much a scaling stretches", MODEL(rope.factor)));
  keys.push_back(key(s, "rope_low_freq_factor",
                     "llama3 scaling: below it, waves are stretched whole",
                     MODEL(rope.low_freq_factor)));
  keys.push_back(key(s, "rope_high_freq_factor", "llama3 scaling: above it, waves are kept",
                     MODEL(rope.high_freq_factor)));
  keys.push_back(key(s, "rope_original_context",
                     "llama3 scaling: context before stretching, in tokens",
                     MODEL(rope.original_context)));
  keys.push_back(key(s, "norm_eps", "added under the root of every RMSNorm", MODEL(norm_eps)));
  keys.push_back(
      key(s, "tie_embeddings", "the output layer is the embedding", MODEL(tie_embeddings)));
  keys.push_back(
      key(s, "attention_bias", "biases in attention's projections", MODEL(attention_bias)));
  keys.push_back(key(s, "mlp_bias", "biases in the feed-forward", MODEL(mlp_bias)));
  keys.push_back(choice<DenseType>(
      s, "dtype", "element type of everything but the pool",
      {{"float32", DenseType::kFloat32}, {"bfloat16", DenseType::kBFloat16}}, MODEL(dtype)));
}

void add_memory_keys(std::vector<ConfigKey>& keys) {
  const std::string s = "memory";
  const auto add = [&](ConfigKey made) { keys.push_back(only_with_memory(std::move(made))); };
  add(key(s, "layers", "decoder layers with memory, from 0 (absent: three centred ones)",
          MEMORY(layers)));
  add(key(s, "n_keys", "sub-keys per set; the pool has n_keys^2 slots", MEMORY(n_keys)));
  add(key(s, "heads", "independent lookups per token (ngram: hashes)", MEMORY(heads)));
  add(key(
      s, "knn",
      "slots read per head, at most n_keys (ngram: of the last 2, 3, .. knn + 1 tokens, at most "
      "7)",
      MEMORY(knn)));
  add(key(s, "k_dim", "width of a query, even", MEMORY(k_dim)));
  add(key(s, "v_dim", "width of a value row (absent: dim)", MEMORY(v_dim)));
  add(choice<MemoryVariant>(s, "variant", "what is done with the rows that are read",
                            {{"memory+", MemoryVariant::kMemoryPlus},
                             {"plain", MemoryVariant::kPlain},
                             {"peer", MemoryVariant::kPeer},
                             {"ngram", MemoryVariant::kNgram}},
                            MEMORY(variant)));
  add(choice<MemoryPlacement>(
      s, "placement", "memory in place of the feed-forward, or beside it",
      {{"replace", MemoryPlacement::kReplace}, {"beside", MemoryPlacement::kBeside}},
      MEMORY(placement)));
  add(key(s, "value_proj", "project the sum of rows to dim (absent: where it is needed)",
          MEMORY(value_proj)));
  add(key(s, "qk_norm", "RMSNorm with a learned scale on query halves and sub-keys",
          MEMORY(qk_norm)));
  add(key(s, "frozen_keys", "sub-keys stay as they were drawn, not trained", MEMORY(frozen_keys)));
  add(key(s, "gate", "multiply the output by one sigmoid a token", MEMORY(gate)));
  add(key(s, "gate_dim", "width of the gate's inner layer (absent: the gate is linear)",
          MEMORY(gate_dim)));
  add(choice<RowType>(s, "row_dtype",
                      "element type of the pool's rows; int8 and int4 are read, not trained",
                      {{"float32", RowType::kFloat32},
                       {"bfloat16", RowType::kBFloat16},
                       {"int8", RowType::kInt8},
                       {"int4", RowType::kInt4}},
                      MEMORY(row_dtype)));
}

void add_data_keys(std::vector<ConfigKey>& keys) {
  const std::string s = "data";
  keys.push_back(key(s, "train",
                     "files, folders, or streams (\"-\": standard input); paths are relative to "
                     "the current folder",
                     DATA(train)));
  keys.push_back(key(s, "valid", "held-out files or folders for evaluation", DATA(valid)));
  keys.push_back(choice<DataFormat>(s, "format", "how documents are read (auto: by file name)",
                                    {{"auto", DataFormat::kAuto},
                                     {"text", DataFormat::kText},
                                     {"lines", DataFormat::kLines},
                                     {"jsonl", DataFormat::kJsonl}},
                                    DATA(format)));
  keys.push_back(key(s, "tokenizer",
                     "tokenizer.model, tokenizer.json or a folder with one (absent: "
                     "trained on the data)",
                     DATA(tokenizer)));
  keys.push_back(key(s, "pack", "join documents to full sequences; false: one document a sequence",
                     DATA(pack)));
  keys.push_back(key(s, "across_documents",
                     "a packed document attends to those before it (absent: false, or as the run "
                     "that is resumed began)",
                     DATA(across_documents)));
  keys.push_back(key(s, "cache", "folder of the token cache (absent: <out>/cache)", DATA(cache)));
}

void add_train_keys(std::vector<ConfigKey>& keys) {
  const std::string s = "train";
  const std::vector<std::pair<std::string, Schedule>> schedules{{"constant", Schedule::kConstant},
                                                                {"cosine", Schedule::kCosine},
                                                                {"linear", Schedule::kLinear}};
  keys.push_back(key(s, "steps", "optimizer steps (give this or epochs)", TRAIN(steps)));
  keys.push_back(
      key(s, "epochs", "passes over the training data (give this or steps)", TRAIN(epochs)));
  keys.push_back(key(s, "batch_tokens", "tokens of one micro-batch, padding included, at most",
                     TRAIN(batch_tokens)));
  keys.push_back(key(s, "accumulate",
                     "micro-batches an optimizer step; as many for each process, where that can be",
                     TRAIN(accumulate)));
  keys.push_back(key(s, "lr", "peak learning rate of the dense weights", TRAIN(lr)));
  keys.push_back(key(s, "value_lr", "peak learning rate of the pool's rows", TRAIN(value_lr)));
  keys.push_back(
      choice<Schedule>(s, "schedule", "of lr, after warm-up", schedules, TRAIN(schedule)));
  keys.push_back(choice<Schedule>(s, "value_schedule", "of value_lr, after warm-up", schedules,
                                  TRAIN(value_schedule)));
  keys.push_back(key(s, "min_lr_ratio", "where a decaying schedule ends, relative to its peak",
                     TRAIN(min_lr_ratio)));
  keys.push_back(key(s, "warmup", "steps of linear warm-up", TRAIN(warmup)));
  keys.push_back(key(s, "weight_decay", "of dense matrices; norms, biases and sub-keys have none",
                     TRAIN(weight_decay)));
  keys.push_back(key(s, "value_weight_decay",
                     "of pool rows, when they are touched (dense_adamw: always)",
                     TRAIN(value_weight_decay)));
  keys.push_back(key(s, "beta1", "AdamW, dense: decay of the mean", TRAIN(beta1)));
  keys.push_back(key(s, "beta2", "AdamW, dense: decay of the mean square", TRAIN(beta2)));
  keys.push_back(key(s, "value_beta1", "AdamW, pool: decay of the mean", TRAIN(value_beta1)));
  keys.push_back(
      key(s, "value_beta2", "AdamW, pool: decay of the mean square", TRAIN(value_beta2)));
  keys.push_back(key(s, "eps", "AdamW: added to the root of the mean square", TRAIN(eps)));
  keys.push_back(key(s, "balance",
                     "weight of the term that spreads tokens evenly over experts, beside the loss",
                     TRAIN(balance)));
  keys.push_back(key(s, "clip", "largest norm of the dense gradient (0: off)", TRAIN(clip)));
  keys.push_back(key(s, "value_clip", "largest norm of the pool's gradient (absent or 0: off)",
                     TRAIN(value_clip)));
  keys.push_back(choice<PoolOptimizer>(
      s, "value_optimizer",
      "optimizer of the pool's rows; state a row of width W: adamw 8 W + 4 bytes, rowwise_adamw "
      "4 W + 8 (value_beta1 = 0: 8), rowwise_adagrad 4, sgd 0; dense_adamw, 8 W + 4, is AdamW over "
      "the whole pool, where rows that are not read move on by their momentum",
      {{"adamw", PoolOptimizer::kAdamW},
       {"sgd", PoolOptimizer::kSgd},
       {"rowwise_adamw", PoolOptimizer::kRowwiseAdamW},
       {"rowwise_adagrad", PoolOptimizer::kRowwiseAdagrad},
       {"dense_adamw", PoolOptimizer::kDenseAdamW}},
      TRAIN(value_optimizer)));
  keys.push_back(key(s, "master_rows",
                     "bfloat16 rows: keep a float32 master instead of rounding "
                     "stochastically",
                     TRAIN(master_rows)));
  keys.push_back(key(s, "pool_folder",
                     "folder on a fast disk for scratch files that hold the pool and its optimizer "
                     "state, where RAM is too small (absent: in RAM)",
                     TRAIN(pool_folder)));
  keys.push_back(key(s, "seed", "of weights, order of data and rounding", TRAIN(seed)));
  keys.push_back(key(s, "threads", "CPU threads (0: all cores)", TRAIN(threads)));
  keys.push_back(key(s, "log_every", "steps between lines of metrics.jsonl", TRAIN(log_every)));
  keys.push_back(
      key(s, "eval_every", "steps between evaluations (0: only at the end)", TRAIN(eval_every)));
  keys.push_back(
      key(s, "save_every", "steps between checkpoints (0: only at the end)", TRAIN(save_every)));
  keys.push_back(key(s, "keep", "complete checkpoints kept", TRAIN(keep)));
  keys.push_back(key(s, "sample_every", "steps between samples (0: never)", TRAIN(sample_every)));
  keys.push_back(key(s, "sample_prompts", "prompts of the samples", TRAIN(sample_prompts)));
  keys.push_back(key(s, "max_bad_steps", "steps in a row with a non-finite loss before giving up",
                     TRAIN(max_bad_steps)));
  keys.push_back(key(s, "resume",
                     "\"auto\" (newest checkpoint of out), \"never\", or a checkpoint folder",
                     TRAIN(resume)));
}

void add_parallel_keys(std::vector<ConfigKey>& keys) {
  const std::string s = "parallel";
  keys.push_back(key(s, "groups", "under mpirun: memory groups, each of which holds the whole pool",
                     PARALLEL(groups)));
  keys.push_back(choice<PoolSplitKind>(
      s, "split",
      "what a process of a memory group holds of the pool: some columns of every row, or some rows "
      "(auto: columns as long as they fill two cache lines, then rows)",
      {{"auto", PoolSplitKind::kAuto},
       {"columns", PoolSplitKind::kColumns},
       {"rows", PoolSplitKind::kRows}},
      PARALLEL(split)));
  keys.push_back(choice<DenseType>(
      s, "gradient_dtype", "element type of dense gradients on their way between processes",
      {{"float32", DenseType::kFloat32}, {"bfloat16", DenseType::kBFloat16}},
      PARALLEL(gradient_dtype)));
  keys.push_back(key(s, "bucket_mb", "dense gradients that are sent together, in megabytes",
                     PARALLEL(bucket_mb)));
  keys.push_back(key(s, "timeout_s",
                     "seconds without an answer after which a process counts as lost",
                     PARALLEL(timeout_s)));
}

#undef PARALLEL
#undef MODEL
#undef MEMORY
#undef DATA
#undef TRAIN

}  // namespace

const std::vector<ConfigKey>& config_keys() {
  static const std::vector<ConfigKey> keys = [] {
    std::vector<ConfigKey> all;
    all.push_back(key("", "out", "folder of the run: checkpoints, metrics, report",
                      [](TrainConfig& c) -> auto& { return c.out; }));
    all.push_back(key("", "init", "model folder to start from (absent: random weights)",
                      [](TrainConfig& c) -> auto& { return c.init; }));
    add_model_keys(all);
    add_memory_keys(all);
    add_data_keys(all);
    add_train_keys(all);
    add_parallel_keys(all);
    return all;
  }();
  return keys;
}

}  // namespace memlayers::io
