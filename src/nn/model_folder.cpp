// SPDX-License-Identifier: Apache-2.0
// A model in Hugging Face's layout: config.json, model.safetensors, pool/.
#include "nn/model_folder.h"

#include <algorithm>
#include <map>
#include <span>

#include "dist/collectives.h"
#include "io/folder.h"
#include "io/model_config.h"
#include "io/model_source.h"
#include "io/safetensors.h"
#include "memlayers/error.h"
#include "memlayers/llama.h"
#include "nn/free_memory.h"
#include "nn/huge_pages.h"
#include "nn/packed_weights.h"
#include "nn/pool_tables.h"
#include "nn/product_keys.h"
#include "nn/table.h"
#include "nn/unset_weights.h"
#include "ops/linear/weights.h"
#include "ops/parallel.h"
#include "pool/finite.h"
#include "pool/store_parts.h"

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

at::ScalarType scalar_type(io::ElementType type) {
  if (type == io::ElementType::kF32) return torch::kFloat;
  return type == io::ElementType::kBF16 ? torch::kBFloat16 : torch::kHalf;
}

// Copies a weight in pieces, each of which leaves memory before the next and is looked at while it
// is in the cache.
void read_weight(const io::ModelSource& source, const std::string& name, at::Tensor& parameter) {
  const at::ScalarType stored = scalar_type(source.weights().at(name).type);
  const auto stored_bytes = static_cast<std::int64_t>(c10::elementSize(stored));
  const RowType type = ops::row_type(parameter.scalar_type());
  constexpr std::int64_t kAtOnce = 1 << 18;
  const std::int64_t numbers = parameter.numel(), pieces = (numbers + kAtOnce - 1) / kAtOnce;
  at::Tensor flat = parameter.detach().view({numbers});
  ops::parallel_ranges(pieces, kAtOnce, [&](std::int64_t first, std::int64_t last) {
    const torch::NoGradGuard no_grad;  // of this thread
    at::Tensor buffer;
    for (std::int64_t piece = first; piece < last; ++piece) {
      const std::int64_t begin = piece * kAtOnce, count = std::min(kAtOnce, numbers - begin);
      at::Tensor to = flat.narrow(0, begin, count);
      const bool is_same = stored == to.scalar_type();
      if (!is_same && !buffer.defined()) buffer = torch::empty({kAtOnce}, torch::dtype(stored));
      at::Tensor from = is_same ? to : buffer.narrow(0, 0, count);
      source.read(name, begin,
                  {static_cast<std::byte*>(from.mutable_data_ptr()),
                   static_cast<std::size_t>(count * stored_bytes)});
      if (!is_same) to.copy_(from);
      if (!pool::all_finite(nn::bytes_of(to), type, count)) {
        throw Error(source.path() + ": tensor \"" + name +
                    "\": expected finite weights, got NaN or infinity");
      }
    }
  });
}

// Where the others are to lie is known when those in blocks have their place.
void load_dense(Llama& model, const io::ModelSource& source, bool is_for_reading) {
  nn::read_packed(model, source);
  if (is_for_reading) nn::make_room_in_huge_pages(model->dense_parameters());
  for (auto& [name, parameter] : model->dense_parameters()) read_weight(source, name, parameter);
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
  const std::map<std::string, nn::Blocks> packed = nn::packed_blocks(model);
  for (const auto& [name, blocks] : packed) {
    tensors.push_back(
        {name, io::ElementType::kU8, blocks.bytes.sizes().vec(), nn::bytes_of(blocks.bytes)});
  }
  io::write_safetensors(fs, io::join(path, "model.safetensors"), tensors, {{"format", "pt"}});
}

void save_config(io::FileSystem& fs, const Llama& model, const std::string& path) {
  const ModelConfig& config = model->config();
  if (!config.memory_layers().empty() || config.experts > 1) {
    io::write_atomic(fs, io::join(path, io::kModelingFile), io::kModelingText);
  }
  io::write_atomic(fs, io::join(path, "config.json"), io::model_config_json(config));
}

