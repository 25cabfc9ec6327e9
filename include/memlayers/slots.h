// SPDX-License-Identifier: Apache-2.0
// Editing a pool one slot at a time (docs/editing.md, "Single slots").
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include "memlayers/memory_layer.h"
#include "memlayers/optimizer.h"
#include "memlayers/store.h"

namespace memlayers {

// Where an inserted row may go.
struct InsertOptions {
  std::optional<std::int64_t> head = {};  // of a query [k_dim]; layers of one head need none
  bool only_free = false;  // throws where no slot of the lookup is free, instead of overwriting
};

// What an edit did.
struct SlotEdit {
  std::int64_t slot = 0;
  bool was_free = false;   // its row was all zeros before
  std::string patch = {};  // its id in the store, to roll it back by; empty for rows in memory
};

// Writes single rows of the pool that `layer` reads: where a query's lookup finds them, or by
// number. All other rows keep their bits. A slot is free when its row is all zeros, which is all
// that is kept of that: it survives saving, growing and patches. Rows are tensors [width], float32
// or bfloat16, rounded or quantized as the pool's are; PEER's are pairs (U, V), one behind the
// other.
//
//   SlotEditor editor(model->memory_layers()[0].second);
//   SlotEdit edit = editor.insert(layer->query_proj(x).view({heads, k_dim}), value);
//   editor.erase(edit.slot);
//
// Slots that the layer cannot reach (MemoryConfig::open_keys) are not edited. Not for several
// threads at once, nor while rows are trained or read. All functions throw ValueError for a shape,
// a number that is not finite or options that cannot be met, TypeError for a dtype and IndexError
// for a slot outside those that the layer reads.
class SlotEditor {
 public:
  // Rows in memory (or PoolOptions::folder). `optimizer`, where the pool is trained: what it
  // remembers of an edited row is reset to that of a new row; call between its steps. Both must
  // outlive this. Throws ValueError for a pool that is in a store or a memory group.
  explicit SlotEditor(MemoryLayer layer, RowOptimizer* optimizer = nullptr);
  // Rows in a model's pool/ on the disk, also while models serve from it: each edit is a patch of
  // one row, durable when it returns, and seen by every reader's next request. `layer` is one of
  // such a model. Throws ValueError for a store that is not of this layer's pool.
  SlotEditor(MemoryLayer layer, Store& store);

  // Looks up the k slots of each head, and writes the row into that free one which the query reads
  // with the greatest weight. Where none is free, into the one it reads with the greatest weight of
  // all: what was there is lost (with a store, until the patch is rolled back). `query`: as the
  // layer's query_proj gives it, [heads, k_dim], or [k_dim] for one head. Throws ValueError for a
  // row of zeros, which would leave the slot free.
  SlotEdit insert(const at::Tensor& query, const at::Tensor& row,
                  const InsertOptions& options = {});
  SlotEdit update(std::int64_t slot, const at::Tensor& row);
  SlotEdit erase(std::int64_t slot);  // it reads as zero, and is among the first to be taken

  at::Tensor row(std::int64_t slot) const;  // as it is read now, [width] float32
  bool is_free(std::int64_t slot) const;

 private:
  at::Tensor rows(const at::Tensor& slots) const;
  void check_slot(const char* op, std::int64_t slot) const;
  SlotEdit write(const char* op, std::int64_t slot, const at::Tensor& row);
  void write_in_memory(std::int64_t slot, const at::Tensor& row, const at::Tensor& encoded);

  MemoryLayer layer_;
  RowOptimizer* optimizer_ = nullptr;
  Store* store_ = nullptr;
};

}  // namespace memlayers
