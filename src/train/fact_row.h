// SPDX-License-Identifier: Apache-2.0
// A fact as tokens: what it is measured by, and learned from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "memlayers/evaluate.h"

namespace memlayers::train {

struct FactRow {
  std::vector<std::int32_t> tokens;  // BOS, prompt, answer, EOS
  std::int64_t answer_from = 0;      // the first token that has a loss; at least 1
};

inline FactRow make_fact_row(const Tokenizer& tokenizer, const Fact& fact) {
  FactRow row;
  const auto append = [&](const std::vector<std::int32_t>& more) {
    row.tokens.insert(row.tokens.end(), more.begin(), more.end());
  };
  if (tokenizer.bos()) row.tokens.push_back(*tokenizer.bos());
  append(tokenizer.encode(fact.prompt));
  row.answer_from = static_cast<std::int64_t>(row.tokens.empty() ? 1 : row.tokens.size());
  append(tokenizer.encode_continuation(fact.answer));
  if (tokenizer.eos()) row.tokens.push_back(*tokenizer.eos());
  return row;
}

}  // namespace memlayers::train
