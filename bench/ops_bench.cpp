// SPDX-License-Identifier: Apache-2.0
// The tensor functions beside what torch offers for the same work, in one process and on the same
// number of threads: gather beside at::embedding_bag, lookup beside its two score products alone
// (which it cannot beat), a product for one token beside torch's, the row update beside torch's
// AdamW on a dense gradient, and a whole memory layer, forward and backward. "cold": rows of a pool
// of 8 last-level caches, ids drawn before timing, no row read twice before the whole pool has
// passed; weights in turn, as many bytes of them.
#include <benchmark/benchmark.h>
#include <torch/torch.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "memlayers/memory_layer.h"
#include "memlayers/ops.h"
#include "memlayers/optimizer.h"
#include "nn/huge_pages.h"
#include "ops/linear/product.h"

namespace memlayers {
namespace {

constexpr std::uint64_t kSeed = 1;

at::Tensor normal(at::IntArrayRef shape) {
  return torch::randn(shape, at::make_generator<at::CPUGeneratorImpl>(kSeed), torch::kFloat);
}

at::Tensor draw_slots(at::IntArrayRef shape, std::int64_t num_slots) {
  return torch::randint(0, num_slots, shape, at::make_generator<at::CPUGeneratorImpl>(kSeed),
                        torch::kLong);
}

std::string with(const std::string& parameter, std::int64_t value) {
  return "/" + parameter + ":" + std::to_string(value);
}

void report_rate(benchmark::State& state, const char* unit, std::int64_t an_iteration) {
  state.counters[unit] = benchmark::Counter(static_cast<double>(an_iteration * state.iterations()),
                                            benchmark::Counter::kIsRate);
}

template <class Body>
void add(const std::string& name, Body body) {
  benchmark::RegisterBenchmark(name.c_str(), body)
      ->Repetitions(5)
      ->MinTime(0.2)
      ->UseRealTime()
      ->ReportAggregatesOnly();
}

// --- gather -------------------------------------------------------------------------------------

std::int64_t cold_bytes() {
  constexpr std::int64_t kMiB = 1 << 20;
  return std::clamp<std::int64_t>(8 * sysconf(_SC_LEVEL3_CACHE_SIZE), 128 * kMiB, 1024 * kMiB);
}

template <class Sum>  // at::Tensor(values, slots, weights)
void add_gather(const std::string& whose, at::ScalarType type, std::int64_t width, std::int64_t k,
                Sum sum) {
  const std::string type_name = type == torch::kFloat ? "float32" : "bfloat16";
  add("gather/" + whose + "/" + type_name + "/cold" + with("dim", width) + with("k", k),
      [=](benchmark::State& state) {
        constexpr std::int64_t kTokens = 128;
        const torch::NoGradGuard no_grad;
        const auto element = static_cast<std::int64_t>(c10::elementSize(type));
        const std::int64_t rows = cold_bytes() / (width * element);
        const std::int64_t calls = std::max<std::int64_t>(1, rows / (kTokens * k));
        const at::Tensor values = torch::full({rows, width}, 0.5, type);
        const at::Tensor slots = draw_slots({calls, kTokens, k}, rows);
        // embedding_bag wants weights of the table's type, ours are float32: each gets its own.
        const at::Tensor weights = normal({kTokens, k}).to(whose == "ours" ? torch::kFloat : type);
        std::int64_t call = 0;
        for (auto _ : state) {
          benchmark::DoNotOptimize(sum(values, slots[call], weights));
          call = (call + 1) % calls;
        }
        report_rate(state, "bytes/s", kTokens * k * width * element);
      });
}

at::Tensor embedding_bag_sum(const at::Tensor& values, const at::Tensor& slots,
                             const at::Tensor& weights) {
  const at::Tensor offsets = torch::arange(0, slots.numel(), slots.size(1));
  constexpr std::int64_t kSum = 0;
  return std::get<0>(at::embedding_bag(values, slots.flatten(), offsets,
                                       /*scale_grad_by_freq=*/false, kSum, /*sparse=*/false,
                                       weights.flatten()));
}

void add_gathers() {
  for (at::ScalarType type : {torch::kFloat, torch::kBFloat16}) {
    for (std::int64_t width : {128, 512}) {
      for (std::int64_t k : {32, 128}) {
        add_gather("ours", type, width, k,
                   [](const auto& values, const auto& slots, const auto& w) {
                     return gather(values, slots, w);
                   });
        add_gather("embedding_bag", type, width, k, embedding_bag_sum);
      }
    }
  }
}

// --- lookup -------------------------------------------------------------------------------------

template <class Find>  // at::Tensor(query, keys)
void add_lookup(const std::string& whose, std::int64_t tokens, std::int64_t n_keys, std::int64_t k,
                Find find) {
  add("lookup/" + whose + "/warm" + with("tokens", tokens) + with("heads", 4) + with("k_dim", 256) +
          with("n_keys", n_keys) + with("k", k),
      [=](benchmark::State& state) {
        const torch::NoGradGuard no_grad;
        const at::Tensor query = normal({tokens, 4, 256}), keys = normal({4, 2, n_keys, 128});
        for (auto _ : state) benchmark::DoNotOptimize(find(query, keys));
        report_rate(state, "tokens/s", tokens);
      });
}

// What no exact lookup does without: the scores of all sub-keys.
at::Tensor score_products(const at::Tensor& query, const at::Tensor& keys) {
  const at::Tensor halves = query.view({query.size(0), query.size(1) * 2, -1}).transpose(0, 1);
  return torch::bmm(halves, keys.flatten(0, 1).transpose(1, 2));  // [H * 2, T, n]
}

void add_lookups() {
  for (std::int64_t tokens : {1, 1024}) {
    for (std::int64_t n_keys : {128, 1024}) {
      constexpr std::int64_t kSlots = 32;
      add_lookup("ours", tokens, n_keys, kSlots, [](const auto& query, const auto& keys) {
        return std::get<0>(lookup(query, keys, kSlots));
      });
      add_lookup("products", tokens, n_keys, kSlots, score_products);
    }
  }
}

// --- update -------------------------------------------------------------------------------------

constexpr std::int64_t kPoolKeys = 256, kPoolWidth = 256, kReads = 64;  // a pool of 64 MiB

std::string update_name(const std::string& whose, std::int64_t tokens) {
  return "update/" + whose + with("slots", kPoolKeys * kPoolKeys) + with("dim", kPoolWidth) +
         with("tokens", tokens) + with("reads", kReads);
}

// Both make their gradient within the timed loop: ours factored, torch's dense.
void add_updates(std::int64_t tokens) {
  const auto loss_of = [](const at::Tensor& y) { return y.sum(); };
  add(update_name("rows", tokens), [=](benchmark::State& state) {
    MemoryPool pool(PoolOptions{.n_keys = kPoolKeys, .width = kPoolWidth, .seed = kSeed});
    RowOptimizer optimizer(pool, {});
    const at::Tensor slots = draw_slots({tokens, kReads}, pool->slots());
    const at::Tensor weights = normal({tokens, kReads});
    for (auto _ : state) {
      loss_of(pool->gather(slots, weights)).backward();
      benchmark::DoNotOptimize(optimizer.step(1e-3));
    }
    report_rate(state, "tokens/s", tokens);
  });
  add(update_name("torch_adamw", tokens), [=](benchmark::State& state) {
    at::Tensor values = normal({kPoolKeys * kPoolKeys, kPoolWidth}).requires_grad_();
    torch::optim::AdamW optimizer({values}, torch::optim::AdamWOptions(1e-3));
    const at::Tensor slots = draw_slots({tokens, kReads}, values.size(0));
    const at::Tensor weights = normal({tokens, kReads});
    for (auto _ : state) {
      optimizer.zero_grad();
      loss_of(embedding_bag_sum(values, slots, weights)).backward();
      optimizer.step();
      benchmark::DoNotOptimize(values);
    }
    report_rate(state, "tokens/s", tokens);
  });
}

// --- a product for one token --------------------------------------------------------------------

template <class Product>  // at::Tensor(x, weight)
void add_product(const std::string& whose, bool is_huge, Product product) {
  constexpr std::int64_t kIn = 1024, kOut = 2048;
  add("product_of_a_token/" + whose + (is_huge ? "/huge_pages" : "/pages") + "/cold" +
          with("in", kIn) + with("out", kOut),
      [=](benchmark::State& state) {
        const torch::NoGradGuard no_grad;
        const at::Tensor x = normal({1, kIn});
        std::vector<at::Tensor> weights;
        for (std::int64_t i = 0; i < cold_bytes() / (kIn * kOut * 4) + 1; ++i) {
          const at::Tensor weight = normal({kOut, kIn});
          weights.push_back(is_huge ? nn::in_huge_pages(weight) : weight);
        }
        std::size_t call = 0;
        for (auto _ : state) {
          benchmark::DoNotOptimize(product(x, weights[call]));
          call = (call + 1) % weights.size();
        }
        report_rate(state, "bytes/s", kIn * kOut * 4);
      });
}

void add_products() {
  for (const bool is_huge : {false, true}) {
    add_product("ours", is_huge, [](const at::Tensor& x, const at::Tensor& weight) {
      return ops::linear(x, ops::Weights(weight));
    });
    add_product("torch", is_huge, [](const at::Tensor& x, const at::Tensor& weight) {
      return torch::linear(x, weight);
    });
  }
}

// --- a whole layer ------------------------------------------------------------------------------

void add_layer(std::int64_t tokens, std::int64_t n_keys) {
  constexpr std::int64_t kDim = 512;
  add("memory_layer/forward_backward" + with("tokens", tokens) + with("dim", kDim) +
          with("n_keys", n_keys) + with("heads", 4) + with("k", 32),
      [=](benchmark::State& state) {
        MemoryConfig config;
        config.n_keys = n_keys;
        config.heads = 4;
        config.knn = 32;
        torch::manual_seed(kSeed);
        MemoryPool pool(PoolOptions{.n_keys = n_keys, .width = kDim, .seed = kSeed});
        MemoryLayer layer(kDim, config, pool);
        const at::Tensor x = normal({tokens, kDim});
        for (auto _ : state) {
          layer->zero_grad();
          layer->forward(x).sum().backward();
          pool->clear_gradient();
        }
        report_rate(state, "tokens/s", tokens);
      });
}

void add_all() {
  add_gathers();
  add_lookups();
  add_products();
  for (std::int64_t tokens : {64, 1024}) add_updates(tokens);
  for (std::int64_t n_keys : {128, 512}) add_layer(1024, n_keys);
}

}  // namespace
}  // namespace memlayers

int main(int argc, char** argv) {
  memlayers::add_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::AddCustomContext("threads", std::to_string(at::get_num_threads()));
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
