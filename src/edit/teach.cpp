// SPDX-License-Identifier: Apache-2.0
#include "edit/teach.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "edit/phrasings.h"
#include "memlayers/error.h"
#include "text/shuffle.h"

namespace memlayers::edit {
namespace {

// Endless batches of phrasings; every one comes once before any comes again.
class Batches {
 public:
  Batches(std::vector<train::FactRow> rows, std::int64_t size, std::uint64_t seed)
      : rows_(std::move(rows)), order_(rows_.size()), at_(rows_.size()), random_(seed) {
    std::iota(order_.begin(), order_.end(), 0);
    size_ = std::min(rows_.size(), static_cast<std::size_t>(size));
  }
  bool empty() const { return size_ == 0; }

  // Input and targets [rows, length], padded on the right.
  std::pair<at::Tensor, at::Tensor> next() {
    std::vector<const train::FactRow*> rows;
    std::size_t length = 0;
    while (rows.size() < size_) {
      if (at_ == order_.size()) {
        text::shuffle(order_, random_);
        at_ = 0;
      }
      rows.push_back(&rows_[order_[at_++]]);
      length = std::max(length, rows.back()->tokens.size() - 1);
    }
    const std::vector<std::int64_t> shape{static_cast<std::int64_t>(rows.size()),
                                          static_cast<std::int64_t>(length)};
    at::Tensor input = torch::zeros(shape, torch::kLong);
    at::Tensor target = torch::full(shape, kIgnoredTarget, torch::kLong);
    auto* in = input.mutable_data_ptr<std::int64_t>();
    auto* out = target.mutable_data_ptr<std::int64_t>();
    for (const train::FactRow* row : rows) {
      std::copy(row->tokens.begin(), row->tokens.end() - 1, in);
      std::copy(row->tokens.begin() + row->answer_from, row->tokens.end(),
                out + row->answer_from - 1);
      in += length;
      out += length;
    }
    return {input, target};
  }

 private:
  std::vector<train::FactRow> rows_;
  std::vector<std::size_t> order_;
  std::size_t at_, size_ = 0;
  text::SplitMix64 random_;
};

std::int64_t count_recalled(Generator& generator, const std::vector<Fact>& phrasings) {
  const FactScores scores = evaluate_facts(generator, phrasings);
  return std::count_if(scores.facts.begin(), scores.facts.end(),
                       [](const FactScore& fact) { return fact.is_recalled; });
}

double backward(Generator& generator, Batches& batches) {
  const at::AutoGradMode with_gradient(true);
  const auto [input, target] = batches.next();
  const at::Tensor loss =
      answer_loss(generator.model(), generator.model()->hidden_states(input), target);
  loss.backward();
  return loss.item<double>();
}

// Adds the gradient of weight * KL(before || now), a mean over the predictions of one batch.
void rehearse(Llama& model, Student& student, Batches& batches, double weight) {
  const auto [input, target] = batches.next();
  const at::Tensor places = (target.flatten() != kIgnoredTarget).nonzero().squeeze(1);
  const auto log_probabilities = [&, &input = input] {
    return model->logits(model->hidden_states(input).flatten(0, 1).index_select(0, places))
        .log_softmax(-1);
  };
  student.show(true);
  at::Tensor before;
  {
    const torch::NoGradGuard no_gradient;
    before = log_probabilities();
  }
  student.show(false);
  const at::AutoGradMode with_gradient(true);
  const at::Tensor divergence = (before.exp() * (before - log_probabilities())).sum(-1).mean();
  (weight * divergence).backward();
}

}  // namespace

LearnProgress teach(Generator& generator, Student& student, const std::vector<NewFact>& facts,
                    const LearnOptions& options,
                    const std::function<void(const LearnProgress&)>& progress) {
  Llama& model = generator.model();
  const OnlyTrained only(model, student.trained());
  const std::vector<Fact> phrasings = learned_phrasings(facts);
  std::vector<train::FactRow> tokens;
  for (const Fact& fact : phrasings) {
    tokens.push_back(train::make_fact_row(generator.tokenizer(), fact));
  }
  Batches batches(std::move(tokens), options.batch, options.seed);
  Batches rehearsed(options.rehearse.empty() || options.rehearsal == 0
                        ? std::vector<train::FactRow>()
                        : read_rows(generator, options.rehearse, facts),
                    options.batch * options.rehearsal, options.seed + 1);

  LearnProgress now{.phrasings = static_cast<std::int64_t>(phrasings.size())};
  now.recalled = count_recalled(generator, phrasings);
  if (progress) progress(now);
  while (now.recalled < now.phrasings && now.step < options.steps) {
    now.loss = backward(generator, batches);
    if (!std::isfinite(now.loss)) {
      throw Error("learn: step " + std::to_string(now.step + 1) + ": expected a finite loss, got " +
                  std::to_string(now.loss) + "; a smaller learning rate may help");
    }
    if (!rehearsed.empty()) rehearse(model, student, rehearsed, options.rehearsal_weight);
    student.step();
    if (++now.step % options.check_every == 0 || now.step == options.steps) {
      now.recalled = count_recalled(generator, phrasings);
    }
    if (progress) progress(now);
  }
  return now;
}

}  // namespace memlayers::edit
