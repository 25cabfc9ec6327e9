// SPDX-License-Identifier: Apache-2.0
// What learning makes of its input: every phrasing of every fact as tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "memlayers/edit.h"
#include "train/fact_row.h"

namespace memlayers::edit {

// Prompts and paraphrases with their answers, in the order of the facts.
std::vector<Fact> learned_phrasings(const std::vector<NewFact>& facts);

// Every document of these files (text, or facts as JSONL, with their paraphrases) as tokens to read
// and predict; one that is longer than the context, or text that is longer than `piece` tokens, in
// pieces, those without a loss left out. So is what has one of the prompts of `without`: of a fact
// that is corrected there may be the old answer. Throws Error naming the files where they hold
// nothing to predict.
std::vector<train::FactRow> read_rows(Generator& generator, const std::vector<std::string>& paths,
                                      const std::vector<NewFact>& without = {},
                                      std::optional<std::int64_t> piece = {});

// What the model answers by itself, greedily and in at most `most` tokens, to the prompts of these
// files, but for those of `without`. Throws Error naming the files where they ask nothing else.
std::vector<train::FactRow> own_answers(Generator& generator, const std::vector<std::string>& paths,
                                        const std::vector<NewFact>& without, std::int64_t most);

// Whether its memory has output scales: rows of size one weigh as much as what they are added to.
bool is_scaled(const ModelConfig& config);

// LearnOptions::lr for a model of this configuration.
double learning_rate(const LearnOptions& options, const ModelConfig& config);

// Throws Error unless the model has a pool whose rows can be trained, and every phrasing fits its
// context.
void check_can_learn(Generator& generator, const std::vector<NewFact>& facts);

}  // namespace memlayers::edit
