// SPDX-License-Identifier: Apache-2.0
#include "edit/phrasings.h"

#include <algorithm>
#include <string>
#include <unordered_set>

#include "io/file_system.h"
#include "memlayers/error.h"
#include "memlayers/explain.h"
#include "text/dataset.h"

namespace memlayers::edit {

namespace {

std::unordered_set<std::string> prompts_of(const std::vector<NewFact>& facts) {
  std::unordered_set<std::string> prompts;
  for (const NewFact& fact : facts) {
    prompts.insert(fact.fact.prompt);
    prompts.insert(fact.paraphrases.begin(), fact.paraphrases.end());
    prompts.insert(fact.unseen.begin(), fact.unseen.end());
  }
  return prompts;
}

}  // namespace

bool is_scaled(const ModelConfig& config) {
  return config.memory && !config.memory->output_scales.empty();
}

double learning_rate(const LearnOptions& options, const ModelConfig& config) {
  constexpr double kOfRows = 3e-3, kOfScaledRows = 2e-2;
  return options.lr.value_or(is_scaled(config) ? kOfScaledRows : kOfRows);
}

std::vector<train::FactRow> own_answers(Generator& generator, const std::vector<std::string>& paths,
                                        const std::vector<NewFact>& without, std::int64_t most) {
  const std::unordered_set<std::string> left_out = prompts_of(without);
  const std::int64_t context = generator.model()->config().context;
  std::vector<std::vector<std::int32_t>> prompts;
  for (const std::string& path : paths) {
    for (const std::string& prompt : read_prompts(path)) {
      if (left_out.contains(prompt)) continue;
      std::vector<std::int32_t> tokens = generator.question_tokens(prompt);
      const auto length = static_cast<std::int64_t>(tokens.size());
      if (length > 0 && length + most <= context) prompts.push_back(std::move(tokens));
    }
  }
  if (prompts.empty()) {
    throw Error(text::listed(paths) +
                ": expected prompts that are not those of the new facts and that fit the context "
                "with an answer, got none");
  }
  const std::vector<std::vector<std::int32_t>> answers =
      generator.generate_tokens(prompts, {.max_tokens = most});
  std::vector<train::FactRow> rows;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    train::FactRow row{.tokens = std::move(prompts[i]), .is_fact = false};
    row.answer_from = static_cast<std::int64_t>(row.tokens.size());
    row.tokens.insert(row.tokens.end(), answers[i].begin(), answers[i].end());
    if (static_cast<std::int64_t>(answers[i].size()) < most) {
      row.tokens.insert(row.tokens.end(), generator.end_tokens().begin(),
                        generator.end_tokens().end());
    }
    if (static_cast<std::int64_t>(row.tokens.size()) > row.answer_from) {
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

std::vector<Fact> learned_phrasings(const std::vector<NewFact>& facts) {
  std::vector<Fact> all;
  for (const NewFact& fact : facts) {
    all.push_back(fact.fact);
    for (const std::string& prompt : fact.paraphrases) {
      all.push_back({prompt, fact.fact.answer, fact.fact.place});
    }
  }
  return all;
}

void check_can_learn(Generator& generator, const std::vector<NewFact>& facts) {
  const MemoryPool pool = generator.model()->pool();
  if (pool.is_empty()) {
    throw Error("learn: expected a model with memory layers, got one without a pool");
  }
  if (is_quantized(pool->options().row_dtype)) {
    throw Error(std::string("learn: expected rows of type float32 or bfloat16, got ") +
                row_type_name(pool->options().row_dtype));
  }
  if (pool->options().store != nullptr || pool->is_sharded()) {
    throw Error(
        "learn: expected a model that holds all of its rows (load_model), got one that "
        "reads them elsewhere");
  }
  if (facts.empty()) throw Error("learn: expected at least one fact, got none");
  const std::int64_t context = generator.model()->config().context;
  for (std::size_t i = 0; i < facts.size(); ++i) {
    for (const Fact& fact : learned_phrasings({facts[i]})) {
      const train::FactRow row = train::make_fact_row(generator, fact);
      train::check_has_answer(row, fact, i);
      const auto length = static_cast<std::int64_t>(row.tokens.size());
      if (length <= context) continue;
      throw Error(train::place_of(fact, i) + ": expected at most " + std::to_string(context) +
                  " tokens, the model's context, got " + std::to_string(length));
    }
  }
}

std::vector<train::FactRow> read_rows(Generator& generator, const std::vector<std::string>& paths,
                                      const std::vector<NewFact>& without,
                                      std::optional<std::int64_t> piece) {
  const Tokenizer& tokenizer = generator.tokenizer();
  const std::int64_t context = generator.model()->config().context;
  const std::unordered_set<std::string> left_out = prompts_of(without);
  std::vector<train::FactRow> rows;
  bool has_loss = false;
  const auto add = [&](train::FactRow row, std::int64_t most, bool is_left_out) {
    // The last token of a piece is the first of the next, so that each token but the first has a
    // place where it is predicted.
    const auto length = static_cast<std::int64_t>(row.tokens.size());
    for (std::int64_t begin = 0; begin + 1 < length; begin += most) {
      const std::int64_t end = std::min(begin + most + 1, length);
      if (end <= row.answer_from) continue;
      has_loss = true;
      if (is_left_out) return;
      rows.push_back({.tokens = {row.tokens.begin() + begin, row.tokens.begin() + end},
                      .answer_from = std::max<std::int64_t>(1, row.answer_from - begin),
                      .is_fact = row.is_fact});
    }
  };
  text::read_documents(io::posix(), paths, DataFormat::kAuto, [&](const text::Document& document) {
    if (document.prompt.empty()) {
      add({.tokens = tokenizer.encode_document(document.answer),
           .answer_from = 1,
           .is_fact = false},
          std::min(context, piece.value_or(context)), false);
      return;
    }
    std::vector<std::string> prompts = document.paraphrases;
    prompts.insert(prompts.begin(), document.prompt);
    const bool is_left_out = std::ranges::any_of(
        prompts, [&](const std::string& prompt) { return left_out.contains(prompt); });
    if (is_left_out && has_loss) return;
    for (const std::string& prompt : prompts) {
      add(train::make_fact_row(generator, {prompt, document.answer}), context, is_left_out);
    }
  });
  if (!has_loss) {
    throw Error(text::listed(paths) + ": expected text with a token to predict, got none");
  }
  return rows;
}

}  // namespace memlayers::edit
