// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "memlayers/evaluate.h"

namespace memlayers::cli {

// "facts.jsonl:3, facts.jsonl:9": those of `facts` that do not fit the context.
std::string places_of(const std::vector<Fact>& facts, const std::vector<std::size_t>& cut);

// Throws Error naming them where none of the facts fits the model's context.
void expect_one_that_fits(Generator& generator, const std::vector<Fact>& facts,
                          const FactScores& scores);

// evaluate_text() with a token cache that is gone afterwards.
TextScore score_text(Generator& generator, const std::vector<std::string>& paths,
                     std::int64_t batch_tokens = 8192,
                     const std::function<void(std::int64_t, std::int64_t)>& progress = {});

}  // namespace memlayers::cli
