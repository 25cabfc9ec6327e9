// SPDX-License-Identifier: Apache-2.0
#include <ATen/CPUGeneratorImpl.h>
#include <torch/torch.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>

#include "dist/collectives.h"
#include "io/config_keys.h"
#include "io/folder.h"
#include "io/safetensors.h"
#include "memlayers/error.h"
#include "nn/model_folder.h"
#include "nn/whole_rows.h"
#include "train/run_checkpoint.h"

namespace memlayers {
namespace train {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kDenseFile = "optimizer/dense.safetensors";
constexpr const char* kRowsFile = "optimizer/rows.safetensors";
constexpr const char* kStateFile = "trainer.json";

io::ElementType element_type(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return io::ElementType::kF32;
    case at::kDouble:
      return io::ElementType::kF64;
    case at::kBFloat16:
      return io::ElementType::kBF16;
    case at::kInt:
      return io::ElementType::kI32;
    case at::kLong:
      return io::ElementType::kI64;
    case at::kByte:
      return io::ElementType::kU8;
    default:
      TORCH_CHECK_TYPE(false, "checkpoint: cannot store a tensor of type ", tensor.scalar_type());
  }
}

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

void write_tensors(io::FileSystem& files, const std::string& path, const NamedTensors& tensors,
                   const std::map<std::string, std::string>& metadata = {}) {
  std::vector<io::TensorToWrite> parts;
  for (const auto& [name, tensor] : tensors) {
    TORCH_CHECK_VALUE(tensor.is_contiguous(), "checkpoint: expected ", name, " to be contiguous");
    parts.push_back({.name = name,
                     .type = element_type(tensor),
                     .shape = tensor.sizes().vec(),
                     .bytes = {static_cast<const std::byte*>(tensor.const_data_ptr()),
                               static_cast<std::size_t>(tensor.nbytes())}});
  }
  io::write_safetensors(files, path, parts, metadata);
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::int64_t size : shape) {
    text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  }
  return text + "]";
}

// Fills the tensors with what the file holds under their names; after_part() is called now and
// then.
template <class AfterPart>
void read_tensors(const io::SafetensorsFile& file, const NamedTensors& tensors,
                  const AfterPart& after_part) {
  for (const auto& [name, tensor] : tensors) {
    const io::TensorView& view = file.at(name);
    if (view.type != element_type(tensor) || view.shape != tensor.sizes().vec()) {
      throw Error(file.path() + ": tensor " + name + " is " +
                  std::string(io::element_name(view.type)) + " " + shape_text(view.shape) +
                  ", expected " + std::string(io::element_name(element_type(tensor))) + " " +
                  shape_text(tensor.sizes().vec()) + ": a checkpoint of another shape");
    }
    // In pieces that leave memory one by one: the state may be larger than the pool.
    constexpr std::size_t kPiece = 4 << 20;
    auto* to = static_cast<std::byte*>(tensor.mutable_data_ptr());
    for (auto rest = view.bytes; !rest.empty();) {
      const auto piece = rest.first(std::min(kPiece, rest.size()));
      std::memcpy(to, piece.data(), piece.size());
      file.release(piece);
      to += piece.size();
      rest = rest.subspan(piece.size());
      after_part();
    }
  }
}

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

// In a memory group each process writes and reads the state of its part of the pool.
std::string rows_file(const MemoryPool& pool) {
  if (!pool->is_sharded()) return kRowsFile;
  return "optimizer/rows-" + std::to_string(pool->group()->rank()) + "-of-" +
         std::to_string(pool->group()->size()) + ".safetensors";
}

// How the pool was split when the file was written.
std::string split_of(const MemoryPool& pool) {
  const std::int64_t rows = pool->part().slot_step;
  const std::int64_t processes = pool->is_sharded() ? pool->group()->size() : 1;
  return std::to_string(processes / rows) + " parts of columns, " + std::to_string(rows) +
         " of rows";
}

constexpr const char* kSplit = "split";               // metadata
constexpr const char* kOptimizer = "optimizer";       // metadata
constexpr const char* kMissedSteps = "missed_steps";  // tensor of the dense AdamW's alone

bool lags(const RowAdamW& rows) { return rows.options().kind == PoolOptimizer::kDenseAdamW; }

// All but what has another shape in every checkpoint.
NamedTensors row_tensors(RowAdamW& rows, const MemoryPool& pool, const at::Tensor& usage) {
  NamedTensors tensors;
  const RowState& state = rows.state();
  if (state.exp_avg.defined()) tensors.emplace_back("exp_avg", state.exp_avg);
  if (state.exp_avg_sq.defined()) tensors.emplace_back("exp_avg_sq", state.exp_avg_sq);
  if (state.steps.defined()) tensors.emplace_back("steps", state.steps);
  if (state.master.defined()) tensors.emplace_back("master", state.master);
  // The pool's files hold rows that have caught up; the run goes on from where they lag. A row with
  // a master copy is that copy, rounded.
  if (lags(rows) && !state.master.defined()) tensors.emplace_back("rows", pool->values.detach());
  tensors.emplace_back("usage", usage);
  return tensors;
}

