// SPDX-License-Identifier: Apache-2.0
#include <torch/types.h>

#include <algorithm>

#include "bench/model.h"
#include "bench/subjects.h"
#include "bench/trainee.h"

namespace memlayers::bench {
Figures bench_decoder(const Case& c, Stream& stream) {
  const ModelConfig& model = c.config.model;
  ModelConfig twin = model;
  twin.memory.reset();
  check_pool_memory(c);
  check_decoder_memory(c, 2);
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
  const std::int64_t decoded = std::min<std::int64_t>(model.context - 1, 8 * c.repeat);
  const Times decode = memory.decode(words, decoded), dense_decode = dense.decode(words, decoded);
  const Times of_4 = memory.decode(words, decoded, 4), of_16 = memory.decode(words, decoded, 16);
  stream.measure();
  const double decode_limit = decode_bytes(memory.model()) / (stream.read_gbs() * 1e9);
  const double context = static_cast<double>(std::min(model.context, c.tokens));

  Figures figures;
  figures.add("step", memory_step);
  figures.add("dense_step", dense_step);
  figures.add("step_ratio", memory_step.best() / dense_step.best());
  figures.add("tokens_per_s", static_cast<double>(tokens) / memory_step.best());
  figures.add("flops_a_token", memory.flops_a_token(static_cast<std::int64_t>(context)));
  figures.add("dense_flops_a_token", dense.flops_a_token(static_cast<std::int64_t>(context)));
  figures.add("decode", decode);
  figures.add("decode_bytes", decode_bytes(memory.model()));
  figures.add("decode_ratio", decode.best() / decode_limit);
  figures.add("dense_decode", dense_decode);
  // Tokens a second of 1, 4 and 16 sequences; of one, what the memory would give.
  figures.add("decode_tokens_per_s", 1 / decode.best());
  figures.add("decode_4_tokens_per_s", 4 / of_4.best());
  figures.add("decode_16_tokens_per_s", 16 / of_16.best());
  figures.add("decode_limit_tokens_per_s", 1 / decode_limit);
  figures.add("stream_gbs", stream.read_gbs());
  figures.add("gemm_gflops", gemm_gflops(model.memory->k_dim / 2));
  return figures;
}

}  // namespace memlayers::bench