// A copy of lagging rows catches up: that a model is saved makes no difference to the bits of its
// training.
nn::PoolTable rows_to_save(const MemoryPool& memory) {
  nn::PoolTable table{kRows, memory->values.detach().to(torch::kCPU).contiguous()};
  if (const auto lag = memory->tables().lag(); lag != nullptr) {
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

std::uint64_t bytes_to_save(const Llama& model) {
  std::uint64_t bytes = 0;
  for (const auto& [name, parameter] : model->dense_parameters()) bytes += parameter.nbytes();
  const auto add_packed = [&](const ops::Weights* weights) {
    if (weights != nullptr) bytes += weights->stored.nbytes();
  };
  add_packed(model->embedding()->packed());
  for (auto& [name, linear] : model->packable_linears()) add_packed(linear->packed());
  if (model->pool().is_empty()) return bytes;
  return bytes + nn::bytes_of_chunks(model->pool(), model->pool()->values);
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
  io::ask_for_room(fs, path, bytes_to_save(model));  // before the first of them is written
  save_weights(fs, model, path);
  nn::WrittenFiles files;
  if (!memory.is_empty()) {
    io::make_folders(fs, folder);
    if (group != nullptr) dist::barrier(*group);
    files = save_pool(fs, memory, folder, generation);
    if (group != nullptr) dist::barrier(*group);  // all is written
  }
  io::write_atomic(fs, io::join(path, "generation_config.json"),
                   io::generation_config_json(model->config()));
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
  StoreReader store = pool::open_reader(fs, folder, with_model);
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

namespace {

// A source whose blocks are numbers like others.
class Widened : public io::ModelSource {
 public:
  explicit Widened(std::unique_ptr<io::ModelSource> source)
      : source_(std::move(source)), config_(source_->config()) {
    config_.weights.reset();
  }
  const std::string& path() const override { return source_->path(); }
  const ModelConfig& config() const override { return config_; }
  const std::map<std::string, Weight>& weights() const override { return source_->weights(); }
  void read(const std::string& weight, std::int64_t first,
            std::span<std::byte> out) const override {
    source_->read(weight, first, out);
  }
  const io::gguf::TensorType* blocks(const std::string& /*weight*/) const override {
    return nullptr;
  }
  void read_blocks(const std::string& weight, std::int64_t row,
                   std::span<std::byte> out) const override {
    source_->read_blocks(weight, row, out);
  }
  std::optional<std::string> text(const std::string& name) const override {
    return source_->text(name);
  }

 private:
  std::unique_ptr<io::ModelSource> source_;
  ModelConfig config_;
};

Llama load_from(io::FileSystem& fs, const std::string& path, const io::ModelSource& source,
                const std::optional<std::string>& pool_folder, const MemoryGroup& group) {
  Llama model = [&] {
    const nn::UnsetWeights unset;
    return Llama(source.config(), std::nullopt, pool_folder, group);
  }();
  load_dense(model, source, /*is_for_reading=*/false);
  if (!model->pool().is_empty()) {
    MemoryPool memory = model->pool();
    const nn::ReadTable read = nn::read_table(fs, io::join(path, kPoolFolder), memory,
                                              {kRows, memory->values.detach()}, {});
    memory->id = read.pool;
    for (auto& [number, layer] : model->memory_layers()) {
      if (read.sub_keys == nullptr || !layer->keys.defined()) continue;
      at::Tensor keys = layer->keys.detach();
      nn::write_sub_keys(*read.sub_keys, number, keys);
    }
  }
  return model;
}

}  // namespace

Llama load_model(const std::string& path, const std::optional<std::string>& pool_folder,
                 const MemoryGroup& group) {
  io::FileSystem& fs = io::posix();
  const auto source = io::open_model_source(fs, path);
  return nn::with_memory_for(path,
                             [&] { return load_from(fs, path, *source, pool_folder, group); });
}

Llama load_widened(io::FileSystem& fs, const std::string& path) {
  const Widened source(io::open_model_source(fs, path));
  return nn::with_memory_for(path, [&] { return load_from(fs, path, source, {}, {}); });
}

Llama open_model(const std::string& path, const StoreOptions& options) {
  return open_model(io::posix(), path, options);
}

Llama open_model(io::FileSystem& fs, const std::string& path, const StoreOptions& options) {
  const auto source = io::open_model_source(fs, path);
  const ModelConfig& config = source->config();
  std::shared_ptr<StoreReader> store;
  if (!config.memory_layers().empty()) {
    store =
        std::make_shared<StoreReader>(open_pool(fs, config, io::join(path, kPoolFolder), options));
  }
  return nn::with_memory_for(path, [&] {
    Llama model = [&] {
      const nn::UnsetWeights unset;
      return Llama(config, store);
    }();
    load_dense(model, *source, /*is_for_reading=*/true);
    return model;
  });
}

}  // namespace memlayers
