// SPDX-License-Identifier: Apache-2.0
#include "bench/trainee.h"

#include <torch/utils.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "bench/parts.h"
#include "nn/project.h"

namespace memlayers::bench {

Trainee::Trainee(const Case& c, const ModelConfig& model, const train::Processes* processes)
    : model_(model, kSeed, std::nullopt, processes != nullptr ? processes->group() : MemoryGroup{}),
      dense_(make_dense_optimizer(c, model_->dense_parameters())) {
  if (!model_->pool().is_empty()) rows_ = make_row_optimizer(c, model_->pool());
  rates_ = {.lr = c.config.train.lr,
            .value_lr = c.config.train.value_lr,
            .clip = c.config.train.clip,
            .value_clip = c.config.train.value_clip};
  if (processes == nullptr || processes->is_alone()) return;
  gradients_ = std::make_unique<train::GradientSum>(
      processes->shared_world(), model_->dense_parameters(),
      train::GradientSum::Options{.bucket_mb = c.config.parallel.bucket_mb});
  together_ = std::make_unique<train::Together>(train::Together{*processes, *gradients_});
}

double Trainee::seconds_of_step(text::Batch batch) {
  std::vector<text::Batch> batches{std::move(batch)};
  return seconds_of(
      [&] { train::train_step(model_, dense_, rows_.get(), batches, rates_, together_.get()); });
}

std::int64_t Trainee::dense_parameters() const {
  std::int64_t count = 0;
  for (const auto& [name, parameter] : model_->dense_parameters()) count += parameter.numel();
  return count;
}

Times Trainee::decode(IndexDraw& words, std::int64_t count) {
  const torch::NoGradGuard no_grad;
  model_->eval();
  nn::to_huge_pages(model_->dense_parameters());
  KvCache cache(model_->config(), 1, count + 1);
  const at::Tensor tokens = words.draw({count + 1, 1, 1});
  model_->forward(tokens[0], &cache);
  Times times;
  for (std::int64_t i = 1; i <= count; ++i) {
    times.add(seconds_of([&] { model_->forward(tokens[i], &cache); }));
  }
  return times;
}

double Trainee::decode_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& [name, parameter] : model_->dense_parameters()) {
    const bool is_embedding =
        name == "model.embed_tokens.weight" && !model_->config().tie_embeddings;
    bytes += static_cast<std::int64_t>(parameter.nbytes()) / (is_embedding ? parameter.size(0) : 1);
  }
  for (const auto& [index, layer] : model_->memory_layers()) {
    bytes += packed_key_bytes(layer) - static_cast<std::int64_t>(layer->keys.nbytes());
    bytes += layer->config().heads * layer->config().knn * row_bytes(model_->pool());
  }
  return static_cast<double>(bytes);
}

text::Batch draw_batch(IndexDraw& words, std::int64_t tokens, std::int64_t context) {
  text::Batch batch;
  batch.length = std::min(context, tokens);
  batch.rows = tokens / batch.length;
  batch.tokens = batch.target_tokens = batch.rows * batch.length;
  const at::Tensor ids = words.draw({2, batch.tokens});
  const std::int64_t* id = ids.const_data_ptr<std::int64_t>();
  batch.input.assign(id, id + batch.tokens);
  batch.target.assign(id + batch.tokens, id + 2 * batch.tokens);
  return batch;
}

}  // namespace memlayers::bench
