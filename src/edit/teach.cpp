// SPDX-License-Identifier: Apache-2.0
#include "edit/teach.h"

#include <torch/types.h>
#include <torch/utils.h>

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

// Sequences of several files, drawn from each in proportion to size^0.75: so that the few facts of
// an earlier patch are not lost among all the training data.
class Mixture {
 public:
  Mixture(Generator& generator, const LearnOptions& options, const std::vector<NewFact>& without)
      : random_(options.seed + 1) {
    for (const std::string& file : options.rehearse) {
      streams_.emplace_back(read_rows(generator, {file}, without), random_.next());
      total_ += weight(streams_.back());
    }
  }
  bool empty() const { return total_ == 0; }
  const train::FactRow& next() {
    double left = total_ * static_cast<double>(random_.next() >> 11) * 0x1p-53;
    Stream* chosen = nullptr;
    for (Stream& stream : streams_) {
      if (stream.size() == 0) continue;
      chosen = &stream;
      left -= weight(stream);
      if (left < 0) break;
    }
    return chosen->next();
  }

 private:
  static double weight(const Stream& stream) {
    return std::pow(static_cast<double>(stream.size()), 0.75);
  }

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

// KL(before || now), summed over the predictions of these sequences; leaves the model's rows as
// they are now.
at::Tensor divergence(Llama& model, Student& student, const at::Tensor& input,
                      const at::Tensor& target) {
  const at::Tensor places = (target.flatten() != kIgnoredTarget).nonzero().squeeze(1);
  const auto log_probabilities = [&] {
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
  return (before.exp() * (before - log_probabilities())).sum();
}

// Adds the gradient of the weighted mean, over the predictions of one batch, of what they have
// lost: the cross entropy of a fact's answer, which also brings back what an earlier patch has
// cost; the divergence of plain text, which has no answer.
void rehearse(Llama& model, Student& student, Mixture& mixture, const LearnOptions& options) {
  const auto [input, target] = next_batch(mixture, options.batch * options.rehearsal);
  const at::AutoGradMode with_gradient(true);
  const double predictions =
      static_cast<double>((target != kIgnoredTarget).sum().item<std::int64_t>());
  // Text is predicted from its first token on, an answer from the end of its prompt.
  const at::Tensor is_text = target.select(1, 0) != kIgnoredTarget;
  const at::Tensor texts = is_text.nonzero().squeeze(1), facts = (~is_text).nonzero().squeeze(1);
  if (texts.numel() > 0) {
    const at::Tensor lost =
        divergence(model, student, input.index_select(0, texts), target.index_select(0, texts));
    (options.rehearsal_weight / predictions * lost).backward();
  }
  if (facts.numel() > 0) {
    const at::Tensor wanted = target.index_select(0, facts);
    const at::Tensor mean =
        answer_loss(model, model->hidden_states(input.index_select(0, facts)), wanted);
    const double share =
        static_cast<double>((wanted != kIgnoredTarget).sum().item<std::int64_t>()) / predictions;
    (options.rehearsal_weight * share * mean).backward();
  }
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
