// SPDX-License-Identifier: Apache-2.0
// One memory layer: what forward, backward and the optimizers take, and what one that only reads
// takes beside the bytes that it must read.
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include "bench/products.h"
#include "bench/subjects.h"
#include "memlayers/ops.h"
#include "nn/huge_pages.h"

namespace memlayers::bench {
namespace {

void clear_gradients(MemoryLayer& layer) {
  for (auto& [name, parameter] : dense_parameters(layer)) parameter.mutable_grad().reset();
  layer->pool()->clear_gradient();
}

// Layers over one pool, run in turn as a decoder runs them, with as many weights together as empty
// the caches: those of each have left them when its turn comes again, while the code has not.
std::vector<MemoryLayer> cold_layers(const Case& c, const MemoryPool& pool, std::int64_t wanted) {
  constexpr std::int64_t kMost = 64;
  std::vector<MemoryLayer> layers{make_layer(c, pool)};
  const std::int64_t each = std::max<std::int64_t>(1, dense_bytes(layers.front()));
  const std::int64_t count = std::clamp<std::int64_t>((wanted + each - 1) / each, 2, kMost);
  while (static_cast<std::int64_t>(layers.size()) < count) layers.push_back(make_layer(c, pool));
  std::vector<std::pair<std::string, at::Tensor>> all;
  for (const MemoryLayer& layer : layers) {
    for (auto& parameter : dense_parameters(layer)) all.push_back(std::move(parameter));
  }
  nn::to_huge_pages(std::move(all));  // as open_model() does
  return layers;
}

// Reading without gradients, in the middle of sequences: tokens 1 is one row of decoding.
void measure_inference(const Case& c, Stream& stream, MemoryPool& pool, Figures& figures) {
  const torch::NoGradGuard no_grad;
  std::vector<MemoryLayer> layers = cold_layers(c, pool, stream.bytes());
  for (MemoryLayer& layer : layers) layer->eval();
  VectorDraw inputs(c.config.model.dim, c.distribution, kSeed + 1);
  const double count = static_cast<double>(layers.size());

  // In turn with reads of as many bytes in sequence, so that both meet the machine as often.
  Times inference;
  double row_reads = 0, stream_gbs = 0;
  for (int i = -1; i < c.repeat; ++i) {
    std::vector<at::Tensor> batches;
    for (std::size_t l = 0; l < layers.size(); ++l) {
      batches.push_back(inputs.draw(c.tokens).to(model_type(c)));
    }
    const double seconds = seconds_of([&] {
      for (std::size_t l = 0; l < layers.size(); ++l) {
        layers[l]->forward(batches[l], /*rows=*/nullptr, /*continues=*/true);
      }
    });
    if (i < 0) continue;
    inference.add(seconds / count);
    stream_gbs = std::max(stream_gbs, stream.read_again());
    if (i == 0) {
      const at::Tensor slots = std::get<0>(layers.front()->select(batches.front()));
      row_reads = static_cast<double>(std::get<0>(at::_unique(slots)).numel());
    }
  }
  const std::int64_t weights = dense_bytes(layers.front()) -
                               static_cast<std::int64_t>(layers.front()->keys.nbytes()) +
                               packed_key_bytes(layers.front());
  const double bytes =
      static_cast<double>(weights) + row_reads * static_cast<double>(row_bytes(pool));
  const double limit = bytes / (stream_gbs * 1e9);
  figures.add("inference", inference);
  figures.add("inference_bytes", bytes);
  figures.add("inference_limit_ms", 1e3 * limit);
  figures.add("inference_ratio", inference.best() / limit);
}

// The parts of a layer's forward, each timed alone, on tokens of their own: with those of the layer
// their rows would be in the cache.
class ForwardParts {
 public:
  ForwardParts(const Case& c, MemoryPool pool, MemoryLayer layer)
      : c_(c), pool_(std::move(pool)), layer_(std::move(layer)) {}

  // x float32 [tokens, dim].
  void measure(const at::Tensor& x, bool is_kept) {
    const MemoryConfig& memory = *c_.config.model.memory;
    const at::Tensor input = x.to(model_type(c_)).requires_grad_();
    const at::Tensor query =
        torch::randn({c_.tokens, memory.heads, memory.k_dim}).to(model_type(c_)).requires_grad_();
    at::Tensor slots, weights;
    const double select_s = seconds_of([&] { std::tie(slots, weights) = layer_->select(input); });
    const double lookup_s = seconds_of([&] { lookup(query, layer_->keys, memory.knn); });
    slots_ = slots.view({c_.tokens, -1});
    const double gather_s =
        seconds_of([&] { gather_rows(c_, pool_, x, slots_, weights.view({c_.tokens, -1})); });
    if (!is_kept) return;
    select_.add(select_s);
    lookup_.add(lookup_s);
    gather_.add(gather_s);
  }
  // random_row_gbs: of the rows that gather read last.
  void add_to(Figures& figures, Stream& stream) const {
    const auto bytes = static_cast<double>(slots_.numel() * row_bytes(pool_));
    figures.add("select", select_);
    figures.add("lookup", lookup_);
    figures.add("gather", gather_);
    figures.add("gather_gbs", bytes / gather_.best() / 1e9);
    figures.add("random_row_gbs", random_row_gbs(stream, pool_->values, slots_));
  }

