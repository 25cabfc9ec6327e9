// SPDX-License-Identifier: Apache-2.0
#include "train/row_state_files.h"

#include <torch/types.h>

#include <algorithm>
#include <map>

#include "io/config_keys.h"
#include "io/folder.h"
#include "io/mapped_read.h"
#include "io/shown.h"
#include "memlayers/error.h"
#include "nn/finite.h"
#include "nn/pool_tables.h"
#include "nn/table.h"
#include "train/tensor_file.h"

namespace memlayers::train {
namespace {

constexpr const char* kFolder = "optimizer";
constexpr const char* kNumbersFile = "rows.safetensors";
constexpr const char* kOptimizer = "optimizer";       // metadata
constexpr const char* kMissedSteps = "missed_steps";  // tensor of the dense AdamW's alone

// The name of a run's row optimizer in its configuration, kept in the file: the states of two
// optimizers may have the same shapes.
std::string optimizer_name(PoolOptimizer kind) {
  TrainConfig config;
  config.train.value_optimizer = kind;
  for (const io::ConfigKey& key : io::config_keys()) {
    if (key.name == "value_optimizer") return std::get<std::string>(key.get(config));
  }
  return "";
}

bool lags(const RowOptimizer& rows) { return rows.options().kind == PoolOptimizer::kDenseAdamW; }

// Those with the pool's columns, each in chunks of its own.
std::vector<nn::PoolTable> wide_tables(RowOptimizer& rows, const MemoryPool& pool) {
  std::vector<nn::PoolTable> tables;
  const RowState& state = rows.state();
  const auto add = [&](const char* stem, const at::Tensor& table) {
    if (table.defined() && table.dim() == 2) tables.push_back({stem, table});
  };
  add("exp_avg", state.exp_avg);
  add("exp_avg_sq", state.exp_avg_sq);
  add("master", state.master);
  // The pool's files hold rows that have caught up; the run goes on from where they lag. A row with
  // a master copy is that copy, rounded.
  if (lags(rows) && !state.master.defined()) add("rows", pool->values.detach());
  return tables;
}

// Those of one number a row, which would take 64 bytes each in a chunk: all in one file, of the
// first process, which is a small part of the pool's size.
NamedTensors narrow_tables(RowOptimizer& rows) {
  NamedTensors tables;
  const RowState& state = rows.state();
  if (state.exp_avg_sq.defined() && state.exp_avg_sq.dim() == 1) {
    tables.emplace_back("exp_avg_sq", state.exp_avg_sq);
  }
  if (state.steps.defined()) tables.emplace_back("steps", state.steps);
  return tables;
}

nn::WholeRows numbers_of(const MemoryPool& pool, const at::Tensor& table) {
  return {pool, table.element_size(), /*is_one_number=*/true};
}

std::span<std::byte> rows_of(const at::Tensor& table, std::int64_t first, std::size_t bytes) {
  const auto row_bytes = table.numel() == 0 ? 0 : table.nbytes() / table.size(0);
  return {static_cast<std::byte*>(table.mutable_data_ptr()) + first * row_bytes, bytes};
}

// Fills this process's part of a table from the whole one, or from its first rows, in pieces that
// leave memory one by one.
// check(rows) throws Error where they are not what they should be.
template <class Check>
void keep_part(const nn::WholeRows& whole, const io::SafetensorsFile& file,
               const io::TensorView& view, const MemoryPool& pool, const at::Tensor& table,
               const Check& check) {
  const std::int64_t row_bytes = whole.row_bytes(), slots = view.shape[0];
  const std::int64_t at_once = std::max<std::int64_t>(1, (4 << 20) / row_bytes);
  at::Tensor piece;
  for (std::int64_t first = 0; first < slots; first += at_once) {
    const std::int64_t count = std::min(at_once, slots - first);
    const auto rows = view.bytes.subspan(static_cast<std::size_t>(first * row_bytes),
                                         static_cast<std::size_t>(count * row_bytes));
    piece = at::empty({count, row_bytes / table.element_size()}, table.scalar_type());
    io::copy_mapped(piece.mutable_data_ptr(), rows);
    check(piece);
    whole.keep({first, count}, nn::bytes_of(piece),
               [&](std::int64_t row, std::span<const std::byte> part) {
                 std::ranges::copy(part, rows_of(table, row, part.size()).begin());
               });
    file.release(rows);
    pool->tables().write_back();
  }
}

// `slots`: of the whole table, of which the pool may have more.
void keep_numbers(const io::SafetensorsFile& file, const std::string& name, std::int64_t slots,
                  const MemoryPool& pool, const at::Tensor& table) {
  const io::TensorView& view = expect_tensor(file, name, table.scalar_type(), {slots});
  keep_part(numbers_of(pool, table), file, view, pool, table, [&](const at::Tensor& numbers) {
    // Counts, or means of squares.
    if ((numbers >= 0).all().item<bool>() && nn::all_finite(numbers)) return;
    throw Error(file.path() + ": tensor " + name +
                ": expected finite numbers of at least 0, got others");
  });
}

at::Tensor read_missed_steps(const io::SafetensorsFile& file, std::int64_t row_steps) {
  const io::TensorView& view = file.at(kMissedSteps);
  if (view.type != io::ElementType::kF64 || view.shape.size() != 2 || view.shape[1] != 2 ||
      view.shape[0] > row_steps) {
    throw Error(file.path() + ": tensor " + kMissedSteps + ": expected F64 [n, 2] with n at most " +
                std::to_string(row_steps) + ", got another type or shape");
  }
  at::Tensor steps = at::empty(view.shape, at::kDouble);
  io::copy_mapped(steps.mutable_data_ptr(), view.bytes);
  if (!(steps.prod(1) < 1).all().item<bool>() || !nn::all_finite(steps)) {
    throw Error(file.path() + ": tensor " + kMissedSteps +
                ": expected learning rates and weight decays with products below 1");
  }
  return steps;
}

// Version 1 of one process: all tables are tensors of one file.
void load_wide_tables_of_version_1(const io::SafetensorsFile& file, RowOptimizer& rows,
                                   const MemoryPool& pool) {
  for (const nn::PoolTable& table : wide_tables(rows, pool)) {
    const io::TensorView& view =
        expect_tensor(file, table.stem, table.rows.scalar_type(), {pool->slots(), pool->width()});
    keep_part({pool, table.rows.element_size(), /*is_one_number=*/false}, file, view, pool,
              table.rows, [&](const at::Tensor& piece) {
                nn::check_finite(piece, file.path() + ": tensor " + table.stem);
              });
  }
}

}  // namespace

at::Tensor whole_numbers(const MemoryPool& pool, const at::Tensor& part) {
  if (!pool->is_sharded()) return part;
  const nn::WholeRows rows = numbers_of(pool, part);
  at::Tensor whole;
  if (rows.rank() == 0) whole = at::empty({pool->slots()}, part.options());
  // In pieces far below what a message can hold.
  constexpr std::int64_t kAtOnce = 8 << 20;
  std::vector<nn::WholeRows::Range> wanted(static_cast<std::size_t>(rows.processes()));
  for (std::int64_t first = 0; first < pool->slots(); first += kAtOnce) {
    wanted[0] = {first, std::min(kAtOnce, pool->slots() - first)};
    std::span<std::byte> out;
    if (rows.rank() == 0) {
      out = rows_of(whole, first, static_cast<std::size_t>(wanted[0].count * rows.row_bytes()));
    }
    rows.collect(
        wanted,
        [&](std::int64_t row, std::span<std::byte> to) {
          std::ranges::copy(rows_of(part, row, to.size()), to.begin());
        },
        out);
  }
  return whole;
}

void write_usage(io::FileSystem& files, const std::string& folder, const at::Tensor& whole,
                 std::int64_t step) {
  write_tensors(files, io::join(folder, kUsageFile), {{"reads", whole}},
                {{"step", std::to_string(step)}});
}

void load_usage(io::FileSystem& files, const std::string& folder, MemoryPool& pool,
                std::int64_t step) {
  const io::SafetensorsFile file = io::SafetensorsFile::open(files, io::join(folder, kUsageFile));
  check_step(file, step);
  pool->reset_usage();  // a table of its own, to be read into
  keep_numbers(file, "reads", pool->slots(), pool, pool->usage());
}

std::uint64_t bytes_of_rows(RowOptimizer& rows, const MemoryPool& pool) {
  std::uint64_t bytes = 0;
  for (const nn::PoolTable& table : wide_tables(rows, pool)) {
    bytes += nn::bytes_of_chunks(pool, table.rows);
  }
  for (const auto& [name, table] : narrow_tables(rows)) {
    bytes += static_cast<std::uint64_t>(pool->slots() * table.element_size());
  }
  return bytes;
}

nn::WrittenFiles write_rows(io::FileSystem& files, const std::string& folder, RowOptimizer& rows,
                            const MemoryPool& pool, std::int64_t step) {
  const std::string place = io::join(folder, kFolder);
  nn::WrittenFiles written;
  int first_writer = 0;
  for (const nn::PoolTable& table : wide_tables(rows, pool)) {
    // Tables of few chunks go to different processes.
    const auto chunks = nn::write_table(
        files, place, pool, table,
        {.generation = static_cast<std::uint64_t>(step), .first_writer = ++first_writer});
    for (const auto& [name, writer] : chunks) written.emplace_back(io::join(kFolder, name), writer);
  }
  NamedTensors numbers;
  for (const auto& [name, table] : narrow_tables(rows)) {
    numbers.emplace_back(name, whole_numbers(pool, table));
  }
  if (pool->is_sharded() && pool->group()->rank() > 0) return written;
  if (lags(rows)) numbers.emplace_back(kMissedSteps, rows.missed_steps());
  write_tensors(
      files, io::join(place, kNumbersFile), numbers,
      {{kOptimizer, optimizer_name(rows.options().kind)}, {"step", std::to_string(step)}});
  return written;
}

void load_rows(io::FileSystem& files, const std::string& folder, RowOptimizer& rows,
               MemoryPool& pool, const RowsToLoad& what) {
  const std::string place = io::join(folder, kFolder), path = io::join(place, kNumbersFile);
  const bool is_version_1 = what.version == 1;
  if (is_version_1 && !files.exists(path)) {
    throw Error(path +
                ": no such file; the state of the pool's optimizer was written in an older "
                "format by several processes, which can no longer be read (init starts "
                "from the weights)");
  }
  const io::SafetensorsFile file = io::SafetensorsFile::open(files, path);
  const std::string wanted = optimizer_name(rows.options().kind);
  const auto found = file.metadata().find(kOptimizer);
  if (found != file.metadata().end() && found->second != wanted) {
    throw Error(path + ": state of the optimizer " + io::quote(found->second) + ", expected \"" +
                wanted +
                "\" (train.value_optimizer): a run resumes with the optimizer it began with");
  }
  for (const auto& [name, table] : narrow_tables(rows)) {
    keep_numbers(file, name, what.trained, pool, table);
  }
  if (is_version_1) {
    load_wide_tables_of_version_1(file, rows, pool);
    pool->reset_usage();
    keep_numbers(file, "usage", pool->slots(), pool, pool->usage());
  } else {
    check_step(file, what.step);
    for (const nn::PoolTable& table : wide_tables(rows, pool)) {
      const std::string of = nn::read_table(files, place, pool, table,
                                            {.generation = static_cast<std::uint64_t>(what.step),
                                             .slots = what.trained})
                                 .pool;
      if (of != what.pool) {
        throw Error(place + ": " + table.stem + ": expected the state of pool " +
                    io::shown(what.pool) + ", which the checkpoint has, got that of " +
                    io::shown(of));
      }
    }
    load_usage(files, folder, pool, what.step);
  }
  if (!lags(rows)) {
    rows.set_steps(what.row_steps);
    return;
  }
  const at::NoGradGuard no_grad;
  // Rows that came since owe nothing for the steps before.
  std::int64_t there = pool->part().rows;
  while (there > 0 && pool->part().slot(there - 1) >= what.trained) --there;
  rows.state().steps.slice(0, there).fill_(what.row_steps);
  if (rows.state().master.defined()) pool->values.copy_(rows.state().master);
  rows.set_steps(what.row_steps, read_missed_steps(file, what.row_steps));
}

}  // namespace memlayers::train
