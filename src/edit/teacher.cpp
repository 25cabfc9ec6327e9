// SPDX-License-Identifier: Apache-2.0
#include "edit/teacher.h"

#include <torch/nn/functional/loss.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <utility>

#include "edit/phrasings.h"
#include "edit/prose.h"

namespace memlayers::edit {
namespace {

constexpr std::int64_t kNumbers = 1 << 25;  // of logits at once

double penalty_of(const LearnOptions& options, const ModelConfig& config) {
  constexpr double kOfScaledRows = 20;
  return options.penalty.value_or(is_scaled(config) ? kOfScaledRows : 0);
}

// A model that others have trained keeps most by what it is made of; of one that was trained here
// all that it knows lies in the rows.
double rehearsal_of(const LearnOptions& options, const ModelConfig& config) {
  constexpr double kElsewhere = 3, kOfScaledRows = 0.5;
  return options.rehearsal.value_or(is_scaled(config) ? kOfScaledRows : kElsewhere);
}

}  // namespace

Teacher::Teacher(Generator& generator, Student& student, const std::vector<NewFact>& facts,
                 const LearnOptions& options)
    : generator_(generator),
      student_(student),
      options_(options),
      lower_([model = generator.model()](const train::Batch& batch) mutable {
        return model->states_before_memory(batch.input, batch.packed);
      }),
      before_([this](const train::Batch& batch) {
        student_.show(true);
        at::Tensor hidden = generator_.model()->hidden_states(batch.input, batch.packed);
        student_.show(false);
        return hidden;
      }),
      rehearsed_(options.seed + 1),
      penalty_weight_(penalty_of(options, generator.model()->config())),
      rehearsal_(rehearsal_of(options, generator.model()->config())),
      random_(options.seed + 2) {
  std::vector<train::FactRow> text;
  if (rehearsal_ > 0) {
    for (const std::string& file : options.rehearse) {
      std::vector<train::FactRow> rows = read_rows(generator, {file}, facts, options.piece);
      std::ranges::copy_if(rows, std::back_inserter(text),
                           [](const train::FactRow& row) { return !row.is_fact; });
      rehearsed_.add(std::move(rows));
    }
    if (!options.questions.empty()) {
      rehearsed_.add(own_answers(generator, options.questions, facts, options.answer_tokens));
    }
  }
  if (penalty_weight_ == 0) return;
  if (text.empty()) text = prose_rows(generator);
  penalty_.emplace(generator, text, options.seed + 3);
}

train::Batch Teacher::batch(std::vector<const train::FactRow*> rows) const {
  return train::batch_of(std::move(rows), train::can_share_prefix(generator_.model()->config()));
}

at::Tensor Teacher::hidden(const train::Batch& batch) {
  Llama& model = generator_.model();
  const at::Tensor states =
      student_.keeps_lower_layers()
          ? model->hidden_states_from(lower_.of(batch), batch.input, batch.packed)
          : model->hidden_states(batch.input, batch.packed);
  return states.squeeze(0);
}

at::Tensor Teacher::recalled_rows(const at::Tensor& logits, const train::Targets& targets,
                                  std::int64_t rows) {
  const at::Tensor best =
      logits.detach().narrow(1, 0, generator_.tokenizer().vocab_size()).argmax(-1);
  const at::Tensor wrong = targets.row.masked_select(best != targets.wanted);
  return torch::ones({rows}, torch::kBool).index_fill_(0, wrong, false);
}

Teacher::Taught Teacher::teach(std::vector<const train::FactRow*> rows) {
  const at::AutoGradMode with_gradient(true);
  const train::Batch batch = this->batch(std::move(rows));
  const train::Targets targets = train::targets_of(batch);
  const at::Tensor logits =
      generator_.model()->logits(hidden(batch).index_select(0, targets.places));
  const at::Tensor loss = torch::nn::functional::cross_entropy(logits, targets.wanted);
  loss.backward();
  return {loss.item<double>(),
          recalled_rows(logits, targets, batch.size()).sum().item<std::int64_t>()};
}

// KL(before || now), summed over these places of the batch.
at::Tensor Teacher::divergence(const train::Batch& batch, const at::Tensor& places) {
  Llama& model = generator_.model();
  at::Tensor before;
  {
    const torch::NoGradGuard no_gradient;
    const at::Tensor states = before_.of(batch).squeeze(0).index_select(0, places);
    if (student_.keeps_lower_layers()) {
      before = model->logits(states).log_softmax(-1);
    } else {
      student_.show(true);
      before = model->logits(states).log_softmax(-1);
      student_.show(false);
    }
  }
  const at::Tensor now = model->logits(hidden(batch).index_select(0, places)).log_softmax(-1);
  return (before.exp() * (before - now)).sum();
}

void Teacher::rehearse() {
  const auto count =
      static_cast<std::int64_t>(std::llround(static_cast<double>(options_.batch) * rehearsal_));
  if (count == 0 && lost_.empty()) return;
  std::vector<const train::FactRow*> facts, others;
  for (std::int64_t i = 0; i < count; ++i) {
    const train::FactRow& row = rehearsed_.next();
    (row.is_fact ? facts : others).push_back(&row);
  }
  const auto half = static_cast<std::size_t>((options_.batch + 1) / 2);
  for (std::size_t i = 0; i < std::min(half, lost_.size()); ++i) {
    facts.push_back(lost_[next_lost_++ % lost_.size()]);
  }
  const auto predictions_of = [](const std::vector<const train::FactRow*>& rows) {
    return std::accumulate(rows.begin(), rows.end(), 0.0, [](double sum, const auto* row) {
      return sum + static_cast<double>(row->tokens.size()) - static_cast<double>(row->answer_from);
    });
  };
  const double all = predictions_of(facts) + predictions_of(others);
  const at::AutoGradMode with_gradient(true);
  if (!others.empty()) {
    const double predictions = predictions_of(others);
    const train::Batch batch = this->batch(std::move(others));
    at::Tensor places = train::targets_of(batch).places;
    // The logits of a large vocabulary are many times what they are made of: of a long batch a part
    // of the predictions stands for all.
    const std::int64_t most =
        std::max<std::int64_t>(1, kNumbers / generator_.model()->config().vocab_size);
    if (places.size(0) > most) {
      std::vector<std::int64_t> order(static_cast<std::size_t>(places.size(0)));
      std::iota(order.begin(), order.end(), 0);
      text::shuffle(order, random_);
      order.resize(static_cast<std::size_t>(most));
      places = places.index_select(0, torch::tensor(order, torch::kLong));
    }
    const double share = predictions / static_cast<double>(places.size(0));
    (options_.rehearsal_weight * share / all * divergence(batch, places)).backward();
  }
  if (!facts.empty()) {
    const double share = predictions_of(facts) / all;
    const train::Batch batch = this->batch(std::move(facts));
    const train::Targets targets = train::targets_of(batch);
    const at::Tensor mean = torch::nn::functional::cross_entropy(
        generator_.model()->logits(hidden(batch).index_select(0, targets.places)), targets.wanted);
    (options_.rehearsal_weight * share * mean).backward();
  }
}

Teacher::Earlier Teacher::look_for_lost(std::int64_t most) {
  std::vector<const train::FactRow*> facts = rehearsed_.facts();
  if (std::cmp_less(most, facts.size())) {
    text::shuffle(facts, random_);
    facts.resize(static_cast<std::size_t>(most));
  }
  const auto of = static_cast<std::int64_t>(facts.size());
  lost_ = not_recalled(std::move(facts));
  text::shuffle(lost_, random_);
  next_lost_ = 0;
  return {of - static_cast<std::int64_t>(lost_.size()), of};
}

void Teacher::penalise() {
  if (!penalty_) return;
  const at::AutoGradMode with_gradient(true);
  (penalty_weight_ * penalty_->draw()).backward();
}

std::vector<const train::FactRow*> Teacher::not_recalled(std::vector<const train::FactRow*> rows) {
  constexpr std::int64_t kTestTokens = 8192;
  const torch::NoGradGuard no_gradient;
  std::ranges::stable_sort(rows, {}, [](const train::FactRow* row) { return row->tokens.size(); });
  const std::int64_t most =
      std::max<std::int64_t>(1, kNumbers / generator_.model()->config().vocab_size);
  std::vector<const train::FactRow*> lost;
  for (std::size_t begin = 0, end = 0; begin < rows.size(); begin = end) {
    std::int64_t answers = 0;
    for (; end < rows.size(); ++end) {
      const auto length = static_cast<std::int64_t>(rows[end]->tokens.size());
      const auto count = static_cast<std::int64_t>(end - begin) + 1;
      answers += length - rows[end]->answer_from;
      if (count > 1 && (count * length > kTestTokens || answers > most)) break;
    }
    const train::Batch batch = this->batch({rows.begin() + static_cast<std::ptrdiff_t>(begin),
                                            rows.begin() + static_cast<std::ptrdiff_t>(end)});
    const train::Targets targets = train::targets_of(batch);
    const at::Tensor logits =
        generator_.model()->logits(hidden(batch).index_select(0, targets.places));
    const at::Tensor is_recalled = recalled_rows(logits, targets, batch.size());
    for (std::int64_t i = 0; i < batch.size(); ++i) {
      if (!is_recalled.const_data_ptr<bool>()[i]) lost.push_back(batch.rows[i]);
    }
  }
  return lost;
}

std::int64_t Teacher::count_recalled(std::span<const train::FactRow> rows) {
  std::vector<const train::FactRow*> all;
  for (const train::FactRow& row : rows) all.push_back(&row);
  return static_cast<std::int64_t>(rows.size() - not_recalled(std::move(all)).size());
}

}  // namespace memlayers::edit
