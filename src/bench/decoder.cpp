// SPDX-License-Identifier: Apache-2.0
#include <torch/torch.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "bench/parts.h"
#include "memlayers/llama.h"
#include "train/training_step.h"

namespace memlayers::bench {
namespace {

// A model with its optimizers, trained on token ids that carry no meaning.
class Trainee {
 public:
  Trainee(const Case& c, const ModelConfig& model)
      : model_(model, kSeed), dense_(make_dense_optimizer(c, model_->dense_parameters())) {
    if (!model_->pool().is_empty()) {
      rows_ = make_row_optimizer(c, model_->pool());
    }
    rates_ = {.lr = c.config.train.lr,
              .value_lr = c.config.train.value_lr,
              .clip = c.config.train.clip,
              .value_clip = c.config.train.value_clip};
  }
  double seconds_of_step(text::Batch batch) {
    std::vector<text::Batch> batches{std::move(batch)};
    return seconds_of([&] { train::train_step(model_, dense_, rows_.get(), batches, rates_); });
  }
  double flops_a_token(std::int64_t context) const {
    return count_flops(model_->config(), context).total();
  }

 private:
  Llama model_;
  DenseAdamW dense_;
  std::unique_ptr<RowAdamW> rows_;  // null for a model without a pool
  train::StepRates rates_{};
};

// `tokens` or a few less in sequences of `context` or less.
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

}  // namespace

Figures bench_decoder(const Case& c, Stream& stream) {
  const ModelConfig& model = c.config.model;
  ModelConfig twin = model;
  twin.memory.reset();
  check_pool_memory(c);
  Trainee memory(c, model), dense(c, twin);
  IndexDraw words(model.vocab_size, c.distribution, kSeed);

  Times memory_step, dense_step;
  std::int64_t tokens = 0;
  for (int i = -1; i < c.repeat; ++i) {  // in turn, so that what disturbs one disturbs the other
    const text::Batch batch = draw_batch(words, c.tokens, model.context);
    const double memory_s = memory.seconds_of_step(batch);
    const double dense_s = dense.seconds_of_step(batch);
    if (i < 0) continue;
    memory_step.add(memory_s);
    dense_step.add(dense_s);
    tokens = batch.tokens;
  }
  stream.measure();
  const double context = static_cast<double>(std::min(model.context, c.tokens));

  Figures figures;
  figures.add("step", memory_step);
  figures.add("dense_step", dense_step);
  figures.add("step_ratio", memory_step.best() / dense_step.best());
  figures.add("tokens_per_s", static_cast<double>(tokens) / memory_step.best());
  figures.add("flops_a_token", memory.flops_a_token(static_cast<std::int64_t>(context)));
  figures.add("dense_flops_a_token", dense.flops_a_token(static_cast<std::int64_t>(context)));
  figures.add("stream_gbs", stream.read_gbs());
  figures.add("gemm_gflops", gemm_gflops(model.memory->k_dim / 2));
  return figures;
}

}  // namespace memlayers::bench
