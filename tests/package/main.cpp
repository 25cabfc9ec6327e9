// SPDX-License-Identifier: Apache-2.0
#include <memlayers/memlayers.h>

#include <iostream>

int main() {
  using namespace memlayers;
  const MemoryConfig config{.n_keys = 32, .heads = 2, .knn = 8, .k_dim = 16};
  MemoryPool pool(PoolOptions{.n_keys = 32, .width = 24});
  MemoryLayer layer(24, config, pool);
  RowOptimizer optimizer(pool, {});
  const at::Tensor x = torch::randn({10, 24}), wanted = torch::randn({10, 24});
  const double before = torch::mse_loss(layer->forward(x), wanted).item<double>();
  for (int step = 0; step < 50; ++step) {
    torch::mse_loss(layer->forward(x), wanted).backward();
    optimizer.step(1e-2);
  }
  const double after = torch::mse_loss(layer->forward(x), wanted).item<double>();
  std::cout << "loss " << before << " -> " << after << "\n";
  return after < before ? 0 : 1;
}
