// SPDX-License-Identifier: Apache-2.0
#include "edit/json_lines.h"
#include "edit/phrasings.h"
#include "memlayers/error.h"
#include "train/fact_row.h"

namespace memlayers {
namespace {

std::string text_of(const text::JsonField& field) {
  if (field.string().empty()) field.fail("text");
  return field.string();
}

std::vector<std::string> texts_of(const text::JsonField& line, const std::string& name) {
  std::vector<std::string> texts;
  if (const auto list = line.find(name)) {
    for (const text::JsonField& text : list->elements()) texts.push_back(text_of(text));
  }
  return texts;
}

}  // namespace

std::vector<NewFact> read_new_facts(const std::string& path) {
  std::vector<NewFact> facts;
  edit::for_each_json_line(path, [&](const text::JsonField& fact) {
    facts.push_back({.fact = {text_of(fact.at("prompt")), text_of(fact.at("answer"))},
                     .paraphrases = texts_of(fact, "paraphrases"),
                     .unseen = texts_of(fact, "unseen")});
  });
  if (facts.empty()) throw Error(path + ": expected at least one fact, got none");
  return facts;
}

std::vector<Fact> unseen_phrasings(const std::vector<NewFact>& facts) {
  std::vector<Fact> all;
  for (const NewFact& fact : facts) {
    for (const std::string& prompt : fact.unseen) all.push_back({prompt, fact.fact.answer});
  }
  return all;
}

namespace edit {

std::vector<Fact> learned_phrasings(const std::vector<NewFact>& facts) {
  std::vector<Fact> all;
  for (const NewFact& fact : facts) {
    all.push_back(fact.fact);
    for (const std::string& prompt : fact.paraphrases) all.push_back({prompt, fact.fact.answer});
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
      const auto length = static_cast<std::int64_t>(
          train::make_fact_row(generator.tokenizer(), fact).tokens.size());
      if (length <= context) continue;
      throw Error("fact " + std::to_string(i + 1) + ": expected at most " +
                  std::to_string(context) + " tokens, the model's context, got " +
                  std::to_string(length));
    }
  }
}

}  // namespace edit
}  // namespace memlayers
