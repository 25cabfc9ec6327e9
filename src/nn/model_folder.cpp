// SPDX-License-Identifier: Apache-2.0
// A model in Hugging Face's layout: config.json, model.safetensors, pool/.
#include "nn/model_folder.h"

#include <algorithm>
#include <map>
#include <set>
#include <span>

#include "io/folder.h"
#include "io/model_config.h"
#include "io/safetensors.h"
#include "memlayers/error.h"
#include "memlayers/llama.h"
#include "nn/table.h"
#include "nn/whole_rows.h"
#include "ops/parallel.h"
#include "pool/chunks.h"
#include "pool/row_format.h"

namespace memlayers {
namespace {

constexpr const char* kPoolFolder = "pool";

io::ElementType element_type(const at::Tensor& tensor, const std::string& where) {
  if (tensor.scalar_type() == torch::kFloat) return io::ElementType::kF32;
  if (tensor.scalar_type() == torch::kBFloat16) return io::ElementType::kBF16;
  throw Error(where + ": expected weights of type Float or BFloat16 to save, got " +
              c10::toString(tensor.scalar_type()));
}

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
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

// Of rows [begin, end) of the whole pool, those columns of those that this process holds.
void keep_part(MemoryPool& memory, std::span<const std::byte> rows, std::int64_t begin,
               std::int64_t end) {
  const PoolPart& part = memory->part();
  const std::int64_t size = memory->values.element_size();
  auto* data = static_cast<std::byte*>(memory->values.mutable_data_ptr());
  const std::int64_t first = begin <= part.first_slot
                                 ? 0
                                 : (begin - part.first_slot + part.slot_step - 1) / part.slot_step;
  for (std::int64_t row = first; row < part.rows && part.slot(row) < end; ++row) {
    const std::byte* from = rows.data() + (part.slot(row) - begin) * part.row_width * size;
    std::byte* to = data + row * part.width() * size;
    for (const PoolPart::Columns& range : part.columns) {
      to = std::copy_n(from + range.first * size, range.width * size, to);
    }
  }
}

void load_pool(Llama& model, io::FileSystem& fs, const std::string& folder) {
  MemoryPool memory = model->pool();
  const Snapshot stored = open_pool(fs, model->config(), folder).snapshot();
  const std::int64_t slots = memory->slots();
  at::Tensor& values = memory->values;
  const std::int64_t row_bytes = stored.row_bytes();
  auto* data = static_cast<std::byte*>(values.mutable_data_ptr());
  // In pieces, each of which leaves memory before the next: what is held is the pool.
  const std::int64_t at_once = std::max<std::int64_t>(1, (4 << 20) / row_bytes);
  const std::int64_t pieces = (slots + at_once - 1) / at_once;
  ops::parallel_ranges(pieces, at_once * row_bytes, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t piece = first; piece < last; ++piece) {
      const std::int64_t begin = piece * at_once, end = std::min(slots, begin + at_once);
      const auto bytes = static_cast<std::size_t>((end - begin) * row_bytes);
      std::vector<std::byte> whole(memory->is_sharded() ? bytes : 0);
      const std::span<std::byte> rows =
          memory->is_sharded() ? std::span(whole) : std::span{data + begin * row_bytes, bytes};
      stored.read(begin, rows);
      if (memory->is_sharded()) keep_part(memory, rows, begin, end);
      stored.release(begin, end - begin);
      memory->write_back();
      if (!pool::all_finite(rows, stored.row_dtype(), stored.width())) {
        throw Error(folder + ": expected finite rows, got NaN or infinity in rows " +
                    std::to_string(begin) + " to " + std::to_string(end));
      }
    }
  });
  memory->id = stored.pool_id();
}

// A copy of lagging rows catches up: that a model is saved makes no difference to the bits of its
// training.
nn::WholeRows rows_to_save(const MemoryPool& memory) {
  const at::Tensor values = memory->values.detach();
  const auto lag = memory->lag();
  return {memory, values.element_size(), /*is_one_number=*/false,
          [values, lag](std::int64_t first, std::span<std::byte> out) {
            if (lag != nullptr) {
              lag->read(first, out);
              return;
            }
            const auto at =
                static_cast<std::size_t>(first * values.size(1) * values.element_size());
            std::ranges::copy(bytes_of(values).subspan(at, out.size()), out.begin());
          }};
}

}  // namespace

void save_model(const Llama& model, const std::string& path) {
  save_model(io::posix(), model, path);
}

void save_model(io::FileSystem& fs, const Llama& model, const std::string& path) {
  if (!model->pool().is_empty() && model->pool()->is_sharded() &&
      model->pool()->group()->rank() > 0) {
    rows_to_save(model->pool()).serve();
    return;
  }
  std::vector<io::TensorToWrite> tensors;
  std::vector<at::Tensor> kept;  // contiguous copies live until they are written
  for (const auto& [name, parameter] : model->dense_parameters()) {
    kept.push_back(parameter.detach().to(torch::kCPU).contiguous());
    const at::Tensor& tensor = kept.back();
    const io::ElementType type = element_type(tensor, path + ": tensor \"" + name + "\"");
    tensors.push_back({name, type, tensor.sizes().vec(), bytes_of(tensor)});
  }
  io::write_safetensors(fs, io::join(path, "model.safetensors"), tensors, {{"format", "pt"}});
  if (!model->pool().is_empty()) {
    const MemoryPool memory = model->pool();
    TORCH_CHECK_VALUE(!memory->snapshot(),
                      "save_model: expected a model that holds its pool (load_model), got one that "
                      "reads it from a store (open_model)");
    const at::Tensor values = memory->values.detach().to(torch::kCPU).contiguous();
    const std::string folder = io::join(path, kPoolFolder);
    const at::ScalarType wanted = nn::element_type(memory->options().row_dtype);
    if (values.scalar_type() != wanted) {  // the model was moved to another type
      throw Error(folder + ": expected rows of type " + c10::toString(wanted) +
                  " by the model's configuration, got " + c10::toString(values.scalar_type()));
    }
    io::make_folders(fs, folder);
    if (memory->lag() != nullptr || memory->is_sharded()) {
      nn::WholeRows rows = rows_to_save(memory);
      pool::write_chunks(
          fs, folder, "chunk",
          pool::RowsSource{
              [&](std::int64_t first, std::span<std::byte> out) { rows.read(first, out); },
              memory->slots(), memory->width(), memory->options().row_dtype},
          memory->id, 0);
      rows.finish();
    } else {
      pool::write_chunks(fs, folder, "chunk",
                         pool::RowsView{bytes_of(values).data(), memory->slots(), memory->width(),
                                        memory->options().row_dtype},
                         memory->id, 0);
    }
  }
  io::write_atomic(fs, io::join(path, "config.json"), io::model_config_json(model->config()));
}

StoreReader open_pool(io::FileSystem& fs, const ModelConfig& config, const std::string& folder,
                      const StoreOptions& options) {
  StoreReader store = StoreReader::open(fs, folder, options);
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
  if (!model->pool().is_empty()) load_pool(model, fs, io::join(path, kPoolFolder));
  return model;
}

Llama open_model(const std::string& path, const StoreOptions& options) {
  io::FileSystem& fs = io::posix();
  const ModelConfig config = io::read_model_config(fs, io::join(path, "config.json"));
  std::shared_ptr<StoreReader> store;
  if (!config.memory_layers().empty()) {
    store =
        std::make_shared<StoreReader>(open_pool(fs, config, io::join(path, kPoolFolder), options));
  }
  Llama model(config, store);
  load_dense(model, fs, path);
  return model;
}

}  // namespace memlayers
