// SPDX-License-Identifier: Apache-2.0
#include <ATen/CPUGeneratorImpl.h>
#include <torch/types.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "dist/collectives.h"
#include "io/folder.h"
#include "io/json.h"
#include "io/model_source.h"
#include "memlayers/error.h"
#include "nn/model_folder.h"
#include "text/tokenizer_file.h"
#include "train/row_state_files.h"
#include "train/run_checkpoint.h"
#include "train/tensor_file.h"

namespace memlayers::train {
namespace {

constexpr const char* kDenseFile = "optimizer/dense.safetensors";

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

// The first memory group's: it has all that there is, once.
nn::WrittenFiles write_pool_files(io::FileSystem& files, const std::string& place,
                                  const RunParts& parts, std::int64_t step) {
  nn::WrittenFiles written;
  for (const auto& [name, writer] :
       save_model(files, parts.model, place, static_cast<std::uint64_t>(step))) {
    written.emplace_back(io::join("pool", name), writer);
  }
  if (parts.rows == nullptr) return written;
  for (auto& file : write_rows(files, place, *parts.rows, parts.model->pool(), step)) {
    written.push_back(std::move(file));
  }
  return written;
}

// The model, the optimizers' state, and how often slots were read.
std::uint64_t bytes_of(const RunParts& parts) {
  std::uint64_t bytes = bytes_to_save(parts.model);
  for (const auto& [name, tensor] : parts.dense->state()) bytes += tensor.nbytes();
  if (parts.rows == nullptr) return bytes;
  const MemoryPool pool = parts.model->pool();
  return bytes + bytes_of_rows(*parts.rows, pool) +
         static_cast<std::uint64_t>(pool->slots()) * sizeof(std::int64_t);
}

// Sizes and checksums of what each process wrote: whoever wrote a file has it in memory.
void tell_the_first(io::FileSystem& files, const std::string& place,
                    const nn::WrittenFiles& written, const Processes& processes,
                    io::FolderWriter* folder) {
  const int rank = processes.world().rank();
  nlohmann::json own = nlohmann::json::object();
  for (const auto& [name, writer] : written) {
    if (writer != rank || processes.is_first()) continue;
    const io::ManifestEntry entry = io::entry_of(files, io::join(place, name));
    own[name] = {entry.size, entry.xxh3};
  }
  const std::string text = own.dump();
  const auto all = dist::all_gather(processes.world(), std::as_bytes(std::span(text)));
  if (folder == nullptr) return;
  for (const Message& message : all) {
    const nlohmann::json entries = io::parse_json(
        {reinterpret_cast<const char*>(message.data.get()), message.size}, "a process's files");
    for (const auto& [name, entry] : entries.items()) {
      folder->add(name, {entry[0].get<std::uint64_t>(), entry[1].get<std::string>()});
    }
  }
}

// The state of the dense weights. Where the memory has grown since, that of the sub-keys that were
// there: the others keep that of a new run.
void read_dense(const io::SafetensorsFile& file, const NamedTensors& state,
                std::optional<std::int64_t> trained_keys) {
  NamedTensors stored = state;
  std::vector<std::pair<at::Tensor, at::Tensor>> parts;
  for (auto& [name, tensor] : stored) {
    if (!trained_keys || !name.ends_with(".memory.keys")) continue;
    const at::Tensor part = tensor.slice(2, 0, *trained_keys);  // of [H, 2, n_keys, k_dim / 2]
    tensor = at::empty(part.sizes(), part.options());
    parts.emplace_back(part, tensor);
  }
  read_tensors(file, stored);
  for (const auto& [name, tensor] : stored) {
    if (!name.starts_with("exp_avg_sq.") && name != "steps") continue;
    if ((tensor >= 0).all().item<bool>()) continue;
    throw Error(file.path() + ": tensor " + name + ": expected numbers of at least 0, got others");
  }
  for (const auto& [part, tensor] : parts) part.copy_(tensor);
}

RunLayout layout_of(const RunParts& parts, const Processes* processes,
                    const nn::WrittenFiles& written) {
  RunLayout layout;
  for (const auto& [name, writer] : written) layout.files[name] = writer;
  if (processes == nullptr) return layout;
  const int group = processes->group().processes->size();
  layout.processes = processes->count();
  layout.groups = processes->count() / group;
  if (parts.rows == nullptr) return layout;
  const auto rows = static_cast<int>(parts.model->pool()->part().slot_step);
  layout.split = {.column_parts = group / rows, .row_parts = rows};
  return layout;
}

}  // namespace

std::string checkpoint_path(const std::string& run_folder, std::int64_t step) {
  return io::join(run_folder, "step-" + std::to_string(step));
}

void save_checkpoint(io::FileSystem& files, const std::string& path, const TrainConfig& config,
                     const RunParts& parts, const RunState& state, const Processes* processes) {
  const bool is_alone = processes == nullptr || processes->is_alone();
  const bool is_first = processes == nullptr || processes->is_first();
  std::optional<LongWait> long_wait;
  if (!is_alone) long_wait.emplace(*processes);
  std::optional<io::FolderWriter> folder;
  std::string place;
  if (is_first) {
    io::ask_for_room(files, path, bytes_of(parts));  // before anything is written
    folder.emplace(files, path);
    place = io::parent(folder->file("config.json"));
    folder->file(kDenseFile);  // makes its folder
  }
  if (!is_alone) place = dist::broadcast(processes->world(), place);
  const at::Tensor usage = parts.rows == nullptr ? at::Tensor() : whole_usage(parts, processes);
  nn::WrittenFiles written;
  if (is_first || (processes->is_first_group() && parts.rows != nullptr)) {
    written = write_pool_files(files, place, parts, state.step);
  }
  if (is_first) {
    const bool has_memory = !parts.model->config().memory_layers().empty();
    for (const auto& [name, bytes] : text::files_for_folder(*parts.tokenizer, has_memory)) {
      folder->write_text(name, bytes);
    }
    NamedTensors dense = parts.dense->state();
    dense.emplace_back("rng", at::detail::getDefaultCPUGenerator().get_state());
    write_tensors(files, folder->file(kDenseFile), dense, {{"step", std::to_string(state.step)}});
    if (parts.rows != nullptr) write_usage(files, place, usage, state.step);
    folder->write_text("training.toml", to_toml(config));
    folder->write_text("trainer.json", state_json(state, layout_of(parts, processes, written)));
  }
  if (!is_alone) tell_the_first(files, place, written, *processes, folder ? &*folder : nullptr);
  if (is_first) folder->commit();
  if (!is_alone) dist::barrier(processes->world());  // it is there for all
}

at::Tensor whole_usage(const RunParts& parts, const Processes* processes) {
  const MemoryPool pool = parts.model->pool();
  const at::Tensor usage = usage_of_all_groups(pool);
  if (processes != nullptr && !processes->is_first_group()) return {};
  return whole_numbers(pool, usage);
}

void load_optimizers(io::FileSystem& files, const std::string& path, RunParts& parts,
                     const Processes* processes) {
  const RunState state = load_run_state(files, path);
  const int version = load_state_version(files, path);
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const at::Tensor random_state = at::empty_like(generator.get_state());
  NamedTensors dense = parts.dense->state();
  dense.emplace_back("rng", random_state);
  const io::SafetensorsFile file = io::SafetensorsFile::open(files, io::join(path, kDenseFile));
  if (version > 1) check_step(file, state.step);
  const ModelConfig stored = io::read_model(files, path);
  const auto trained_keys = stored.memory ? stored.memory->open_keys : std::nullopt;
  read_dense(file, dense, trained_keys);
  try {
    generator.set_state(random_state);
  } catch (const c10::Error&) {
    throw Error(file.path() +
                ": tensor rng: expected the state of torch's random generator, got other bytes");
  }
  if (parts.rows == nullptr) return;
  MemoryPool pool = parts.model->pool();
  std::string pool_id;
  if (version > 1) {
    const std::string folder = io::join(path, "pool");
    nn::check_generation(files, folder, "chunk", static_cast<std::uint64_t>(state.step));
    pool_id = nn::pool_id_of(files, folder, "chunk");
  }
  load_rows(files, path, *parts.rows, pool,
            {.version = version,
             .step = state.step,
             .row_steps = state.row_steps,
             .pool = pool_id,
             .trained = trained_keys ? *trained_keys * *trained_keys : pool->slots()});
  // Counted for all groups: once.
  if (processes != nullptr && !processes->is_first_group()) pool->reset_usage();
}

std::string damage_of(io::FileSystem& files, const std::string& checkpoint,
                      const Processes* processes) {
  std::string damage;
  try {
    if (processes == nullptr) {
      io::verify_folder(files, checkpoint);
    } else {
      io::verify_folder(files, checkpoint, {processes->world().rank(), processes->count()});
    }
  } catch (const Error& error) {
    damage = error.what();
  }
  if (processes == nullptr || processes->is_alone()) return damage;
  const auto all = dist::all_gather(processes->world(), std::as_bytes(std::span(damage)));
  for (const Message& message : all) {
    if (message.size == 0) continue;
    return {reinterpret_cast<const char*>(message.data.get()), message.size};
  }
  return "";
}

}  // namespace memlayers::train
