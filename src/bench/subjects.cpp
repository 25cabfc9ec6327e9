// SPDX-License-Identifier: Apache-2.0
#include "bench/subjects.h"

#include <torch/types.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "bench/machine.h"
#include "memlayers/ops.h"
#include "nn/table.h"
#include "pool/row_format.h"

namespace memlayers::bench {
namespace {

std::vector<at::Tensor> tables_of(const RowState& state) {
  std::vector<at::Tensor> tables;
  for (const at::Tensor& table : {state.exp_avg, state.exp_avg_sq, state.steps, state.master}) {
    if (table.defined()) tables.push_back(table);
  }
  return tables;
}

std::int64_t whole_bytes(double bytes) {  // 2^62 where they are more
  return static_cast<std::int64_t>(std::min(bytes, 0x1p62));
}

// One step with a gradient of zeros for every row.
void touch_every_row(MemoryPool& pool, RowOptimizer& optimizer) {
  constexpr std::int64_t kSlotsAToken = 64, kSlotsAStep = 1 << 16;
  for (std::int64_t first = 0; first < pool->slots(); first += kSlotsAStep) {
    const std::int64_t count = std::min(kSlotsAStep, pool->slots() - first);
    const std::int64_t each = count % kSlotsAToken == 0 ? kSlotsAToken : 1;
    const at::Tensor slots =
        torch::arange(first, first + count, torch::kLong).view({count / each, each});
    record_gradient(pool, slots, torch::zeros(slots.sizes()));
    optimizer.step(0);
  }
}

}  // namespace

void check_pool_memory(const Case& c) {
  const ModelConfig& model = c.config.model;
  const RowType type = model.memory->row_dtype;
  const std::int64_t bytes = pool::row_format(type, model.row_width()).bytes();
  check_memory("the pool's rows", model.memory->slots() * bytes);
}

void check_batch_memory(const Case& c, bool with_scores) {
  const MemoryConfig& memory = *c.config.model.memory;
  const double heads = memory.heads, n_keys = memory.n_keys, tokens = c.tokens;
  double numbers =
      2.0 * c.config.model.dim + heads * (memory.k_dim + 3 * memory.knn);  // slots are two
  if (with_scores) numbers += 2 * heads * n_keys;
  check_memory("a batch of " + std::to_string(c.tokens) + " tokens",
               whole_bytes(4 * numbers * tokens));
  if (with_scores) {
    check_memory("sub-keys and their gradient", whole_bytes(2 * 4 * heads * n_keys * memory.k_dim));
  }
}

void check_decoder_memory(const Case& c, int models) {
  const ModelConfig& model = c.config.model;
  const double dim = model.dim, vocab = model.vocab_size, tokens = c.tokens, layers = model.layers;
  const double embeddings = (model.tie_embeddings ? 1 : 2) * vocab * dim;
  const double weights = embeddings + layers * dim * (4 * dim + 3.0 * model.ff_dim);
  check_memory("the decoder's weights, gradients and moments",
               whole_bytes(models * 4 * 4 * weights));
  // Each, its logarithm and its gradient.
  check_memory("the logits of " + std::to_string(c.tokens) + " tokens",
               whole_bytes(3 * 4 * tokens * vocab));
}

MemoryPool make_pool(const Case& c) {
  check_pool_memory(c);
  check_batch_memory(c, false);
  const ModelConfig& model = c.config.model;
  return MemoryPool(PoolOptions{.n_keys = model.memory->n_keys,
                                .width = model.row_width(),
                                .row_dtype = model.memory->row_dtype,
                                .seed = kSeed});
}

at::ScalarType model_type(const Case& c) { return nn::element_type(c.config.model.dtype); }

MemoryLayer make_layer(const Case& c, MemoryPool pool) {
  MemoryLayer layer(c.config.model.dim, *c.config.model.memory, std::move(pool));
  for (auto& [name, parameter] : dense_parameters(layer)) {
    parameter.set_data(parameter.detach().to(model_type(c)));
  }
  return layer;
}

std::int64_t row_bytes(const MemoryPool& pool) {
  return static_cast<std::int64_t>(pool->values.nbytes()) / pool->slots();
}

std::vector<at::Tensor> row_tables(const MemoryPool& pool, RowOptimizer& optimizer) {
  std::vector<at::Tensor> tables = tables_of(optimizer.state());
  tables.insert(tables.begin(), pool->values);
  return tables;
}

std::int64_t touched_bytes_a_row(const MemoryPool& pool, RowOptimizer& optimizer) {
  std::int64_t bytes = row_bytes(pool);
  for (const at::Tensor& table : tables_of(optimizer.state())) {
    bytes += static_cast<std::int64_t>(table.nbytes()) / pool->slots();
  }
  return bytes;
}

std::unique_ptr<RowOptimizer> make_row_optimizer(const Case& c, MemoryPool pool) {
  const TrainStepConfig& t = c.config.train;
  auto optimizer = std::make_unique<RowOptimizer>(
      pool, RowOptimizer::Options{.beta1 = t.value_beta1,
                                  .beta2 = t.value_beta2,
                                  .eps = t.eps,
                                  .weight_decay = t.value_weight_decay,
                                  .kind = t.value_optimizer,
                                  .master_rows = t.master_rows});
  std::int64_t bytes = 0;
  for (const at::Tensor& table : tables_of(optimizer->state())) {
    bytes += static_cast<std::int64_t>(table.nbytes());
  }
  check_memory("the state of the pool's optimizer", bytes);
  if (bytes > 0) touch_every_row(pool, *optimizer);
  return optimizer;
}

DenseAdamW make_dense_optimizer(const Case& c,
                                std::vector<std::pair<std::string, at::Tensor>> parameters) {
  const TrainStepConfig& t = c.config.train;
  return DenseAdamW(
      std::move(parameters),
      {.beta1 = t.beta1, .beta2 = t.beta2, .eps = t.eps, .weight_decay = t.weight_decay});
}

std::vector<std::pair<std::string, at::Tensor>> dense_parameters(const MemoryLayer& layer) {
  std::vector<std::pair<std::string, at::Tensor>> found;
  for (const auto& parameter : layer->named_parameters()) {
    if (!parameter.key().starts_with("pool.")) {
      found.emplace_back(parameter.key(), parameter.value());
    }
  }
  return found;
}

std::int64_t dense_bytes(const MemoryLayer& layer) {
  std::int64_t bytes = 0;
  for (const auto& [name, parameter] : dense_parameters(layer)) {
    bytes += static_cast<std::int64_t>(parameter.nbytes());
  }
  return bytes;
}

std::int64_t packed_key_bytes(const MemoryLayer& layer) {
  const std::int64_t half = layer->keys.size(3);
  return layer->keys.numel() / half * quantized_row_bytes(RowType::kInt8, half);
}

void record_gradient(MemoryPool& pool, const at::Tensor& slots, const at::Tensor& weights) {
  const at::Tensor y = pool->gather(slots, weights);
  y.backward(torch::ones_like(y));
}

at::Tensor draw_weights(const Case& c) {
  const MemoryConfig& memory = *c.config.model.memory;
  const at::Tensor scores = torch::randn({c.tokens, memory.heads, memory.knn});
  return torch::softmax(scores, -1).view({c.tokens, memory.heads * memory.knn});
}

at::Tensor gather_rows(const Case& c, MemoryPool& pool, const at::Tensor& x,
                       const at::Tensor& slots, const at::Tensor& weights) {
  return c.config.model.memory->variant == MemoryVariant::kPeer
             ? pool->peer_gather(x, slots, weights)
             : pool->gather(slots, weights);
}

}  // namespace memlayers::bench
