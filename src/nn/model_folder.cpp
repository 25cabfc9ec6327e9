// SPDX-License-Identifier: Apache-2.0
// A model in Hugging Face's layout: config.json, model.safetensors, pool/.
#include "nn/model_folder.h"

#include <algorithm>
#include <map>
#include <set>
#include <span>

#include "dist/collectives.h"
#include "io/folder.h"
#include "io/model_config.h"
#include "io/safetensors.h"
#include "memlayers/error.h"
#include "memlayers/llama.h"
#include "nn/lookup_inputs.h"
#include "nn/project.h"
#include "nn/table.h"

namespace memlayers {
namespace {

constexpr const char* kPoolFolder = "pool";
constexpr const char* kRows = "chunk";  // stem of their files

io::ElementType element_type(const at::Tensor& tensor, const std::string& where) {
  if (tensor.scalar_type() == torch::kFloat) return io::ElementType::kF32;
  if (tensor.scalar_type() == torch::kBFloat16) return io::ElementType::kBF16;
  throw Error(where + ": expected weights of type Float or BFloat16 to save, got " +
              c10::toString(tensor.scalar_type()));
}

std::string shape_text(at::IntArrayRef shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

at::Tensor as_tensor(const io::TensorView& view, const std::string& where) {
  at::ScalarType type;
  switch (view.type) {
    case io::ElementType::kF32:
      type = torch::kFloat;
      break;
    case io::ElementType::kBF16:
      type = torch::kBFloat16;
      break;
    case io::ElementType::kF16:
      type = torch::kHalf;
      break;
    default:
      throw Error(where + ": expected a tensor of type F32, BF16 or F16, got " +
                  std::string(io::element_name(view.type)));
  }
  // The bytes are only read; from_blob has no const twin.
  return torch::from_blob(const_cast<std::byte*>(view.bytes.data()), view.shape,
                          torch::dtype(type));
}

// Weights that some writers add and that mean nothing here.
bool is_ignored(const std::string& name, const ModelConfig& config) {
  return name.ends_with("rotary_emb.inv_freq") ||
         (config.tie_embeddings && name == "lm_head.weight");
}

void load_dense(Llama& model, io::FileSystem& fs, const std::string& folder) {
  const io::SafetensorsFolder file = io::SafetensorsFolder::open(fs, folder);
  std::set<std::string> used;
  const torch::NoGradGuard no_grad;
  for (auto& [name, parameter] : model->dense_parameters()) {
    const std::string where = folder + ": tensor \"" + name + "\"";
    const auto found = file.tensors().find(name);
    if (found == file.tensors().end())
      throw Error(where + ": expected by config.json, not in the file");
    if (found->second.shape != parameter.sizes()) {
      throw Error(where + ": expected shape " + shape_text(parameter.sizes()) +
                  " by config.json, got " + shape_text(found->second.shape));
    }
    const at::Tensor stored = as_tensor(found->second, where);
    parameter.copy_(stored);
    if (!torch::isfinite(parameter).all().item<bool>()) {
      throw Error(where + ": expected finite weights, got NaN or infinity");
    }
    used.insert(name);
  }
  for (const auto& [name, view] : file.tensors()) {
    if (!used.contains(name) && !is_ignored(name, model->config())) {
      throw Error(folder + ": tensor \"" + name + "\": expected none of this name by config.json");
    }
  }
}

void save_weights(io::FileSystem& fs, const Llama& model, const std::string& path) {
  std::vector<io::TensorToWrite> tensors;
  std::vector<at::Tensor> kept;  // contiguous copies live until they are written
  for (const auto& [name, parameter] : model->dense_parameters()) {
    kept.push_back(parameter.detach().to(torch::kCPU).contiguous());
    const at::Tensor& tensor = kept.back();
    const io::ElementType type = element_type(tensor, path + ": tensor \"" + name + "\"");
    tensors.push_back({name, type, tensor.sizes().vec(), nn::bytes_of(tensor)});
  }
  io::write_safetensors(fs, io::join(path, "model.safetensors"), tensors, {{"format", "pt"}});
}

void save_config(io::FileSystem& fs, const Llama& model, const std::string& path) {
  io::write_atomic(fs, io::join(path, "config.json"), io::model_config_json(model->config()));
}

// A copy of lagging rows catches up: that a model is saved makes no difference to the bits of its
// training.
nn::PoolTable rows_to_save(const MemoryPool& memory) {
  nn::PoolTable table{kRows, memory->values.detach().to(torch::kCPU).contiguous()};
  if (const auto lag = memory->lag(); lag != nullptr) {
    table.read = [lag](std::int64_t first, std::span<std::byte> out) { lag->read(first, out); };
  }
  return table;
}

nn::WrittenFiles save_pool(io::FileSystem& fs, const MemoryPool& memory, const std::string& folder,
                           std::uint64_t generation) {
  const nn::PoolTable table = rows_to_save(memory);
  const at::ScalarType wanted = nn::element_type(memory->options().row_dtype);
  if (table.rows.scalar_type() != wanted) {  // the model was moved to another type
    throw Error(folder + ": expected rows of type " + c10::toString(wanted) +
                " by the model's configuration, got " + c10::toString(table.rows.scalar_type()));
  }
  return nn::write_table(fs, folder, memory, table, {.generation = generation});
}

}  // namespace

void save_model(const Llama& model, const std::string& path) {
  save_model(io::posix(), model, path);
}

nn::WrittenFiles save_model(io::FileSystem& fs, const Llama& model, const std::string& path,
                            std::uint64_t generation) {
  const MemoryPool memory = model->pool();
  TORCH_CHECK_VALUE(memory.is_empty() || !memory->snapshot(),
                    "save_model: expected a model that holds its pool (load_model), got one that "
                    "reads it from a store (open_model)");
  const std::string folder = io::join(path, kPoolFolder);
  Communicator* const group = memory.is_empty() ? nullptr : memory->group();
  if (group != nullptr && group->rank() > 0) {
    dist::barrier(*group);  // there is a folder to write to
    nn::WrittenFiles files = save_pool(fs, memory, folder, generation);
    dist::barrier(*group);
    return files;
  }
  save_weights(fs, model, path);
  nn::WrittenFiles files;
  if (!memory.is_empty()) {
    io::make_folders(fs, folder);
    if (group != nullptr) dist::barrier(*group);
    files = save_pool(fs, memory, folder, generation);
    if (group != nullptr) dist::barrier(*group);  // all is written
  }
  save_config(fs, model, path);
  return files;
}

void save_dense(io::FileSystem& fs, const Llama& model, const std::string& path) {
  save_weights(fs, model, path);
  save_config(fs, model, path);
}

StoreReader open_pool(io::FileSystem& fs, const ModelConfig& config, const std::string& folder,
                      const StoreOptions& options) {
  StoreOptions with_model = options;
  with_model.sub_keys = sub_key_grid(config);
  StoreReader store = StoreReader::open(fs, folder, with_model);
  const Snapshot rows = store.snapshot();
  const std::int64_t slots = config.memory->slots();
  const bool was_edited = rows.version() > 0;  // a pool grows by an edit
  if ((rows.rows() == slots || (was_edited && rows.rows() > slots)) &&
      rows.width() == config.row_width() && rows.row_dtype() == config.memory->row_dtype) {
    return store;
  }
  throw Error(folder + ": expected " + std::to_string(slots) + " rows of " +
              std::to_string(config.row_width()) + " " + row_type_name(config.memory->row_dtype) +
              " by config.json, got " + std::to_string(rows.rows()) + " of " +
              std::to_string(rows.width()) + " " + row_type_name(rows.row_dtype()));
}

Llama load_model(const std::string& path, const std::optional<std::string>& pool_folder,
                 const MemoryGroup& group) {
  io::FileSystem& fs = io::posix();
  const ModelConfig config = io::read_model_config(fs, io::join(path, "config.json"));
  Llama model(config, std::nullopt, pool_folder, group);
  load_dense(model, fs, path);
  if (!model->pool().is_empty()) {
    MemoryPool memory = model->pool();
    const nn::ReadTable read =
        nn::read_table(fs, io::join(path, kPoolFolder), memory, {kRows, memory->values.detach()},
                       {.must_be_finite = true});
    memory->id = read.pool;
    for (auto& [number, layer] : model->memory_layers()) {
      at::Tensor keys = layer->keys.detach();
      if (read.sub_keys != nullptr) nn::write_sub_keys(*read.sub_keys, number, keys);
    }
  }
  return model;
}

Llama open_model(const std::string& path, const StoreOptions& options) {
  return open_model(io::posix(), path, options);
}

Llama open_model(io::FileSystem& fs, const std::string& path, const StoreOptions& options) {
  const ModelConfig config = io::read_model_config(fs, io::join(path, "config.json"));
  std::shared_ptr<StoreReader> store;
  if (!config.memory_layers().empty()) {
    store =
        std::make_shared<StoreReader>(open_pool(fs, config, io::join(path, kPoolFolder), options));
  }
  Llama model(config, store);
  load_dense(model, fs, path);
  nn::to_huge_pages(model->dense_parameters());
  return model;
}

}  // namespace memlayers