 private:
  const Case& c_;
  MemoryPool pool_;
  MemoryLayer layer_;
  at::Tensor slots_;
  Times select_, lookup_, gather_;
};

}  // namespace

Figures bench_layer(const Case& c, Stream& stream) {
  const MemoryConfig& memory = *c.config.model.memory;
  const std::int64_t T = c.tokens;
  stream.measure();
  MemoryPool pool = make_pool(c);
  MemoryLayer layer = make_layer(c, pool);
  VectorDraw inputs(c.config.model.dim, c.distribution, kSeed);
  const at::Tensor grad = torch::randn({T, c.config.model.dim}).to(model_type(c));

  ForwardParts parts(c, pool, layer);
  Times forward, backward;
  for (int i = -1; i < c.repeat; ++i) {
    const at::Tensor x = inputs.draw(T).to(model_type(c)).requires_grad_();
    at::Tensor y;
    const double forward_s = seconds_of([&] { y = layer->forward(x); });
    const double backward_s = seconds_of([&] { y.backward(grad); });
    clear_gradients(layer);
    parts.measure(inputs.draw(T), i >= 0);
    if (i < 0) continue;
    forward.add(forward_s);
    backward.add(backward_s);
  }

  Figures figures;
  figures.add("forward", forward);
  figures.add("backward", backward);
  parts.add_to(figures, stream);
  measure_inference(c, stream, pool, figures);
  figures.add("stream_gbs", stream.read_gbs());
  figures.add("gemm_gflops", gemm_gflops(memory.k_dim / 2));
  return figures;
}

Figures bench_step(const Case& c, Stream& stream) {
  check_batch_memory(c, true);
  stream.measure();
  MemoryPool pool = make_pool(c);
  const auto rows = make_row_optimizer(c, pool);
  MemoryLayer layer = make_layer(c, pool);
  DenseAdamW dense = make_dense_optimizer(c, dense_parameters(layer));
  VectorDraw inputs(c.config.model.dim, c.distribution, kSeed);
  const at::Tensor grad = torch::randn({c.tokens, c.config.model.dim}).to(model_type(c));
  ForwardParts parts(c, pool, layer);
  ScoreProducts scores(c.tokens, *c.config.model.memory);
  LinearProducts linear(layer, c.tokens);

  Times step, forward, backward, update, dense_update;
  double touched = 0;
  for (int i = -1; i < c.repeat; ++i) {
    const at::Tensor x = inputs.draw(c.tokens).to(model_type(c)).requires_grad_();
    at::Tensor y;
    const double forward_s = seconds_of([&] { y = layer->forward(x); });
    const double backward_s = seconds_of([&] {
      dense.zero_grad();
      y.backward(grad);
    });
    RowOptimizer::StepResult result;
    const double update_s = seconds_of([&] { result = rows->step(c.config.train.value_lr); });
    const double dense_s = seconds_of([&] { dense.step(c.config.train.lr); });
    parts.measure(inputs.draw(c.tokens), i >= 0);
    const at::Tensor query = torch::randn({c.tokens, layer->keys.size(0), 2 * layer->keys.size(3)});
    scores.measure(query, layer->keys.detach().to(torch::kFloat), i >= 0);
    linear.measure(i >= 0);
    if (i < 0) continue;
    touched = static_cast<double>(result.touched_rows);
    forward.add(forward_s);
    backward.add(backward_s);
    update.add(update_s);
    dense_update.add(dense_s);
    step.add(forward_s + backward_s + update_s + dense_s);
  }
  stream.measure();

  Figures figures;
  figures.add("step", step);
  figures.add("forward", forward);
  figures.add("backward", backward);
  figures.add("update", update);
  figures.add("dense_update", dense_update);
  figures.add("touched_rows", touched);
  figures.add("tokens_per_s", static_cast<double>(c.tokens) / step.best());
  parts.add_to(figures, stream);
  // What no step does without: the products; and of the touched rows, that gather and its backward
  // read them and the update changes them and their state.
  const double products = scores.fastest().best() + linear.times().best();
  const double reads = 2 * touched * static_cast<double>(row_bytes(pool)) / stream.read_gbs();
  const double updates =
      2 * touched * static_cast<double>(touched_bytes_a_row(pool, *rows)) / stream.update_gbs();
  const double limit = products + (reads + updates) / 1e9;
  figures.add("products_ms", 1e3 * products);
  figures.add("rows_ms", (reads + updates) / 1e6);
  figures.add("limit_ms", 1e3 * limit);
  figures.add("limit_ratio", step.best() / limit);
  figures.add("stream_gbs", stream.read_gbs());
  figures.add("stream_update_gbs", stream.update_gbs());
  figures.add("gemm_gflops", gemm_gflops(c.config.model.memory->k_dim / 2));
  return figures;
}

}  // namespace memlayers::bench
