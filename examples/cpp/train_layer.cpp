// SPDX-License-Identifier: Apache-2.0
// One memory layer learns a table by heart: a vector in, the vector that belongs to it out.
//
//   train_layer [STEPS]
#include <memlayers/memlayers.h>

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

namespace {

constexpr std::int64_t kDim = 64, kEntries = 512;

// All parameters but the pool's rows, which have an optimizer of their own.
std::vector<std::pair<std::string, at::Tensor>> dense_parameters(
    const memlayers::MemoryLayer& layer) {
  std::vector<std::pair<std::string, at::Tensor>> dense;
  for (const auto& parameter : layer->named_parameters()) {
    if (parameter.key().starts_with("pool.")) continue;
    dense.emplace_back(parameter.key(), parameter.value());
  }
  return dense;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace memlayers;
  const int steps = argc > 1 ? std::atoi(argv[1]) : 300;
  torch::manual_seed(1);

  // 64 x 64 sub-keys address 4,096 slots, of which each of 2 heads reads 16 for a token.
  const MemoryConfig config{.n_keys = 64, .heads = 2, .knn = 16, .k_dim = 32};
  MemoryPool pool(PoolOptions{.n_keys = config.n_keys, .width = kDim});
  MemoryLayer layer(kDim, config, pool);
  DenseAdamW dense(dense_parameters(layer), {.weight_decay = 0});
  RowOptimizer rows(pool, {});

  const at::Tensor in = torch::randn({kEntries, kDim}), out = torch::randn({kEntries, kDim});
  double first = 0, loss = 0;
  for (int step = 0; step < steps; ++step) {
    dense.zero_grad();
    const at::Tensor error = torch::mse_loss(layer->forward(in), out);
    error.backward();  // leaves the gradient of the rows that were read with the pool
    dense.step(/*lr=*/3e-3, /*clip=*/1.0);
    const RowOptimizer::StepResult stepped = rows.step(/*lr=*/1e-2);
    loss = error.item<double>();
    if (step == 0) first = loss;
    if (step % 50 == 0 || step + 1 == steps) {
      std::cout << "step " << step << ": loss " << loss << ", " << stepped.touched_rows << " of "
                << pool->slots() << " rows changed\n";
    }
  }
  return loss < first / 2 ? EXIT_SUCCESS : EXIT_FAILURE;
}
