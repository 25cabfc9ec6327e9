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

// Endless phrasings; every one comes once before any comes again.
class Stream {
 public:
  Stream(std::vector<train::FactRow> rows, std::uint64_t seed)
      : rows_(std::move(rows)), order_(rows_.size()), at_(rows_.size()), random_(seed) {
    std::iota(order_.begin(), order_.end(), 0);
  }
  std::size_t size() const { return rows_.size(); }
  const train::FactRow& next() {
    if (at_ == order_.size()) {
      text::shuffle(order_, random_);
      at_ = 0;
    }
    return rows_[order_[at_++]];
  }

 private:
  std::vector<train::FactRow> rows_;
  std::vector<std::size_t> order_;
  std::size_t at_;
  text::SplitMix64 random_;
};

// Sequences of several files, drawn from each in proportion to the root of its size: so that a few
// facts of an earlier patch are not lost among all the training data.
class Mixture {
 public:
  Mixture(Generator& generator, const LearnOptions& options, const std::vector<NewFact>& without)
      : random_(options.seed + 1) {
    for (const std::string& file : options.rehearse) {
      streams_.emplace_back(read_rows(generator, {file}, without), random_.next());
      total_ += std::sqrt(static_cast<double>(streams_.back().size()));
    }
  }
  bool empty() const { return total_ == 0; }
  const train::FactRow& next() {
    double left = total_ * static_cast<double>(random_.next() >> 11) * 0x1p-53;
    Stream* chosen = nullptr;
    for (Stream& stream : streams_) {
      if (stream.size() == 0) continue;
      chosen = &stream;
      left -= std::sqrt(static_cast<double>(stream.size()));
      if (left < 0) break;
    }
    return chosen->next();
  }

 private:
  std::vector<Stream> streams_;
  double total_ = 0;
  text::SplitMix64 random_;
};

// Input and targets [rows, length] of `size` sequences, padded on the right.
template <class Source>
std::pair<at::Tensor, at::Tensor> next_batch(Source& source, std::int64_t size) {
  std::vector<const train::FactRow*> rows;
  std::int64_t length = 0;
  for (std::int64_t i = 0; i < size; ++i) {
    rows.push_back(&source.next());
    length = std::max(length, static_cast<std::int64_t>(rows.back()->tokens.size()) - 1);
  }
  at::Tensor input = torch::zeros({size, length}, torch::kLong);
  at::Tensor target = torch::full({size, length}, kIgnoredTarget, torch::kLong);
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

std::int64_t count_recalled(Generator& generator, const std::vector<Fact>& phrasings) {
  const FactScores scores = evaluate_facts(generator, phrasings);
  return std::count_if(scores.facts.begin(), scores.facts.end(),
                       [](const FactScore& fact) { return fact.is_recalled; });
}

double backward(Generator& generator, Stream& phrasings, std::int64_t batch) {
  const at::AutoGradMode with_gradient(true);
  const auto [input, target] =
      next_batch(phrasings, std::min(batch, static_cast<std::int64_t>(phrasings.size())));
  const at::Tensor loss =
      answer_loss(generator.model(), generator.model()->hidden_states(input), target);
  loss.backward();
  return loss.item<double>();
}

// Adds the gradient of weight * KL(before || now), a mean over the predictions of one batch.
void rehearse(Llama& model, Student& student, Mixture& mixture, const LearnOptions& options) {
  const auto [input, target] = next_batch(mixture, options.batch * options.rehearsal);
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
  (options.rehearsal_weight * divergence).backward();
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
  Stream stream(std::move(tokens), options.seed);
  LearnOptions rehearsed = options;
  if (options.rehearsal == 0) rehearsed.rehearse.clear();
  Mixture background(generator, rehearsed, facts);
  const auto train = [&](LearnProgress& now, double rate) {
    now.loss = backward(generator, stream, options.batch);
    if (!std::isfinite(now.loss)) {
      throw Error("learn: step " + std::to_string(now.step + 1) + ": expected a finite loss, got " +
                  std::to_string(now.loss) + "; a smaller learning rate may help");
    }
    if (!background.empty()) rehearse(model, student, background, options);
    student.step(rate);
    ++now.step;
  };

  LearnProgress now{.phrasings = static_cast<std::int64_t>(phrasings.size())};
  now.recalled = count_recalled(generator, phrasings);
  if (progress) progress(now);
  while (now.recalled < now.phrasings && now.step < options.steps) {
    train(now, 1);
    if (now.step % options.check_every == 0 || now.step == options.steps) {
      now.recalled = count_recalled(generator, phrasings);
    }
    if (progress) progress(now);
  }
  if (now.step == 0 || background.empty()) return now;
  for (std::int64_t left = options.settle; left > 0; --left) {
    train(now, static_cast<double>(left) / static_cast<double>(options.settle + 1));
    if (left == 1) now.recalled = count_recalled(generator, phrasings);
    if (progress) progress(now);
  }
  return now;
}

}  // namespace memlayers::edit
