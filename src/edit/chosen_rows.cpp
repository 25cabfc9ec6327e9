// SPDX-License-Identifier: Apache-2.0
#include "edit/chosen_rows.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cstring>

#include "memlayers/error.h"

namespace memlayers::edit {

ChosenRows::ChosenRows(MemoryPool pool, const std::vector<std::int64_t>& slots,
                       PoolOptimizer optimizer, double lr)
    : pool_(std::move(pool)),
      is_adam_(optimizer == PoolOptimizer::kAdamW),
      lr_(lr),
      slots_(torch::tensor(slots, torch::kLong)),
      before_(pool_->values.detach().index_select(0, slots_)),
      rows_(before_.to(torch::kFloat).clone()) {
  place_ = torch::full({pool_->slots()}, slots_.numel(), torch::kLong);
  place_.index_copy_(0, slots_, torch::arange(slots_.numel()));
  if (!is_adam_) return;
  state_.exp_avg = torch::zeros_like(rows_);
  state_.exp_avg_sq = torch::zeros_like(rows_);
  state_.steps = torch::zeros({rows_.size(0)}, torch::kInt);
}

void ChosenRows::show(bool before) {
  const torch::NoGradGuard no_gradient;
  pool_->values.index_copy_(0, slots_, before ? before_ : rows_.to(pool_->values.scalar_type()));
}

void ChosenRows::step(double rate) {
  const torch::NoGradGuard no_gradient;
  const GroupedGradient gradient = of_chosen(pool_->gradient());
  pool_->clear_gradient();
  parameters_.lr = rate * lr_;
  is_adam_ ? update_adamw(rows_, state_, gradient, parameters_)
           : update_sgd(rows_, state_, gradient, parameters_);
  const at::Tensor changed = gradient.slots;  // places in rows_
  pool_->values.index_copy_(0, slots_.index_select(0, changed),
                            rows_.index_select(0, changed).to(pool_->values.scalar_type()));
}

Patch ChosenRows::patch() const {
  Patch patch{.id = new_patch_id(),
              .pool = pool_->id,
              .width = pool_->width(),
              .row_dtype = pool_->options().row_dtype};
  const at::Tensor now = pool_->values.detach().index_select(0, slots_);
  if (!at::isfinite(now).all().item<bool>()) {
    throw Error(
        "learn: expected finite rows, got NaN or infinity; a smaller learning rate may help");
  }
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

std::int64_t ChosenRows::stored_bytes() const {
  const Patch made = patch();
  return static_cast<std::int64_t>(made.rows.size() + made.slots.size() * sizeof(std::int64_t));
}

std::int64_t ChosenRows::kept_bytes() const {
  return static_cast<std::int64_t>(patch().rows.size());
}

GroupedGradient ChosenRows::of_chosen(std::vector<FactoredGradient> parts) const {
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

std::unique_ptr<ChosenRows> choose_rows(Generator& generator, const std::vector<NewFact>& facts,
                                        const LearnOptions& options, const SlotHistory& history) {
  std::vector<std::int64_t> slots;
  for (const ChosenSlot& chosen : choose_slots(generator, facts, options, history)) {
    slots.push_back(chosen.slot);
  }
  std::sort(slots.begin(), slots.end());
  MemoryPool pool = generator.model()->pool();
  pool->catch_up();
  pool->clear_gradient();
  return std::make_unique<ChosenRows>(pool, slots, options.optimizer,
                                      learning_rate(options, generator.model()->config()));
}

}  // namespace memlayers::edit
