// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <algorithm>
#include <array>
#include <functional>
#include <string>

#include "bench/parts.h"
#include "memlayers/ops.h"

namespace memlayers::bench {
namespace {

// What no exact lookup does without: the scores of all sub-keys. Three ways to have torch compute
// them into memory that is there, for which is fastest depends on the sizes.
class ScoreProducts {
 public:
  ScoreProducts(std::int64_t tokens, const MemoryConfig& memory)
      : tokens_(tokens),
        scores_(torch::empty({memory.heads * 2, tokens, memory.n_keys})),
        blocks_(torch::empty({at::get_num_threads(), kBlock, memory.n_keys})) {}

  // halves [H * 2, tokens, half], keys [H * 2, half, n_keys]; both strided views.
  void batched(const at::Tensor& halves, const at::Tensor& keys) {
    at::bmm_out(scores_, halves, keys);
  }
  void one_by_one(const at::Tensor& halves, const at::Tensor& keys) {
    for (std::int64_t i = 0; i < halves.size(0); ++i) {
      at::Tensor out = scores_[i];
      at::mm_out(out, halves[i], keys[i]);
    }
  }
  // A block of tokens a time, into memory that stays in the cache: one thread a block.
  void in_blocks(const at::Tensor& halves, const at::Tensor& keys) {
    const std::int64_t blocks = (tokens_ + kBlock - 1) / kBlock;
    at::parallel_for(0, blocks * halves.size(0), 1, [&](std::int64_t begin, std::int64_t end) {
      const torch::NoGradGuard no_grad;
      const at::Tensor block = blocks_[at::get_thread_num()];
      for (std::int64_t unit = begin; unit < end; ++unit) {
        const std::int64_t i = unit % halves.size(0), first = unit / halves.size(0) * kBlock;
        const std::int64_t count = std::min(kBlock, tokens_ - first);
        at::Tensor out = block.narrow(0, 0, count);
        at::mm_out(out, halves[i].narrow(0, first, count), keys[i]);
      }
    });
  }

 private:
  static constexpr std::int64_t kBlock = 64;
  std::int64_t tokens_;
  at::Tensor scores_, blocks_;
};

}  // namespace

Figures bench_lookup(const Case& c, Stream& stream) {
  const MemoryConfig& memory = *c.config.model.memory;
  const std::int64_t T = c.tokens, H = memory.heads, d = memory.k_dim, n = memory.n_keys;
  VectorDraw queries(H * d, c.distribution, kSeed);
  const at::Tensor keys = torch::randn({H, 2, n, d / 2});
  const at::Tensor columns = keys.flatten(0, 1).transpose(1, 2);  // [H * 2, half, n]
  const at::Tensor grad = torch::randn({T, H, memory.knn});
  ScoreProducts products(T, memory);

  Times forward, backward;
  std::array<Times, 3> product;
  for (int i = -1; i < c.repeat; ++i) {
    const at::Tensor query = queries.draw(T).view({T, H, d});
    const auto time = [&](Times& times, const std::function<void()>& f) {
      const double seconds = seconds_of(f);
      if (i >= 0) times.add(seconds);
    };
    {
      const torch::NoGradGuard no_grad;
      const at::Tensor halves = query.view({T, H * 2, d / 2}).transpose(0, 1);
      time(product[0], [&] { products.batched(halves, columns); });
      time(product[1], [&] { products.one_by_one(halves, columns); });
      time(product[2], [&] { products.in_blocks(halves, columns); });
      time(forward, [&] { lookup(query, keys, memory.knn); });
    }
    const at::Tensor q = query.detach().requires_grad_(), k = keys.detach().requires_grad_();
    const at::Tensor scores = std::get<1>(lookup(q, k, memory.knn));
    time(backward, [&] { torch::autograd::grad({scores}, {q, k}, {grad}); });
  }
  const Times& fastest =
      *std::min_element(product.begin(), product.end(),
                        [](const Times& a, const Times& b) { return a.best() < b.best(); });
  const double operations = 2.0 * static_cast<double>(T * H * n * d);

  Figures figures;
  figures.add("lookup", forward);
  figures.add("products", fastest);
  figures.add("lookup_ratio", forward.best() / fastest.best());
  figures.add("lookup_backward", backward);
  figures.add("backward_ratio", backward.best() / forward.best());
  figures.add("products_gflops", operations / fastest.best() / 1e9);
  figures.add("gemm_gflops", gemm_gflops(d / 2));
  stream.measure();
  figures.add("stream_gbs", stream.read_gbs());
  return figures;
}

}  // namespace memlayers::bench
