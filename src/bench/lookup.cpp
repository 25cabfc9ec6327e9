// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <functional>

#include "bench/products.h"
#include "bench/subjects.h"
#include "memlayers/ops.h"
#include "nn/table.h"

namespace memlayers::bench {

Figures bench_lookup(const Case& c, Stream& stream) {
  const MemoryConfig& memory = *c.config.model.memory;
  const std::int64_t T = c.tokens, H = memory.heads, d = memory.k_dim, n = memory.n_keys;
  check_batch_memory(c, true);
  // There are no rows: the type of rows is that of queries and sub-keys.
  const at::ScalarType type = nn::element_type(memory.row_dtype);
  VectorDraw queries(H * d, c.distribution, kSeed);
  const at::Tensor keys = torch::randn({H, 2, n, d / 2}).to(type);
  const at::Tensor product_keys = keys.to(torch::kFloat);
  const at::Tensor grad = torch::randn({T, H, memory.knn});
  ScoreProducts products(T, memory);

  Times forward, backward;
  for (int i = -1; i < c.repeat; ++i) {
    const at::Tensor query = queries.draw(T).view({T, H, d}).to(type);
    const auto time = [&](Times& times, const std::function<void()>& f) {
      const double seconds = seconds_of(f);
      if (i >= 0) times.add(seconds);
    };
    products.measure(query.to(torch::kFloat), product_keys, i >= 0);
    {
      const torch::NoGradGuard no_grad;
      time(forward, [&] { lookup(query, keys, memory.knn); });
    }
    const at::Tensor q = query.detach().requires_grad_(), k = keys.detach().requires_grad_();
    const at::Tensor scores = std::get<1>(lookup(q, k, memory.knn));
    time(backward, [&] { torch::autograd::grad({scores}, {q, k}, {grad}); });
  }
  const Times& fastest = products.fastest();

  Figures figures;
  figures.add("lookup", forward);
  figures.add("products", fastest);
  figures.add("lookup_ratio", forward.best() / fastest.best());
  figures.add("lookup_backward", backward);
  figures.add("backward_ratio", backward.best() / forward.best());
  figures.add("products_gflops", products.operations() / fastest.best() / 1e9);
  figures.add("gemm_gflops", gemm_gflops(d / 2));
  stream.measure();
  figures.add("stream_gbs", stream.read_gbs());
  return figures;
}

}  // namespace memlayers::bench
