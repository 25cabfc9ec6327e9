// SPDX-License-Identifier: Apache-2.0
#include "memlayers/grow.h"

#include <cmath>

#include "edit/grown.h"
#include "nn/new_rows.h"
#include "nn/unset_weights.h"

namespace memlayers {
namespace {

// The rows behind those of the smaller pool, as a new one has them.
void draw_rows(MemoryPool& pool, std::int64_t first, const ModelConfig& config,
               std::uint64_t seed) {
  PoolOptions options = pool->options();
  options.init_std = 1 / std::sqrt(static_cast<double>(config.value_dim()));
  options.seed = seed;
  at::Tensor rows = pool->values.detach().slice(0, first);
  const PoolPart part{.first_slot = first,
                      .rows = rows.size(0),
                      .columns = {{0, options.width}},
                      .row_width = options.width};
  nn::fill_new_rows(rows, options, part, [] {});
}

}  // namespace

Llama grow(const Llama& model, std::int64_t n_keys, std::uint64_t seed) {
  MemoryPool before = model->pool();
  TORCH_CHECK_VALUE(!before.is_empty() && model->config().memory,
                    "grow: expected a model with memory layers, got none");
  TORCH_CHECK_VALUE(!before->snapshot() && !before->is_sharded(),
                    "grow: expected a model that holds all of its pool");
  TORCH_CHECK_VALUE(!model->config().weights,
                    "grow: expected weights of type float32 or bfloat16, got ",
                    row_type_name(model->config().weights.value_or(RowType::kFloat32)));
  TORCH_CHECK_VALUE(!model->config().memory->is_ngram(),
                    "grow: expected a memory with keys, got one of variant \"ngram\", whose rows "
                    "would change places");
  TORCH_CHECK_VALUE(n_keys > model->config().memory->n_keys,
                    "grow: expected more sub-keys than the ", model->config().memory->n_keys,
                    " of the model, got ", n_keys);
  Llama grown = [&] {
    const nn::UnsetWeights unset;
    return Llama(edit::grown(model->config(), n_keys), std::nullopt);
  }();
  edit::copy_weights(model, grown, seed);
  const torch::NoGradGuard no_grad;
  MemoryPool pool = grown->pool();
  before->catch_up();
  pool->values.detach().slice(0, 0, before->slots()).copy_(before->values.detach());
  draw_rows(pool, before->slots(), model->config(), seed);
  pool->id = before->id;
  at::Tensor usage = at::zeros({pool->slots()}, at::kLong);
  usage.slice(0, 0, before->slots()).copy_(before->usage());
  pool->set_usage(usage);
  return grown;
}

}  // namespace memlayers