at::Tensor read_missed_steps(const io::SafetensorsFile& file, std::int64_t row_steps) {
  const io::TensorView& view = file.at(kMissedSteps);
  if (view.type != io::ElementType::kF64 || view.shape.size() != 2 || view.shape[1] != 2 ||
      view.shape[0] > row_steps) {
    throw Error(file.path() + ": tensor " + kMissedSteps + " is " +
                std::string(io::element_name(view.type)) + " " + shape_text(view.shape) +
                ", expected F64 [n, 2] with n at most " + std::to_string(row_steps));
  }
  at::Tensor steps = at::empty(view.shape, at::kDouble);
  if (!view.bytes.empty()) {
    std::memcpy(steps.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
  }
  if (!(steps.prod(1) < 1).all().item<bool>()) {
    throw Error(file.path() + ": tensor " + kMissedSteps +
                ": expected learning rates and weight decays with products below 1");
  }
  return steps;
}

void load_rows(io::FileSystem& files, const std::string& path, RowAdamW& rows, MemoryPool& pool,
               std::int64_t row_steps) {
  if (pool->is_sharded() && !files.exists(path)) {
    throw Error(path + ": no such file; a run with a pool in " + split_of(pool) +
                " resumes what a memory group with the same parts wrote (init starts from any)");
  }
  const io::SafetensorsFile file = io::SafetensorsFile::open(files, path);
  const std::string wanted = optimizer_name(rows.options().kind);
  const auto found = file.metadata().find(kOptimizer);
  if (found != file.metadata().end() && found->second != wanted) {
    throw Error(path + ": state of the optimizer \"" + found->second + "\", expected \"" + wanted +
                "\" (train.value_optimizer): a run resumes with the optimizer it began with");
  }
  const auto split = file.metadata().find(kSplit);
  if (split != file.metadata().end() && split->second != split_of(pool)) {
    throw Error(path + ": state of a pool in " + split->second + ", expected " + split_of(pool) +
                " ([parallel] split): a run resumes with the parts it began with");
  }
  pool->reset_usage();  // a table of its own, to be read into
  read_tensors(file, row_tensors(rows, pool, pool->usage()), [&] { pool->write_back(); });
  if (!lags(rows)) {
    rows.set_steps(row_steps);
    return;
  }
  const at::NoGradGuard no_grad;
  if (rows.state().master.defined()) pool->values.copy_(rows.state().master);
  rows.set_steps(row_steps, read_missed_steps(file, row_steps));
}

Json optional_json(const std::optional<double>& value) { return value ? Json(*value) : Json(); }

std::optional<double> optional_number(const Json& json, const char* key) {
  const Json& value = json.at(key);
  return value.is_null() ? std::nullopt : std::optional<double>(value.get<double>());
}

std::string state_json(const RunState& state) {
  const Json json = {
      {"format", "memlayers.trainer"},
      {"version", 1},
      {"step", state.step},
      {"position", {{"epoch", state.position.epoch}, {"batch", state.position.batch}}},
      {"data", state.data},
      {"tokens", state.tokens},
      {"time_s", state.time_s},
      {"bad_steps", state.bad_steps},
      {"bad_in_a_row", state.bad_in_a_row},
      {"row_steps", state.row_steps},
      {"loss", optional_json(state.loss)},
      {"eval_loss", optional_json(state.eval_loss)},
      {"best_eval_loss", optional_json(state.best_eval_loss)}};
  return json.dump(2) + "\n";
}

}  // namespace

std::string checkpoint_path(const std::string& run_folder, std::int64_t step) {
  return io::join(run_folder, "step-" + std::to_string(step));
}

namespace {

at::Tensor usage_of_all_groups(const MemoryPool& pool) {
  const auto& replicas = pool->options().group.replicas;
  if (replicas == nullptr) return pool->usage();
  at::Tensor sum = at::zeros_like(pool->usage());
  const auto* own = static_cast<const std::byte*>(pool->usage().const_data_ptr());
  for (const Message& message : dist::all_gather(*replicas, {own, pool->usage().nbytes()})) {
    sum += at::from_blob(message.data.get(), sum.sizes(), sum.options());
  }
  return sum;
}

void write_rows(io::FileSystem& files, const std::string& path, const RunParts& parts,
                const at::Tensor& usage) {
  const MemoryPool pool = parts.model->pool();
  NamedTensors rows = row_tensors(*parts.rows, pool, usage);
  if (lags(*parts.rows)) rows.emplace_back(kMissedSteps, parts.rows->missed_steps());
  std::map<std::string, std::string> metadata{
      {kOptimizer, optimizer_name(parts.rows->options().kind)}};
  if (pool->is_sharded()) metadata[kSplit] = split_of(pool);
  write_tensors(files, path, rows, metadata);
}

// What all but the first process do while that one writes: give rows, and write their own state.
void help_to_save(io::FileSystem& files, const RunParts& parts, const Processes& processes) {
  const std::string folder = dist::broadcast(processes.world(), "");
  if (parts.rows != nullptr) {
    const MemoryPool pool = parts.model->pool();
    const bool has_part = processes.is_first_group() && pool->is_sharded();
    if (has_part) save_model(files, parts.model, folder);
    const at::Tensor usage = usage_of_all_groups(pool);
    if (has_part) write_rows(files, io::join(folder, rows_file(pool)), parts, usage);
  }
  dist::barrier(processes.world());  // all is written
  dist::barrier(processes.world());  // the folder is complete
}

}  // namespace

