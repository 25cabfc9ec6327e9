// SPDX-License-Identifier: Apache-2.0
#include "bench/trainee.h"

#include <torch/utils.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "bench/subjects.h"
#include "nn/huge_pages.h"

namespace memlayers::bench {

Trainee::Trainee(const Case& c, const ModelConfig& model, train::Processes processes)
    : processes_(std::move(processes)),
      model_(model, kSeed, std::nullopt, processes_.group()),
      dense_(make_dense_optimizer(c, model_->dense_parameters())),
      gradients_(processes_.shared_world(), model_->dense_parameters(),
                 {.bucket_mb = c.config.parallel.bucket_mb}) {
  if (!model_->pool().is_empty()) rows_ = make_row_optimizer(c, model_->pool());
  rates_ = {.lr = c.config.train.lr,
            .value_lr = c.config.train.value_lr,
            .clip = c.config.train.clip,
            .value_clip = c.config.train.value_clip};
}

double Trainee::seconds_of_step(text::Batch batch) {
  std::vector<text::Batch> batches{std::move(batch)};
  return seconds_of([&] {
    train::train_step(model_, dense_, rows_.get(), batches, rates_, {processes_, gradients_});
  });
}

std::int64_t Trainee::dense_parameters() const {
  std::int64_t count = 0;
  for (const auto& [name, parameter] : model_->dense_parameters()) count += parameter.numel();
  return count;
}

Times Trainee::decode(IndexDraw& words, std::int64_t count, std::int64_t sequences) {
  const torch::NoGradGuard no_grad;
  model_->eval();
  if (!is_opened_) nn::to_huge_pages(model_->dense_parameters());
  is_opened_ = true;
  std::vector<KvCache> caches;
  for (std::int64_t i = 0; i < sequences; ++i) caches.emplace_back(*model_, count + 1);
  const at::Tensor drawn = words.draw({(count + 1) * sequences}).to(torch::kInt);
  const auto* token = drawn.const_data_ptr<std::int32_t>();
  std::vector<SequenceTokens> next(caches.size());
  const auto step = [&] {
    for (std::size_t i = 0; i < caches.size(); ++i) next[i] = {&caches[i], {token++, 1}};
    model_->step_logits(model_->step(next));
  };
  step();
  Times times;
  for (std::int64_t i = 1; i <= count; ++i) times.add(seconds_of(step));
  return times;
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
