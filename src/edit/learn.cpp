// SPDX-License-Identifier: Apache-2.0
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "edit/phrasings.h"
#include "memlayers/error.h"
#include "text/shuffle.h"
#include "train/fact_row.h"

namespace memlayers {
namespace {

// The chosen rows of a pool in a table of their own, in float32, with the state of an optimizer:
// what is not chosen costs nothing and cannot change.
class ChosenRows {
 public:
  ChosenRows(MemoryPool pool, const std::vector<std::int64_t>& slots, const LearnOptions& options)
      : pool_(std::move(pool)),
        is_adam_(options.optimizer == PoolOptimizer::kAdamW),
        slots_(torch::tensor(slots, torch::kLong)),
        before_(pool_->values.detach().index_select(0, slots_)),
        rows_(before_.to(torch::kFloat).clone()) {
    place_ = torch::full({pool_->slots()}, slots_.numel(), torch::kLong);
    place_.index_copy_(0, slots_, torch::arange(slots_.numel()));
    parameters_.lr = options.lr;
    if (!is_adam_) return;
    state_.exp_avg = torch::zeros_like(rows_);
    state_.exp_avg_sq = torch::zeros_like(rows_);
    state_.steps = torch::zeros({rows_.size(0)}, torch::kInt);
  }

  // Applies and clears the pool's gradient.
  void step() {
    const torch::NoGradGuard no_gradient;
    const GroupedGradient gradient = of_chosen(pool_->gradient());
    pool_->clear_gradient();
    is_adam_ ? update_adamw(rows_, state_, gradient, parameters_)
             : update_sgd(rows_, state_, gradient, parameters_);
    pool_->values.index_copy_(0, slots_, rows_.to(pool_->values.scalar_type()));
  }

  // The rows that are no longer what they were.
  Patch patch() const {
    Patch patch{.id = new_patch_id(),
                .pool = pool_->id,
                .width = pool_->width(),
                .row_dtype = pool_->options().row_dtype};
    const at::Tensor now = pool_->values.detach().index_select(0, slots_);
    const auto row_bytes = now.nbytes() / static_cast<std::size_t>(now.size(0));
    const auto* old_row = static_cast<const std::byte*>(before_.const_data_ptr());
    const auto* row = static_cast<const std::byte*>(now.const_data_ptr());
    const std::int64_t* slots = slots_.const_data_ptr<std::int64_t>();
    for (std::int64_t i = 0; i < slots_.numel(); ++i, row += row_bytes, old_row += row_bytes) {
      if (std::memcmp(row, old_row, row_bytes) == 0) continue;
      patch.slots.push_back(slots[i]);
      patch.rows.insert(patch.rows.end(), row, row + row_bytes);
    }
    return patch;
  }

 private:
  GroupedGradient of_chosen(std::vector<FactoredGradient> parts) const {
    for (FactoredGradient& part : parts) {
      part.slots = place_.index_select(0, part.slots.flatten()).view_as(part.slots);
    }
    const std::int64_t chosen = slots_.numel();
    GroupedGradient all = group(std::move(parts), chosen + 1, pool_->width());
    // The last place stands for all slots that are not chosen.
    const std::int64_t last = all.slots.numel() - 1;
    if (last < 0 || all.slots[last].item<std::int64_t>() != chosen) return all;
    all.entries = all.entries.slice(0, 0, all.begin[last].item<std::int64_t>());
    all.slots = all.slots.slice(0, 0, last);
    all.begin = all.begin.slice(0, 0, last + 1);
    return all;
  }

  MemoryPool pool_;
  bool is_adam_;
  at::Tensor slots_, before_, rows_, place_;
  RowState state_;
  RowAdamWParameters parameters_;
};

// Endless batches of phrasings; every one comes once before any comes again.
class Batches {
 public:
  Batches(std::vector<train::FactRow> rows, const LearnOptions& options)
      : rows_(std::move(rows)), order_(rows_.size()), at_(rows_.size()), random_(options.seed) {
    std::iota(order_.begin(), order_.end(), 0);
    size_ = std::min(rows_.size(), static_cast<std::size_t>(options.batch));
  }

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

void expect(bool holds, const std::string& field, const std::string& wanted,
            const std::string& found) {
  if (!holds) throw Error("learn: " + field + ": expected " + wanted + ", got " + found);
}

}  // namespace

void LearnOptions::validate() const {
  const auto at_least_1 = [](const std::string& field, std::int64_t value) {
    expect(value >= 1, field, "at least 1", std::to_string(value));
  };
  at_least_1("slots", slots.value_or(1));
  at_least_1("steps", steps);
  at_least_1("batch", batch);
  at_least_1("check_every", check_every);
  expect(lr > 0 && std::isfinite(lr), "lr", "a number above 0", std::to_string(lr));
  expect(optimizer == PoolOptimizer::kAdamW || optimizer == PoolOptimizer::kSgd, "optimizer",
         "adam or sgd", "another one");
}

LearnResult learn(Generator& generator, const std::vector<NewFact>& facts,
                  const LearnOptions& options, const SlotHistory& history,
                  const std::function<void(const LearnProgress&)>& progress) {
  std::vector<std::int64_t> slots;
  for (const ChosenSlot& chosen : choose_slots(generator, facts, options, history)) {
    slots.push_back(chosen.slot);
  }
  std::sort(slots.begin(), slots.end());
  const std::vector<Fact> phrasings = edit::learned_phrasings(facts);
  std::vector<train::FactRow> tokens;
  for (const Fact& fact : phrasings) {
    tokens.push_back(train::make_fact_row(generator.tokenizer(), fact));
  }
  Llama& model = generator.model();
  const edit::OnlyRowsTrain only_rows(model);
  model->pool()->catch_up();
  model->pool()->clear_gradient();
  ChosenRows rows(model->pool(), slots, options);
  Batches batches(std::move(tokens), options);

  LearnProgress now{.phrasings = static_cast<std::int64_t>(phrasings.size())};
  now.recalled = count_recalled(generator, phrasings);
  if (progress) progress(now);
  while (now.recalled < now.phrasings && now.step < options.steps) {
    now.loss = backward(generator, batches);
    if (!std::isfinite(now.loss)) {
      throw Error("learn: step " + std::to_string(now.step + 1) + ": expected a finite loss, got " +
                  std::to_string(now.loss) + "; a smaller learning rate may help");
    }
    rows.step();
    if (++now.step % options.check_every == 0 || now.step == options.steps) {
      now.recalled = count_recalled(generator, phrasings);
    }
    if (progress) progress(now);
  }
  LearnResult result{.patch = rows.patch(),
                     .recalled = now.recalled,
                     .phrasings = now.phrasings,
                     .steps = now.step,
                     .slots = static_cast<std::int64_t>(slots.size())};
  std::string optimizer = options.optimizer == PoolOptimizer::kAdamW ? "adam" : "sgd";
  result.patch.notes = {
      {"what", std::to_string(facts.size()) + " facts"}, {"facts", std::to_string(facts.size())},
      {"selection", selection_name(options.selection)},  {"optimizer", optimizer},
      {"steps", std::to_string(result.steps)},           {"seed", std::to_string(options.seed)}};
  return result;
}

}  // namespace memlayers
