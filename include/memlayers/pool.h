// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "memlayers/config.h"
#include "memlayers/parallel.h"
#include "memlayers/row_updates.h"
#include "memlayers/store.h"

namespace memlayers {

namespace nn {
class GradientRecord;
class PoolExchange;
class PoolTables;
class RowSource;
}  // namespace nn

struct PoolOptions {
  std::int64_t n_keys = 128;  // the pool has n_keys^2 slots
  std::int64_t width = 256;   // of a row: v_dim, or dim + v_dim for PEER
  RowType row_dtype = RowType::kFloat32;
  std::optional<double> init_std = {};  // of the normal values; absent: width^-0.5; 0: zeros
  std::uint64_t seed = 0;  // row s has the same bits whatever the pool's size and thread count
  // A folder that must exist: the rows live in a scratch file there, and RAM holds those in use;
  // the optimizer's state goes there too. The file has no name and ends with the pool, or with the
  // process however that ends. Absent: all of it in RAM.
  std::optional<std::string> folder = {};
  // Who holds the pool: each process of the group has its part of the table, and gather() and
  // peer_gather() are then something that all of them do together, each for its own tokens
  // (docs/parallel.md).
  MemoryGroup group = {};
  // PEER: the first columns of a row, those of U. U and V are split each by itself.
  std::int64_t u_width = 0;
  // For serving: rows are read from this store (store.h), where they lie, and never trained.
  // `values` is then empty; width and row_dtype must be the store's, which may have more rows.
  std::shared_ptr<StoreReader> store = {};
};

// The value rows that all memory layers of a model share: one table [n_keys^2, width]; in a memory
// group, this process's part of it.
//
// A torch::nn module with one parameter, `values`. Its gradient never exists: backward of gather
// records factored contributions here, and RowOptimizer (optimizer.h) consumes them; values.grad()
// stays undefined, so that a torch::optim optimizer passes it by. Backward may run in autograd's
// threads: recording is guarded by a lock. Contributions are ordered by the order of the forward
// calls, so sums do not depend on timing. Forward calls of one pool come from one thread at a time.
class MemoryPoolImpl : public torch::nn::Module {
 public:
  // Throws ValueError for an impossible size, quantized rows in a memory group, or a store of other
  // rows; Error where memory or the folder has no room for it, or the split does not fit the group.
  explicit MemoryPoolImpl(const PoolOptions& options);
  ~MemoryPoolImpl() override;

  const PoolOptions& options() const { return options_; }
  std::int64_t slots() const { return options_.n_keys * options_.n_keys; }
  std::int64_t width() const { return options_.width; }

  // Which part of the table this process holds. Row i of `values` is slot part().slot(i).
  const PoolPart& part() const { return part_; }
  bool is_sharded() const { return exchange_ != nullptr; }
  PoolPart part_of(int process) const;  // of the group; this one's where there is none
  // The group of a sharded pool; null otherwise.
  Communicator* group() const { return is_sharded() ? options_.group.processes.get() : nullptr; }

  // [part().rows, part().width()] float32 or bfloat16, or [slots, quantized_row_bytes(row_dtype,
  // width)] uint8; in huge pages where the system has them.
  torch::Tensor values;
  std::string id;  // names this pool in its files and patches

  // The weighted sum of rows, and PEER's, as in ops.h; the gradient of values is recorded here. In
  // a memory group slots are those of the whole pool, and every process calls in the same order.
  // `rows`: read these instead, a snapshot of this pool's store; a request keeps to one. Throws
  // Error where the disk does not give rows that are mapped.
  at::Tensor gather(const at::Tensor& slots, const at::Tensor& weights,
                    const Snapshot* rows = nullptr);
  at::Tensor peer_gather(const at::Tensor& x, const at::Tensor& slots, const at::Tensor& weights,
                         const Snapshot* rows = nullptr);

  // The store's rows as they are now; none for a pool that holds its rows itself.
  std::optional<Snapshot> snapshot() const;
  // Follows the edits that other processes, or a Store in this one, have made: later calls of
  // snapshot() have them. Returns whether there is something new. From any thread. After an Error
  // rows are as they were.
  bool refresh();

  // For rows in a file: starts reading those of `slots` (int64, any shape) and returns at once; of
  // very many only the first, as gather reads on ahead of itself. Called by MemoryLayer as soon as
  // it knows the slots; any results are the same without it. Throws IndexError for a slot outside
  // [0, slots()). For rows in RAM does nothing at all.
  void prefetch(const at::Tensor& slots) const;
  bool is_in_file() const;  // values is the table in options().folder, not a copy elsewhere

  // Stores the rows in 8 or 4 bits from now on (ops.h, quantize_rows): `values` becomes [slots,
  // quantized_row_bytes(type, width)] uint8, is read as before, gives weights and x their gradients
  // and has none itself. Needs memory for both tables. Throws ValueError where rows are quantized
  // already, or not finite.
  void quantize(RowType type);

  // What backward has recorded since the last clear_gradient(), in the order of the forward calls;
  // rows and columns are those of `values`. In a memory group: of all its tokens, by rank, and of
  // each process in that order: as if one process had made the calls of all, one after the other.
  std::vector<FactoredGradient> gradient() const;
  void clear_gradient();
  // The recorded gradient as a dense float32 tensor of values' shape; for tests and small pools.
  at::Tensor dense_gradient() const;

  // [part().rows] int64 on the CPU: how often each was read in training mode since it was last set.
  const at::Tensor& usage() const { return usage_; }
  void set_usage(const at::Tensor& usage);  // [part().rows] int64
  void reset_usage();

  // An optimizer may let rows lag behind (PoolOptimizer::kDenseAdamW). gather() and peer_gather()
  // bring those that they read up to date, in training or not, and may then be called from several
  // threads at once, if the optimizer is not. This does so with all rows: before reading `values`
  // itself while such an optimizer lives.
  void catch_up();

  // The library's own (src/nn/pool_tables.h): the tables beside the rows, and who owes them steps.
  nn::PoolTables& tables() const { return *tables_; }

 private:
  void add_usage(const at::Tensor& rows);
  void make_exchange();
  std::unique_ptr<nn::RowSource> make_source();

  PoolOptions options_;
  PoolPart part_;
  std::shared_ptr<nn::PoolExchange> exchange_;  // null: this process holds all of the pool
  std::shared_ptr<nn::PoolTables> tables_;
  std::shared_ptr<nn::GradientRecord> record_;
  std::unique_ptr<nn::RowSource> source_;  // what gather() reads; of `values`, unless from a store
  at::Tensor usage_;
  std::mutex refresh_mutex_;  // StoreReader::refresh() is for one thread at a time
};
TORCH_MODULE(MemoryPool);

}  // namespace memlayers
