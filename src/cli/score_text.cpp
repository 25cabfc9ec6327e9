// SPDX-License-Identifier: Apache-2.0
#include "cli/score_text.h"

#include "io/shown.h"
#include "io/temporary_folder.h"
#include "memlayers/error.h"
#include "text/dataset.h"
#include "train/fact_row.h"

namespace memlayers::cli {

std::string places_of(const std::vector<Fact>& facts, const std::vector<std::size_t>& cut) {
  std::vector<std::string> places;
  for (const std::size_t i : cut) places.push_back(train::place_of(facts[i], i));
  return io::shown(text::listed(places));
}

void expect_one_that_fits(Generator& generator, const std::vector<Fact>& facts,
                          const FactScores& scores) {
  if (scores.cut.size() < facts.size()) return;
  throw Error(places_of(facts, scores.cut) + ": expected a fact of at most " +
              std::to_string(generator.model()->config().context) +
              " tokens, the model's context, got none among " + std::to_string(facts.size()));
}

TextScore score_text(Generator& generator, const std::vector<std::string>& paths,
                     std::int64_t batch_tokens,
                     const std::function<void(std::int64_t, std::int64_t)>& progress) {
  // The token cache of an evaluation is of no use afterwards.
  const io::TemporaryFolder cache("eval");
  return evaluate_text(generator, paths, DataFormat::kAuto, cache.path(), batch_tokens, progress);
}

}  // namespace memlayers::cli
