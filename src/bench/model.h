// SPDX-License-Identifier: Apache-2.0
// How fast a model answers: one prompt, and streams together, as a server that has opened it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "bench/figures.h"
#include "bench/limits.h"
#include "memlayers/llama.h"
#include "memlayers/tokenizer.h"

namespace memlayers::bench {

// Bytes that one token must read: weights as they are stored (sub-keys in 8 bits; of embeddings
// that are not the output's too, one row) and rows of the pool. Neither caches of attention nor
// rows read twice are counted.
double decode_bytes(Llama& model);

struct ModelCase {
  std::int64_t prompt = 512;                       // tokens of the prompt
  std::int64_t tokens = 128;                       // that each stream is continued by
  std::vector<std::int64_t> streams = {1, 4, 16};  // together
  int repeat = 3;
  // Of a prompt that one step takes in, at most.
  std::int64_t prefill = 512;
};

// prompt_tokens_per_s; decode[_N]_tokens_per_s of N streams together; decode_bytes, and the share
// of the memory's rate at which one stream reads them. Throws Error where prompt or tokens do not
// fit the model's context.
Figures bench_model(Llama model, const std::shared_ptr<const Tokenizer>& tokenizer,
                    const ModelCase& c, Stream& stream);

}  // namespace memlayers::bench
