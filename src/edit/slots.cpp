// SPDX-License-Identifier: Apache-2.0
#include "memlayers/slots.h"
#include "memlayers/ops.h"

#include <optional>
#include <utility>

#include "edit/slot_rows.h"
#include "nn/product_keys.h"
#include "ops/gather/single_rows.h"

namespace memlayers {

SlotEditor::SlotEditor(MemoryLayer layer, RowOptimizer* optimizer)
    : layer_(std::move(layer)), optimizer_(optimizer) {
  const MemoryPool pool = layer_->pool();
  TORCH_CHECK_VALUE(
      !pool->snapshot() && !pool->is_sharded(),
      "SlotEditor: expected a pool that holds all of its rows, got one that ",
      pool->is_sharded() ? "a memory group shares" : "reads them from a store, which edits go to");
}

SlotEditor::SlotEditor(MemoryLayer layer, Store& store) : layer_(std::move(layer)), store_(&store) {
  const MemoryPool pool = layer_->pool();
  const Snapshot rows = store.snapshot();
  TORCH_CHECK_VALUE(
      rows.pool_id() == pool->id && rows.width() == pool->width() &&
          rows.row_dtype() == pool->options().row_dtype && rows.rows() >= pool->slots(),
      "SlotEditor: expected the store of the layer's pool ", pool->id, ", got ", rows.rows(),
      " rows of ", rows.width(), " ", row_type_name(rows.row_dtype()), " of pool ", rows.pool_id());
}

at::Tensor SlotEditor::rows(const at::Tensor& slots) const {
  return store_ != nullptr ? ops::rows_of(store_->snapshot(), slots)
                           : edit::rows_of(layer_->pool(), slots);
}

void SlotEditor::check_slot(const char* op, std::int64_t slot) const {
  const MemoryConfig& config = layer_->config();
  const std::int64_t reached = config.open_keys.value_or(config.n_keys);
  TORCH_CHECK_INDEX(slot >= 0 && slot < reached * reached, op, ": expected a slot in [0, ",
                    reached * reached, "), those that the layer reads, got ", slot);
}

at::Tensor SlotEditor::row(std::int64_t slot) const {
  check_slot("row", slot);
  return rows(at::full({1}, slot, at::kLong)).squeeze(0);
}

bool SlotEditor::is_free(std::int64_t slot) const {
  return row(slot).count_nonzero().item<std::int64_t>() == 0;
}

SlotEdit SlotEditor::insert(const at::Tensor& query_in, const at::Tensor& row,
                            const InsertOptions& options) {
  const torch::NoGradGuard no_grad;
  const MemoryConfig& config = layer_->config();
  TORCH_CHECK_VALUE(!config.is_ngram(),
                    "insert: expected a memory with keys, got one of variant \"ngram\"");
  const bool is_one = query_in.dim() == 1;
  const std::int64_t head = options.head.value_or(0);
  TORCH_CHECK_VALUE(
      options.head.has_value() == (is_one && config.heads > 1) || (is_one && config.heads == 1),
      "insert: expected a head for a query [k_dim] and none for one of all heads");
  TORCH_CHECK_INDEX(head >= 0 && head < config.heads, "insert: expected a head in [0, ",
                    config.heads, "), got ", head);
  const std::vector<std::int64_t> wanted =
      is_one ? std::vector{config.k_dim} : std::vector{config.heads, config.k_dim};
  TORCH_CHECK_VALUE(query_in.sizes() == wanted, "insert: expected a query [", config.heads, ", ",
                    config.k_dim, "], or [", config.k_dim, "] with a head, got ", query_in.sizes());
  TORCH_CHECK_VALUE(at::isfinite(query_in).all().item<bool>(),
                    "insert: expected a query of finite numbers, got NaN or infinity");
  TORCH_CHECK_VALUE(row.count_nonzero().item<std::int64_t>() > 0,
                    "insert: expected a row that is not all zeros, which would leave its slot "
                    "free, got zeros");
  const at::Tensor query = nn::scored_query(*layer_, query_in.reshape({1, -1, config.k_dim}));
  const std::optional<Snapshot> now =
      store_ != nullptr ? std::optional(store_->snapshot()) : std::nullopt;
  at::Tensor keys = nn::scored_keys(*layer_, layer_->keys_of(now ? &*now : nullptr));
  if (is_one) keys = keys.slice(0, head, head + 1);
  const auto [slots_of_heads, weights] = lookup_softmax(query, keys, config.knn);
  const at::Tensor order = weights.flatten().cpu().argsort(/*stable=*/true, 0, /*descending=*/true);
  const at::Tensor slots = slots_of_heads.flatten().cpu().index_select(0, order);
  const at::Tensor is_used = rows(slots).any(1);
  // The first that is free; the first of all where none is.
  const std::int64_t best = is_used.to(at::kByte).argmin().item<std::int64_t>();
  TORCH_CHECK_VALUE(!options.only_free || !is_used[best].item<bool>(),
                    "insert: expected a free slot among the ", slots.numel(),
                    " of the lookup, found none");
  return write("insert", slots[best].item<std::int64_t>(), row);
}

SlotEdit SlotEditor::update(std::int64_t slot, const at::Tensor& row) {
  return write("update", slot, row);
}

SlotEdit SlotEditor::erase(std::int64_t slot) {
  return write("erase", slot, at::zeros({layer_->pool()->width()}));
}

SlotEdit SlotEditor::write(const char* op, std::int64_t slot, const at::Tensor& row) {
  check_slot(op, slot);
  const MemoryPool pool = layer_->pool();
  const at::Tensor encoded = ops::encode_row(op, row, pool->options().row_dtype, pool->width());
  SlotEdit edit{.slot = slot, .was_free = is_free(slot)};
  const bool is_erased = row.count_nonzero().item<std::int64_t>() == 0;
  if (store_ != nullptr && edit.was_free && is_erased) return edit;
  if (store_ != nullptr) {
    edit.patch = ops::write_row(*store_, slot, encoded, op);
  } else {
    write_in_memory(slot, row, encoded);
  }
  return edit;
}

void SlotEditor::write_in_memory(std::int64_t slot, const at::Tensor& row,
                                 const at::Tensor& encoded) {
  const torch::NoGradGuard no_grad;
  layer_->pool()->values.detach()[slot].copy_(encoded);
  if (optimizer_ == nullptr) return;
  RowState& state = optimizer_->state();
  for (at::Tensor* table : {&state.exp_avg, &state.exp_avg_sq}) {
    if (table->defined()) (*table)[slot].zero_();
  }
  // Of dense AdamW steps say up to where a row is current, and reading it has brought it there.
  const bool counts = optimizer_->options().kind != PoolOptimizer::kDenseAdamW;
  if (counts && state.steps.defined()) state.steps[slot].zero_();
  if (state.master.defined()) state.master[slot].copy_(row);
}

}  // namespace memlayers
