// SPDX-License-Identifier: Apache-2.0
#include "train/answer_scores.h"

#include <torch/types.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>

#include "nn/finite.h"
#include "train/fact_batch.h"

namespace memlayers::train {
namespace {

struct TokenScores {
  at::Tensor nll, is_best;  // float32 and bool, [n]
};

// Of the tokens `wanted` [n] behind the rows `places` [n] of `hidden`; a part at a time, since the
// logits of a large vocabulary are many times what they are made of.
TokenScores score_tokens(Generator& generator, const at::Tensor& hidden, const at::Tensor& places,
                         const at::Tensor& wanted) {
  constexpr std::int64_t kNumbers = 1 << 25;  // of logits at once
  Llama& model = generator.model();
  const std::int64_t at_once = std::max<std::int64_t>(1, kNumbers / model->config().vocab_size);
  std::vector<at::Tensor> nll, is_best;
  for (std::int64_t first = 0; first < places.size(0); first += at_once) {
    const std::int64_t count = std::min(at_once, places.size(0) - first);
    const at::Tensor logits = model->logits(hidden.index_select(0, places.narrow(0, first, count)));
    nn::check_logits(logits);
    const at::Tensor next = wanted.narrow(0, first, count);
    // A model may have more logits than its tokenizer has tokens; generation never takes those.
    const at::Tensor best = logits.narrow(1, 0, generator.tokenizer().vocab_size()).argmax(-1);
    is_best.push_back(best == next);
    nll.push_back(-logits.log_softmax(-1).gather(1, next.unsqueeze(1)).squeeze(1));
  }
  return {torch::cat(nll), torch::cat(is_best)};
}

void score(Generator& generator, const std::vector<FactRow>& rows,
           std::span<const std::size_t> batch, std::vector<AnswerScore>& scores) {
  std::vector<const FactRow*> packed_rows;
  for (const std::size_t i : batch) packed_rows.push_back(&rows[i]);
  const Batch packed =
      batch_of(std::move(packed_rows), can_share_prefix(generator.model()->config()));
  const Targets targets = targets_of(packed);
  const at::Tensor hidden =
      generator.model()->hidden_states(packed.input, packed.packed).squeeze(0);
  const TokenScores tokens = score_tokens(generator, hidden, targets.places, targets.wanted);
  const float* nll_data = tokens.nll.const_data_ptr<float>();
  const bool* best_data = tokens.is_best.const_data_ptr<bool>();
  std::size_t at = 0;
  for (const std::size_t i : batch) {
    AnswerScore& one = scores[i];
    for (auto t = rows[i].answer_from; t < static_cast<std::int64_t>(rows[i].tokens.size());
         ++t, ++at) {
      one.nll += nll_data[at];
      one.token_nll.push_back(nll_data[at]);
      one.is_best = one.is_best && best_data[at];
      ++one.tokens;
    }
  }
}

}  // namespace

std::vector<AnswerScore> score_answers(Generator& generator, const std::vector<FactRow>& rows,
                                       std::int64_t batch_tokens,
                                       const std::function<void(std::int64_t)>& progress) {
  const c10::InferenceMode inference;
  std::vector<AnswerScore> scores(rows.size());
  std::vector<std::size_t> order;  // without those that were cut before their answers
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].answer_from < static_cast<std::int64_t>(rows[i].tokens.size())) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return rows[a].tokens.size() < rows[b].tokens.size();
  });
  for (std::size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    for (end = begin + 1; end < order.size() &&
                          static_cast<std::int64_t>((end - begin + 1) *
                                                    rows[order[end]].tokens.size()) <= batch_tokens;
         ++end) {
    }
    score(generator, rows, std::span(order).subspan(begin, end - begin), scores);
    if (progress) progress(static_cast<std::int64_t>(end));
  }
  if (progress && order.size() < rows.size()) progress(static_cast<std::int64_t>(rows.size()));
  return scores;
}

}  // namespace memlayers::train
