// SPDX-License-Identifier: Apache-2.0
#include "memlayers/evaluate.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "memlayers/error.h"
#include "text/dataset.h"
#include "train/fact_row.h"

namespace memlayers {
namespace {

constexpr double kZ = 1.959963984540054;  // 97.5 % quantile of the normal distribution

struct Row : train::FactRow {
  bool is_whole = true;
  std::size_t fact = 0;
};

Row make_row(const Tokenizer& tokenizer, const Fact& fact, std::int64_t context,
             std::size_t index) {
  Row row{train::make_fact_row(tokenizer, fact)};
  row.fact = index;
  if (static_cast<std::int64_t>(row.tokens.size()) > context) {
    row.tokens.resize(context);
    row.is_whole = false;
  }
  return row;
}

// Fills the scores of rows [begin, end).
void score(Generator& generator, const std::vector<Row>& rows, std::size_t begin, std::size_t end,
           std::vector<FactScore>& scores) {
  std::int64_t length = 0;
  for (std::size_t i = begin; i < end; ++i) {
    length = std::max(length, static_cast<std::int64_t>(rows[i].tokens.size()));
  }
  at::Tensor input = torch::zeros({static_cast<std::int64_t>(end - begin), length}, torch::kLong);
  std::vector<std::int64_t> places, targets;
  for (std::size_t i = begin; i < end; ++i) {
    const auto& tokens = rows[i].tokens;
    const std::int64_t first = static_cast<std::int64_t>(i - begin) * length;
    std::copy(tokens.begin(), tokens.end(), input.mutable_data_ptr<std::int64_t>() + first);
    for (auto t = rows[i].answer_from; t < static_cast<std::int64_t>(tokens.size()); ++t) {
      places.push_back(first + t - 1);
      targets.push_back(tokens[t]);
    }
  }
  const at::Tensor hidden = generator.model()->hidden_states(input).flatten(0, 1);
  const at::Tensor logits =
      generator.model()->logits(hidden.index_select(0, torch::tensor(places, torch::kLong)));
  const at::Tensor wanted = torch::tensor(targets, torch::kLong);
  const at::Tensor nll =
      -logits.log_softmax(-1).gather(1, wanted.unsqueeze(1)).squeeze(1).to(torch::kDouble);
  // A model may have more logits than its tokenizer has tokens; generation never takes those.
  const at::Tensor best = logits.narrow(1, 0, generator.tokenizer().vocab_size()).argmax(-1);
  const at::Tensor is_best = (best == wanted).contiguous();
  const double* nll_data = nll.const_data_ptr<double>();
  const bool* best_data = is_best.const_data_ptr<bool>();
  std::size_t at = 0;
  for (std::size_t i = begin; i < end; ++i) {
    FactScore& fact = scores[rows[i].fact];
    fact.is_recalled = rows[i].is_whole;
    for (auto t = rows[i].answer_from; t < static_cast<std::int64_t>(rows[i].tokens.size());
         ++t, ++at) {
      fact.nll += nll_data[at];
      fact.is_recalled = fact.is_recalled && best_data[at];
      ++fact.tokens;
    }
  }
}

Estimate wilson(double hits, double n) {
  const double p = hits / n, z2 = kZ * kZ;
  const double centre = (p + z2 / (2 * n)) / (1 + z2 / n);
  const double half = kZ / (1 + z2 / n) * std::sqrt(p * (1 - p) / n + z2 / (4 * n * n));
  return {p, std::max(0.0, centre - half), std::min(1.0, centre + half)};
}

// Ratio of the sums of y and x, with the interval of the delta method.
Estimate ratio(const std::vector<double>& y, const std::vector<double>& x) {
  const auto n = static_cast<double>(y.size());
  const double sum_x = std::accumulate(x.begin(), x.end(), 0.0);
  const double value = sum_x > 0 ? std::accumulate(y.begin(), y.end(), 0.0) / sum_x : 0;
  double squares = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const double residual = y[i] - value * x[i];
    squares += residual * residual;
  }
  const double error = n > 1 && sum_x > 0 ? std::sqrt(squares / (n - 1) / n) / (sum_x / n) : 0;
  return {value, value - kZ * error, value + kZ * error};
}

}  // namespace

FactScores evaluate_facts(Generator& generator, const std::vector<Fact>& facts,
                          std::int64_t batch_tokens,
                          const std::function<void(std::int64_t)>& progress) {
  if (facts.empty()) throw Error("facts: expected at least one, got none");
  const c10::InferenceMode inference;
  std::vector<Row> rows;
  rows.reserve(facts.size());
  for (std::size_t i = 0; i < facts.size(); ++i) {
    rows.push_back(
        make_row(generator.tokenizer(), facts[i], generator.model()->config().context, i));
  }
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Row& a, const Row& b) { return a.tokens.size() < b.tokens.size(); });
  FactScores result;
  result.facts.resize(facts.size());
  for (std::size_t begin = 0; begin < rows.size();) {
    std::size_t end = begin + 1;
    while (end < rows.size() &&
           static_cast<std::int64_t>((end - begin + 1) * rows[end].tokens.size()) <= batch_tokens) {
      ++end;
    }
    score(generator, rows, begin, end, result.facts);
    begin = end;
    if (progress) progress(static_cast<std::int64_t>(begin));
  }
  std::vector<double> nll, tokens;
  double recalled = 0;
  for (const FactScore& fact : result.facts) {
    nll.push_back(fact.nll);
    tokens.push_back(static_cast<double>(fact.tokens));
    recalled += fact.is_recalled ? 1 : 0;
  }
  result.recall = wilson(recalled, static_cast<double>(facts.size()));
  result.nll = ratio(nll, std::vector<double>(nll.size(), 1));
  result.nll_per_token = ratio(nll, tokens);
  return result;
}

TextScore evaluate_text(Generator& generator, const std::vector<std::string>& paths,
                        DataFormat format, const std::string& cache_folder,
                        std::int64_t batch_tokens,
                        const std::function<void(std::int64_t)>& progress) {
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
  double sum = 0;
  for (std::int64_t i = 0; i < batches; ++i) {
    text::Batch batch = stream.next();
    if (batch.target_tokens == 0) continue;
    const auto shape = {batch.rows, batch.length};
    const at::Tensor input = torch::from_blob(batch.input.data(), shape, torch::kLong);
    const at::Tensor target = torch::from_blob(batch.target.data(), shape, torch::kLong);
    const at::Tensor hidden = generator.model()->hidden_states(input);
    sum += answer_loss(generator.model(), hidden, target).item<double>() *
           static_cast<double>(batch.target_tokens);
    score.tokens += batch.target_tokens;
    if (progress) progress(score.tokens);
  }
  if (score.tokens == 0) throw Error("data: expected at least one token to predict, got none");
  score.loss = sum / static_cast<double>(score.tokens);
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
          facts.push_back({document.prompt, document.answer});
        });
  }
  return facts;
}

}  // namespace memlayers
