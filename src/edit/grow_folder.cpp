// SPDX-License-Identifier: Apache-2.0
// Growth of a model folder. A new one is made, of what stays, linked or copied, and of what
// changes.
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "edit/grown.h"
#include "io/folder.h"
#include "io/json.h"
#include "io/json_field.h"
#include "io/mapped_read.h"
#include "io/model_config.h"
#include "memlayers/error.h"
#include "memlayers/grow.h"
#include "memlayers/ops.h"
#include "memlayers/store.h"
#include "nn/model_folder.h"
#include "nn/unset_weights.h"
#include "pool/chunks.h"
#include "pool/growth.h"
#include "pool/random_rows.h"
#include "pool/row_format.h"
#include "pool/store_parts.h"
#include "train/row_state_files.h"
#include "train/run_state.h"
#include "train/tensor_file.h"

namespace memlayers {
namespace {

constexpr const char* kLock = "LOCK";
constexpr const char* kTrainConfig = "training.toml";

// Rows as a new model has them.
void make_rows(const ModelConfig& config, std::uint64_t seed, std::int64_t first,
               std::span<std::byte> out) {
  const RowType type = config.memory->row_dtype;
  const std::int64_t width = config.row_width();
  const double std = 1 / std::sqrt(static_cast<double>(config.value_dim()));
  const std::int64_t row_bytes = pool::row_format(type, width).bytes();
  const std::int64_t end = first + static_cast<std::int64_t>(out.size()) / row_bytes;
  if (!is_quantized(type)) {
    pool::fill_normal(out.data(), type, width, first, end, std, seed);
    return;
  }
  constexpr std::int64_t kAtOnce = 1024;
  for (std::int64_t row = first; row < end; row += kAtOnce) {
    const at::Tensor part = at::empty({std::min(kAtOnce, end - row), width}, at::kFloat);
    pool::fill_normal(static_cast<std::byte*>(part.mutable_data_ptr()), RowType::kFloat32, width,
                      row, row + part.size(0), std, seed);
    const at::Tensor rows = quantize_rows(part, type);
    std::memcpy(out.data() + (row - first) * row_bytes, rows.const_data_ptr(), rows.nbytes());
  }
}

// Of the files outside pool/ those that a grown model has others of.
std::set<std::string> changed_files(io::FileSystem& fs, const std::string& folder) {
  std::set<std::string> names{"config.json", io::kModelingFile, "model.safetensors",
                              train::kUsageFile, kTrainConfig};
  const std::string index = "model.safetensors.index.json", path = io::join(folder, index);
  if (!fs.exists(path)) return names;
  names.insert(index);  // its weights go into one file
  const nlohmann::json json = io::parse_json(io::read_text(fs, path), path);
  for (const auto& [tensor, file] : io::JsonField(json, path).at("weight_map").members()) {
    names.insert(file.string());
  }
  return names;
}

// Reads that were counted; none of the new slots.
void write_usage(io::FileSystem& fs, const std::string& folder, std::int64_t before,
                 std::int64_t slots, io::FolderWriter& next) {
  const std::string path = io::join(folder, train::kUsageFile);
  if (!fs.exists(path)) return;
  const io::SafetensorsFile file = io::SafetensorsFile::open(fs, path);
  const io::TensorView& view = train::expect_tensor(file, "reads", at::kLong, {before});
  const at::Tensor reads = at::zeros({slots}, at::kLong);
  io::copy_mapped(reads.mutable_data_ptr(), view.bytes);
  train::write_tensors(fs, next.file(train::kUsageFile), {{"reads", reads}}, file.metadata());
}

// What a resumed run is compared with.
void write_train_config(io::FileSystem& fs, const std::string& folder, std::int64_t n_keys,
                        io::FolderWriter& next) {
  const std::string path = io::join(folder, kTrainConfig);
  if (!fs.exists(path)) return;
  TrainConfig config = load_train_config(path, {});
  // Of a run with `init` [memory] says nothing: that folder did.
  if (!config.init && config.model.memory) config.model.memory->n_keys = n_keys;
  next.write_text(kTrainConfig, to_toml(config));
}

std::uint64_t bytes_of(io::FileSystem& fs, const std::string& folder,
                       const std::vector<std::string>& files) {
  std::uint64_t bytes = 0;
  for (const std::string& name : files) {
    bytes += fs.open(io::join(folder, name), io::OpenMode::kRead)->size();
  }
  return bytes;
}

void check_can_grow(io::FileSystem& fs, const std::string& folder, const Llama& model,
                    std::int64_t n_keys) {
  if (model->pool().is_empty()) {
    throw Error(folder + ": expected a model with memory layers, got one without a pool");
  }
  if (model->config().weights) {
    throw Error(folder + ": expected weights of type float32 or bfloat16 to grow, got " +
                row_type_name(*model->config().weights));
  }
  if (model->config().memory->is_ngram()) {
    throw Error(folder +
                ": variant: expected a memory with keys to grow, got \"ngram\", whose rows "
                "would change places");
  }
  if (n_keys <= model->config().memory->n_keys) {
    throw Error(folder + ": n_keys: expected more than the model's " +
                std::to_string(model->config().memory->n_keys) + ", got " + std::to_string(n_keys));
  }
  if (fs.exists(io::join(folder, "trainer.json")) &&
      train::load_state_version(fs, folder) < train::kStateVersion) {
    throw Error(io::join(folder, "trainer.json") + ": expected version " +
                std::to_string(train::kStateVersion) +
                ", got an older one: train a step, which saves it anew, before it grows");
  }
}

// Tells now, not when all is written, that a file system cannot do it. The lock of the pool is the
// same file before and after: who opened it before waits for all that hold it.
void prepare_exchange(io::FileSystem& fs, const std::string& folder, io::FolderWriter& next) {
  const std::string pool = io::join(folder, "pool");
  try {
    if (fs.is_link(pool)) throw Error(pool + ": expected a folder, got a link to one");
    fs.link(io::join(pool, kLock), next.file(io::join("pool", kLock)));
    const std::string one = io::parent(next.file("one/file"));
    const std::string other = io::parent(next.file("other/file"));
    fs.exchange(one, other);
    fs.remove_folder(one);
    fs.remove_folder(other);
  } catch (const Error& error) {
    throw Error(folder +
                ": cannot be grown in place (-o names a new folder to grow into): " + error.what());
  }
}

}  // namespace

GrownFolder grow_folder(const std::string& folder, std::int64_t n_keys, std::uint64_t seed,
                        const std::optional<std::string>& out) {
  // What is exchanged must be the folder, not a link to it.
  std::error_code error;
  const std::string path = std::filesystem::canonical(folder, error).string();
  return edit::grow_folder(io::posix(), error ? folder : path, n_keys, seed, out);
}

GrownFolder edit::grow_folder(io::FileSystem& fs, const std::string& folder, std::int64_t n_keys,
                              std::uint64_t seed, const std::optional<std::string>& out) {
  const std::string pool = io::join(folder, "pool");
  if (!fs.is_folder(pool)) {
    throw Error(folder + ": expected a model with memory layers, got one without a pool");
  }
  std::unique_ptr<io::Lock> lock;  // until all is done
  if (!out) {
    lock = fs.lock(io::join(pool, kLock));
    if (lock == nullptr) {
      throw Error(io::join(pool, kLock) +
                  ": expected no other writer of this pool, found one at work");
    }
  }
  const Llama model = open_model(fs, folder);
  check_can_grow(fs, folder, model, n_keys);
  const ModelConfig config = edit::grown(model->config(), n_keys);
  config.validate();

  const std::vector<std::string> files =
      io::files_in(fs, folder);  // before `out`, if it lies there
  // A growth of the pool alone may have left some.
  const std::int64_t there = model->pool()->snapshot()->rows();
  const std::int64_t added = std::max<std::int64_t>(0, n_keys * n_keys - there);
  pool::ask_for_rows(fs, io::parent(out.value_or(folder)), added, config.row_width(),
                     config.memory->row_dtype, out ? bytes_of(fs, folder, files) : 0);
  using Place = io::FolderWriter::Place;
  io::FolderWriter next(fs, out.value_or(folder), out ? Place::kNew : Place::kOfAFolder);
  const auto place = [&](const std::string& from, const std::string& to) {
    if (out) return io::copy_file(fs, from, to);
    fs.link(from, to);
  };
  if (!out) prepare_exchange(fs, folder, next);
  const std::string next_pool = io::parent(next.file(io::join("pool", kLock)));
  pool::make_grown_copy(
      fs, pool, next_pool,
      {.count = added,
       .read = [&](std::int64_t first,
                   std::span<std::byte> rows) { make_rows(config, seed, first, rows); }},
      place);
  Llama grown = [&] {
    const nn::UnsetWeights unset;  // copied, or drawn by copy_weights()
    return Llama(config, std::make_shared<StoreReader>(pool::open_reader(fs, next_pool)));
  }();
  edit::copy_weights(model, grown, seed);
  save_dense(fs, grown, io::parent(next.file("config.json")));

  write_usage(fs, folder, model->pool()->slots(), grown->pool()->slots(), next);
  write_train_config(fs, folder, n_keys, next);
  std::map<std::string, io::ManifestEntry> known;
  if (fs.exists(io::join(folder, "MANIFEST.json"))) known = io::read_manifest(fs, folder);
  const std::set<std::string> changed = changed_files(fs, folder);
  for (const std::string& name : files) {
    if (name.starts_with("pool/") || changed.contains(name)) continue;
    place(io::join(folder, name), next.file(name));
    if (const auto entry = known.find(name); entry != known.end()) next.add(name, entry->second);
  }
  next.commit();
  return {.n_keys_before = model->config().memory->n_keys,
          .n_keys = n_keys,
          .open_keys = *config.memory->open_keys};
}

}  // namespace memlayers
