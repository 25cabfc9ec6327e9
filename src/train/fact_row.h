// SPDX-License-Identifier: Apache-2.0
// A fact as tokens: what it is measured by, and learned from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "memlayers/evaluate.h"

namespace memlayers::train {

struct FactRow {
  std::vector<std::int32_t> tokens;  // prefix, prompt, answer, end
  std::int64_t answer_from = 0;      // the first token that has a loss; at least 1
  // False where what has a loss is no more right than other words: text, a model's own answer.
  bool is_fact = true;
};

FactRow make_fact_row(const Generator& generator, const Fact& fact);  // asked as it says

// "facts.jsonl:7", or "fact 7" where nobody knows where it was read.
std::string place_of(const Fact& fact, std::size_t index);

// Throws Error naming the fact where its row has no token with a loss: an answer that becomes no
// token, of a tokenizer without EOS.
void check_has_answer(const FactRow& row, const Fact& fact, std::size_t index);

}  // namespace memlayers::train
