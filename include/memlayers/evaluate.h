// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "memlayers/generator.h"

namespace memlayers {

struct Fact {
  std::string prompt, answer;
};

// A number with the 95 % interval it was measured to.
struct Estimate {
  double value = 0, low = 0, high = 0;
};

struct FactScore {
  bool is_recalled = false;
  double nll = 0;  // negative log-likelihood of the answer and EOS, nats
  std::int64_t tokens = 0;
};

struct FactScores {
  Estimate recall;         // share of answers recalled exactly; Wilson's interval
  Estimate nll;            // nats per answer, mean; normal interval of a mean
  Estimate nll_per_token;  // nats per answer token, EOS included; ratio of sums, normal interval
  std::vector<FactScore> facts;  // in the order given
};

// How well a model knows facts. An answer is recalled when greedy decoding behind the prompt gives
// exactly its tokens and then EOS; since greedy decoding is deterministic this is so just when,
// with the answer given, each of its tokens and EOS is the most likely one at its place. One
// forward pass a batch of like lengths decides both figures. A fact that does not fit the context
// is not recalled and counts the part that fits. `progress(done)` is told after each batch. Throws
// Error for an empty list.
FactScores evaluate_facts(Generator& generator, const std::vector<Fact>& facts,
                          std::int64_t batch_tokens = 8192,
                          const std::function<void(std::int64_t)>& progress = {});

struct TextScore {
  double loss = 0;  // nats per token
  std::int64_t tokens = 0;
};

// Mean loss of the target tokens of text or facts, as training computes it; perplexity is
// exp(loss). Documents stand by themselves where each fits the context, else all are packed.
TextScore evaluate_text(Generator& generator, const std::vector<std::string>& paths,
                        DataFormat format, const std::string& cache_folder,
                        std::int64_t batch_tokens = 8192,
                        const std::function<void(std::int64_t)>& progress = {});

// Reads facts: JSONL with "prompt" and "answer". Throws Error naming the file, and the line or
// fact.
std::vector<Fact> read_facts(const std::vector<std::string>& paths);

}  // namespace memlayers
