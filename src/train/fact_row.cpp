// SPDX-License-Identifier: Apache-2.0
#include "train/fact_row.h"

#include "memlayers/error.h"

namespace memlayers::train {

FactRow make_fact_row(const Generator& generator, const Fact& fact) {
  FactRow row;
  const auto append = [&](const std::vector<std::int32_t>& more) {
    row.tokens.insert(row.tokens.end(), more.begin(), more.end());
  };
  append(generator.question_tokens(fact.prompt));
  row.answer_from = static_cast<std::int64_t>(row.tokens.empty() ? 1 : row.tokens.size());
  append(generator.answer_tokens(fact.answer));
  append(generator.end_tokens());
  return row;
}

std::string place_of(const Fact& fact, std::size_t index) {
  return fact.place.empty() ? "fact " + std::to_string(index + 1) : fact.place;
}

void check_has_answer(const FactRow& row, const Fact& fact, std::size_t index) {
  if (static_cast<std::int64_t>(row.tokens.size()) > row.answer_from) return;
  throw Error(place_of(fact, index) +
              ": answer: expected text that the tokenizer makes at least one token of, got none");
}

}  // namespace memlayers::train
