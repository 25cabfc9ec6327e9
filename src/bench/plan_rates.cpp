// SPDX-License-Identifier: Apache-2.0
// The rates of a plan, measured on this machine: models of the same widths, but few layers and a
// small pool.
#include <ATen/Parallel.h>
#include <torch/types.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "bench/machine.h"
#include "bench/parallel.h"
#include "bench/plan.h"
#include "bench/subjects.h"
#include "bench/trainee.h"
#include "io/json.h"
#include "io/json_field.h"
#include "memlayers/llama.h"

namespace memlayers::bench {
namespace {

constexpr int kRepeat = 3;

// A decoder without memory: seconds of forward and backward are what its step takes without AdamW.
void measure_dense(const Case& c, Rates& rates) {
  ModelConfig model = c.config.model;
  model.memory.reset();
  model.layers = std::min<std::int64_t>(model.layers, 2);
  Trainee trainee(c, model);
  IndexDraw words(model.vocab_size, {}, kSeed);
  Times step;
  for (int i = -1; i < kRepeat; ++i) {
    const double seconds = trainee.seconds_of_step(draw_batch(words, c.tokens, model.context));
    if (i >= 0) step.add(seconds);
  }
  const auto numbers = static_cast<double>(trainee.dense_parameters());
  // AdamW alone, over as many numbers.
  const at::Tensor weights = torch::zeros({trainee.dense_parameters() / 256 + 1, 256});
  DenseAdamW dense = make_dense_optimizer(c, {{"weights", weights}});
  Times update;
  for (int i = -1; i < kRepeat; ++i) {
    at::Tensor target = weights;
    target.mutable_grad() = torch::ones_like(weights);
    const double seconds = seconds_of([&] {
      dense.gradient_norm();
      dense.step(0);
    });
    if (i >= 0) update.add(seconds);
  }
  rates.dense_update_s = update.best() / numbers;
  const double flops = trainee.flops_a_token(std::min(model.context, c.tokens));
  rates.dense_flops_s = 3 * flops * static_cast<double>(c.tokens) /
                        std::max(0.1 * step.best(), step.best() - update.best());
}

struct RowTimes {
  double read_s, update_s;
};

// How many batches of this case are to be read before a step, so that a row that is touched is read
// about as often as in a step of the run.
int batches_a_step(const Case& c, double reads_a_row) {
  const MemoryConfig& memory = *c.config.model.memory;
  const auto slots = static_cast<double>(memory.slots());
  const auto reads = static_cast<double>(c.tokens * memory.heads * memory.knn);
  constexpr int kMost = 8;
  int batches = 1;
  while (batches < kMost && batches * reads / touched_rows(slots, batches * reads) < reads_a_row) {
    ++batches;
  }
  return batches;
}

// Of rows of so many columns, as a layer of this case reads and trains them.
RowTimes measure_rows(const Case& c, std::int64_t columns, int batches) {
  const MemoryConfig& memory = *c.config.model.memory;
  MemoryPool pool(PoolOptions{
      .n_keys = memory.n_keys, .width = columns, .row_dtype = memory.row_dtype, .seed = kSeed});
  const auto optimizer = make_row_optimizer(c, pool);
  IndexDraw slots(memory.slots(), {}, kSeed);
  Times read, update;
  double touched = 0;
  for (int i = -1; i < kRepeat; ++i) {
    double read_s = 0;
    for (int batch = 0; batch < batches; ++batch) {
      const at::Tensor chosen = slots.draw({c.tokens, memory.heads * memory.knn});
      const at::Tensor weights = draw_weights(c).requires_grad_();
      const at::Tensor grad = torch::randn({c.tokens, columns});
      read_s += seconds_of([&] { pool->gather(chosen, weights).backward(grad); });
    }
    const double update_s =
        seconds_of([&] { touched = static_cast<double>(optimizer->step(0).touched_rows); });
    if (i < 0) continue;
    read.add(read_s);
    update.add(update_s);
  }
  const auto reads = static_cast<double>(batches * c.tokens * memory.heads * memory.knn);
  return {.read_s = read.best() / reads, .update_s = update.best() / touched};
}

void measure_memory(const Case& wanted, Rates& rates) {
  Case c = wanted;
  MemoryConfig& memory = *c.config.model.memory;
  const std::int64_t width = c.config.model.row_width();
  // What leaves the caches, and a quarter of the memory at most with the optimizer's state.
  const std::int64_t most = std::min<std::int64_t>(std::int64_t{4} << 30, available_memory() / 4);
  while (memory.n_keys > 64 && memory.slots() * 16 * width > most) memory.n_keys /= 2;
  memory.knn = std::min(memory.knn, memory.n_keys);
  rates.n_keys = memory.n_keys;
  const std::int64_t narrow = std::max<std::int64_t>(1, width / 8);
  const double reads_a_step = reads_of(
      wanted.config.model,
      static_cast<double>(wanted.config.train.batch_tokens * wanted.config.train.accumulate));
  const int batches = batches_a_step(
      c, reads_a_step /
             touched_rows(static_cast<double>(wanted.config.model.memory->slots()), reads_a_step));
  const RowTimes whole = measure_rows(c, width, batches), part = measure_rows(c, narrow, batches);
  const auto cost = [&](double of_whole, double of_part) {
    const double a_column = std::max(0.0, of_whole - of_part) /
                            static_cast<double>(std::max<std::int64_t>(1, width - narrow));
    return Rates::RowCost{.base_s = of_whole - a_column * static_cast<double>(width),
                          .column_s = a_column};
  };
  rates.read = cost(whole.read_s, part.read_s);
  rates.update = cost(whole.update_s, part.update_s);

  MemoryLayer layer = make_layer(c, make_pool(c));
  VectorDraw inputs(c.config.model.dim, {}, kSeed);
  const at::Tensor grad = torch::randn({c.tokens, c.config.model.dim});
  Times times;
  for (int i = -1; i < kRepeat; ++i) {
    const at::Tensor x = inputs.draw(c.tokens).requires_grad_();
    const double seconds = seconds_of([&] { layer->forward(x).backward(grad); });
    layer->pool()->clear_gradient();
    if (i >= 0) times.add(seconds);
  }
  const auto reads = static_cast<double>(memory.heads * memory.knn);
  rates.memory_token_s =
      std::max(0.0, times.best() / static_cast<double>(c.tokens) - reads * whole.read_s);
}

// Two processes of this machine, with a small model.
void measure_exchange(const TrainConfig& config, const std::string& program, Rates& rates) {
  const ModelConfig& model = config.model;
  const MemoryConfig memory = model.memory.value_or(MemoryConfig{});
  const auto text = [](std::int64_t number) { return std::to_string(number); };
  const std::vector<std::string> command{
      program,     "bench",
      "parallel",  "--json",
      "--repeat",  "5",
      "--tokens",  "512",
      "--layers",  "4",
      "--dim",     "128",
      "--vocab",   "512",
      "--n-keys",  text(std::min<std::int64_t>(64, memory.n_keys)),
      "--heads",   text(memory.heads),
      "--knn",     text(std::min<std::int64_t>(64, memory.knn)),
      "--k-dim",   "64",
      "--v-dim",   text(std::min<std::int64_t>(1024, model.value_dim())),
      "--threads", text(rates.threads)};
  const auto json = io::parse_json(output_of(mpirun_here(2, command)), "memlayers bench parallel");
  const io::JsonField measured(json, "memlayers bench parallel");
  const auto number = [&](const char* name) { return measured.at(name).number(); };
  constexpr double kProcesses = 2;
  rates.exchange_byte_s = 1e-3 * number("exchange_ms") / number("bytes_sent");
  const double rounds = 2 + 5 * static_cast<double>(measured.at("memory_layers").elements().size());
  rates.round_s = 1e-3 * number("wait_ms") / rounds / kProcesses;
}

}  // namespace

Rates measure_rates(const TrainConfig& config, const std::string& program) {
  Case c;
  c.config = config;
  c.repeat = kRepeat;
  c.tokens = std::clamp<std::int64_t>(config.train.batch_tokens, 64, 1024);
  Rates rates;
  rates.threads = at::get_num_threads();
  measure_dense(c, rates);
  if (!config.model.memory_layers().empty()) measure_memory(c, rates);
  measure_exchange(config, program, rates);
  return rates;
}

}  // namespace memlayers::bench
