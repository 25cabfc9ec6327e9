// SPDX-License-Identifier: Apache-2.0
#include <ATen/CPUGeneratorImpl.h>
#include <torch/torch.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>

#include "io/config_keys.h"
#include "io/folder.h"
#include "io/safetensors.h"
#include "memlayers/error.h"
#include "nn/model_folder.h"
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
  const io::SafetensorsFile file = io::SafetensorsFile::open(files, path);
  const std::string wanted = optimizer_name(rows.options().kind);
  const auto found = file.metadata().find(kOptimizer);
  if (found != file.metadata().end() && found->second != wanted) {
    throw Error(path + ": state of the optimizer \"" + found->second + "\", expected \"" + wanted +
                "\" (train.value_optimizer): a run resumes with the optimizer it began with");
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

void save_checkpoint(io::FileSystem& files, const std::string& path, const TrainConfig& config,
                     const RunParts& parts, const RunState& state) {
  io::FolderWriter folder(files, path);
  const std::string config_file = folder.file("config.json");
  save_model(files, parts.model, config_file.substr(0, config_file.find_last_of('/')));
  folder.write_text(parts.tokenizer->file_name(), parts.tokenizer->file_bytes());
  NamedTensors dense = parts.dense->state();
  dense.emplace_back("rng", at::detail::getDefaultCPUGenerator().get_state());
  write_tensors(files, folder.file(kDenseFile), dense);
  if (parts.rows != nullptr) {
    const MemoryPool pool = parts.model->pool();
    NamedTensors rows = row_tensors(*parts.rows, pool, pool->usage());
    if (lags(*parts.rows)) rows.emplace_back(kMissedSteps, parts.rows->missed_steps());
    write_tensors(files, folder.file(kRowsFile), rows,
                  {{kOptimizer, optimizer_name(parts.rows->options().kind)}});
  }
  folder.write_text("training.toml", to_toml(config));
  folder.write_text(kStateFile, state_json(state));
  folder.commit();
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

void load_optimizers(io::FileSystem& files, const std::string& path, RunParts& parts) {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const at::Tensor random_state = at::empty_like(generator.get_state());
  NamedTensors dense = parts.dense->state();
  dense.emplace_back("rng", random_state);
  read_tensors(io::SafetensorsFile::open(files, io::join(path, kDenseFile)), dense, [] {});
  generator.set_state(random_state);
  if (parts.rows != nullptr) {
    MemoryPool pool = parts.model->pool();
    load_rows(files, io::join(path, kRowsFile), *parts.rows, pool,
              load_run_state(files, path).row_steps);
  }
}

}  // namespace train
}  // namespace memlayers
