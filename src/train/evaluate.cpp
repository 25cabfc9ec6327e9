// SPDX-License-Identifier: Apache-2.0
#include "memlayers/evaluate.h"

#include <torch/types.h>

#include <optional>
#include <span>
#include <utility>

#include "memlayers/error.h"
#include "nn/finite.h"
#include "nn/lookup_hook.h"
#include "text/dataset.h"
#include "train/answer_scores.h"
#include "train/estimate.h"
#include "train/fact_row.h"
#include "train/mean.h"

namespace memlayers {

namespace {

// As the generator judges their prompts.
void judge(Generator& generator, const std::vector<train::FactRow>& rows,
           std::vector<FactScore>& facts) {
  const MemoryPool pool = generator.model()->pool();
  if (pool.is_empty()) return;
  const std::optional<Snapshot> snapshot = pool->snapshot();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (facts[i].is_cut) continue;
    const auto prompt =
        std::span(rows[i].tokens).first(static_cast<std::size_t>(rows[i].answer_from));
    const Generator::Judgement judgement = generator.judge(prompt, snapshot);
    facts[i].memory_confidence = judgement.confidence;
    facts[i].memory_is_off = judgement.is_off;
  }
}

// With the memory for those that have it, and then without, as if all rows were zero.
std::vector<train::AnswerScore> score(Generator& generator, const std::vector<train::FactRow>& rows,
                                      const std::vector<FactScore>& facts,
                                      std::int64_t batch_tokens,
                                      const std::function<void(std::int64_t)>& progress) {
  std::vector<train::AnswerScore> scores(rows.size());
  std::int64_t before = 0;
  for (const bool is_off : {false, true}) {
    std::vector<std::size_t> places;
    std::vector<train::FactRow> some;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (facts[i].memory_is_off != is_off) continue;
      places.push_back(i);
      some.push_back(rows[i]);
    }
    if (some.empty()) continue;
    std::optional<nn::LookupHook> hook;
    if (is_off) {
      hook.emplace(
          [](const MemoryLayerImpl&, const at::Tensor&, at::Tensor& weights) { weights.zero_(); });
    }
    std::vector<train::AnswerScore> made =
        train::score_answers(generator, some, batch_tokens,
                             progress ? [&](std::int64_t done) { progress(before + done); }
                                      : std::function<void(std::int64_t)>());
    for (std::size_t i = 0; i < made.size(); ++i) scores[places[i]] = std::move(made[i]);
    before += static_cast<std::int64_t>(some.size());
  }
  return scores;
}

}  // namespace

FactScores evaluate_facts(Generator& generator, const std::vector<Fact>& facts,
                          std::int64_t batch_tokens,
                          const std::function<void(std::int64_t)>& progress) {
  if (facts.empty()) throw Error("facts: expected at least one, got none");
  const std::int64_t context = generator.model()->config().context;
  FactScores result;
  result.facts.resize(facts.size());
  std::vector<train::FactRow> rows;
  rows.reserve(facts.size());
  for (std::size_t i = 0; i < facts.size(); ++i) {
    rows.push_back(train::make_fact_row(generator, facts[i]));
    train::check_has_answer(rows.back(), facts[i], i);
    result.facts[i].is_cut = static_cast<std::int64_t>(rows.back().tokens.size()) > context;
    if (result.facts[i].is_cut) rows.back().tokens.resize(static_cast<std::size_t>(context));
  }
  judge(generator, rows, result.facts);
  const std::vector<train::AnswerScore> scores =
      score(generator, rows, result.facts, batch_tokens, progress);
  std::vector<double> nll, tokens;
  double recalled = 0;
  for (std::size_t i = 0; i < facts.size(); ++i) {
    FactScore& fact = result.facts[i];
    fact.nll = scores[i].nll;
    fact.tokens = scores[i].tokens;
    if (fact.is_cut) {
      result.cut.push_back(i);
      continue;
    }
    fact.is_recalled = scores[i].is_best;
    nll.push_back(fact.nll);
    tokens.push_back(static_cast<double>(fact.tokens));
    recalled += fact.is_recalled ? 1 : 0;
  }
  result.recall = train::share(recalled, static_cast<double>(facts.size()));
  result.nll = train::ratio(nll, std::vector<double>(nll.size(), 1));
  result.nll_per_token = train::ratio(nll, tokens);
  return result;
}

TextScore evaluate_text(Generator& generator, const std::vector<std::string>& paths,
                        DataFormat format, const std::string& cache_folder,
                        std::int64_t batch_tokens,
                        const std::function<void(std::int64_t, std::int64_t)>& progress) {
  const c10::InferenceMode inference;
  const auto cache = std::make_shared<const text::TokenCache>(text::TokenCache::open_or_build(
      io::posix(), cache_folder, paths, format, generator.tokenizer()));
  text::BatchOptions options;
  options.batch_tokens = batch_tokens;
  options.context = generator.model()->config().context;
  options.shuffle = false;
  options.pack = false;
  // By itself, as the model will meet it, unless that would cut its end off.
  for (std::int64_t i = 0; i < cache->documents(); ++i) {
    options.pack =
        options.pack || static_cast<std::int64_t>(cache->document(i).size()) > options.context;
  }
  text::BatchStream stream(cache, options);
  const std::int64_t batches = stream.batches_in_epoch(0);
  TextScore score;
  train::Mean loss;
  for (std::int64_t i = 0; i < batches; ++i) {
    text::Batch batch = stream.next();
    if (batch.target_tokens == 0) continue;
    const auto shape = {batch.rows, batch.length};
    const at::Tensor input = torch::from_blob(batch.input.data(), shape, torch::kLong);
    const at::Tensor target = torch::from_blob(batch.target.data(), shape, torch::kLong);
    at::Tensor begin;
    if (!batch.document_begin.empty()) {
      begin = torch::from_blob(batch.document_begin.data(), shape, torch::kLong);
    }
    const at::Tensor hidden = generator.model()->hidden_states(input, begin);
    const at::Tensor of_batch = answer_loss(generator.model(), hidden, target);
    nn::check_logits(of_batch);  // which is finite where they are
    loss.add(of_batch.item<double>(), static_cast<double>(batch.target_tokens));
    score.tokens += batch.target_tokens;
    if (progress) progress(i + 1, batches);
  }
  score.loss = loss.value(text::listed(paths), "token to predict");
  return score;
}

std::vector<Fact> read_facts(const std::vector<std::string>& paths) {
  std::vector<Fact> facts;
  for (const std::string& path : paths) {
    const std::size_t before = facts.size();
    text::read_documents(
        io::posix(), {path}, DataFormat::kJsonl, [&](const text::Document& document) {
          if (document.prompt.empty()) {
            throw Error(path + ": fact " + std::to_string(facts.size() - before + 1) +
                        ": expected a \"prompt\" and an \"answer\", got text without a prompt");
          }
          facts.push_back({document.prompt, document.answer, document.place});
        });
  }
  return facts;
}

}  // namespace memlayers