void save_checkpoint(io::FileSystem& files, const std::string& path, const TrainConfig& config,
                     const RunParts& parts, const RunState& state, const Processes* processes) {
  const bool is_alone = processes == nullptr || processes->is_alone();
  std::optional<LongWait> long_wait;
  if (!is_alone) long_wait.emplace(*processes);
  if (!is_alone && !processes->is_first()) {
    help_to_save(files, parts, *processes);
    return;
  }
  io::FolderWriter folder(files, path);
  const std::string place = io::parent(folder.file("config.json"));
  if (parts.rows != nullptr) folder.file(kRowsFile);  // makes its folder
  if (!is_alone) dist::broadcast(processes->world(), place);
  save_model(files, parts.model, place);
  folder.write_text(parts.tokenizer->file_name(), parts.tokenizer->file_bytes());
  NamedTensors dense = parts.dense->state();
  dense.emplace_back("rng", at::detail::getDefaultCPUGenerator().get_state());
  write_tensors(files, folder.file(kDenseFile), dense);
  if (parts.rows != nullptr) {
    const MemoryPool pool = parts.model->pool();
    write_rows(files, folder.file(rows_file(pool)), parts, usage_of_all_groups(pool));
  }
  folder.write_text("training.toml", to_toml(config));
  folder.write_text(kStateFile, state_json(state));
  if (!is_alone) dist::barrier(processes->world());  // what the others write is there
  folder.commit();
  if (!is_alone) dist::barrier(processes->world());
}

at::Tensor whole_usage(const RunParts& parts, const Processes* processes) {
  const MemoryPool pool = parts.model->pool();
  const at::Tensor usage = usage_of_all_groups(pool);
  if (!pool->is_sharded()) return usage;
  if (!processes->is_first_group()) return {};
  nn::WholeRows rows(pool, sizeof(std::int64_t), /*is_one_number=*/true,
                     [&](std::int64_t first, std::span<std::byte> out) {
                       const auto* data = static_cast<const std::byte*>(usage.const_data_ptr());
                       const auto at = first * static_cast<std::int64_t>(sizeof(std::int64_t));
                       std::copy_n(data + at, out.size(), out.data());
                     });
  if (!rows.is_first()) {
    rows.serve();
    return {};
  }
  at::Tensor whole = at::empty({pool->slots()}, at::kLong);
  rows.read(0, {static_cast<std::byte*>(whole.mutable_data_ptr()), whole.nbytes()});
  rows.finish();
  return whole;
}

RunState load_run_state(io::FileSystem& files, const std::string& path) {
  const std::string file = io::join(path, kStateFile);
  const std::string text = io::read_text(files, file);
  try {
    const Json json = Json::parse(text);
    if (json.at("format") != "memlayers.trainer" || json.at("version") != 1) {
      throw Error(file + ": expected format \"memlayers.trainer\" of version 1, got " +
                  json.at("format").dump() + " of version " + json.at("version").dump());
    }
    RunState state;
    state.step = json.at("step").get<std::int64_t>();
    state.position.epoch = json.at("position").at("epoch").get<std::int64_t>();
    state.position.batch = json.at("position").at("batch").get<std::int64_t>();
    state.data = json.at("data").get<std::string>();
    state.tokens = json.at("tokens").get<std::int64_t>();
    state.time_s = json.at("time_s").get<double>();
    state.bad_steps = json.at("bad_steps").get<std::int64_t>();
    state.bad_in_a_row = json.at("bad_in_a_row").get<std::int64_t>();
    state.row_steps = json.at("row_steps").get<std::int64_t>();
    state.loss = optional_number(json, "loss");
    state.eval_loss = optional_number(json, "eval_loss");
    state.best_eval_loss = optional_number(json, "best_eval_loss");
    if (state.step < 0 || state.position.epoch < 0 || state.position.batch < 0) {
      throw Error(file + ": step and position must not be negative");
    }
    return state;
  } catch (const nlohmann::json::exception& error) {
    throw Error(file + ": not the state of a training run: " + error.what());
  }
}

void load_optimizers(io::FileSystem& files, const std::string& path, RunParts& parts,
                     const Processes* processes) {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const at::Tensor random_state = at::empty_like(generator.get_state());
  NamedTensors dense = parts.dense->state();
  dense.emplace_back("rng", random_state);
  read_tensors(io::SafetensorsFile::open(files, io::join(path, kDenseFile)), dense, [] {});
  generator.set_state(random_state);
  if (parts.rows != nullptr) {
    MemoryPool pool = parts.model->pool();
    load_rows(files, io::join(path, rows_file(pool)), *parts.rows, pool,
              load_run_state(files, path).row_steps);
    // Counted for all groups: once.
    if (processes != nullptr && !processes->is_first_group()) pool->reset_usage();
  }
}

}  // namespace train
}  // namespace memlayers
