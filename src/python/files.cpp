// SPDX-License-Identifier: Apache-2.0
// What the Python package reads and writes of model folders, pools and patches: the readers of the
// library as operators, so that a file means the same there and is checked once. All throw Error
// for a file that is not what it should be (RuntimeError in Python), c10's ValueError and TypeError
// for arguments.
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "io/folder.h"
#include "io/mapped_read.h"
#include "io/model_config.h"
#include "io/model_source.h"
#include "io/safetensors.h"
#include "io/shown.h"
#include "memlayers/store.h"
#include "nn/model_folder.h"
#include "nn/table.h"
#include "ops/borrowed.h"
#include "ops/gather/single_rows.h"
#include "ops/torch/check.h"
#include "pool/chunks.h"
#include "pool/overlay.h"
#include "pool/patch.h"
#include "pool/row_format.h"
#include "pool/sub_keys.h"

namespace memlayers::python {
namespace {

using Rows = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

std::byte* data_of(const at::Tensor& tensor) {
  return static_cast<std::byte*>(tensor.mutable_data_ptr());
}

std::string pool_id(std::string folder) { return StoreReader::open(folder).snapshot().pool_id(); }

// The sub-keys that patches write: places [m, 4] int64 (SubKeyPlace) and numbers [m, width].
std::pair<at::Tensor, at::Tensor> tensors_of(const SubKeys& keys) {
  const auto count = static_cast<std::int64_t>(keys.places.size());
  at::Tensor places = at::empty({count, 4}, at::kLong);
  at::Tensor numbers = at::empty({count, keys.width}, at::kFloat);
  std::ranges::copy(pool::place_bytes(keys), data_of(places));
  std::ranges::copy(pool::number_bytes(keys), data_of(numbers));
  return {places, numbers};
}

void check_row_type(const std::string& folder, RowType type) {
  if (!is_quantized(type)) return;
  throw Error(folder + ": expected rows of type float32 or bfloat16, got " + row_type_name(type));
}

// The first `count` rows with their patches, [count, width], and the patched sub-keys.
Rows read_rows(const std::string& folder, const Snapshot& rows, std::int64_t count) {
  check_row_type(folder, rows.row_dtype());
  at::Tensor values = at::empty({count, rows.width()}, nn::element_type(rows.row_dtype()));
  // In pieces, each of which leaves memory before the next: what is held is the table.
  const std::int64_t at_once = std::max<std::int64_t>(1, (4 << 20) / rows.row_bytes());
  for (std::int64_t first = 0; first < count; first += at_once) {
    const std::int64_t some = std::min(at_once, count - first);
    const std::span<std::byte> piece{data_of(values) + first * rows.row_bytes(),
                                     static_cast<std::size_t>(some * rows.row_bytes())};
    rows.read(first, piece);
    rows.release(first, some);
    if (pool::all_finite(piece, rows.row_dtype(), rows.width())) continue;
    throw Error(folder + ": expected finite rows, got NaN or infinity in rows " +
                std::to_string(first) + " to " + std::to_string(first + some - 1));
  }
  const auto patched = rows.sub_keys();
  auto [places, numbers] = tensors_of(patched == nullptr ? pool::Writes::none : *patched);
  return {values, places, numbers};
}

Rows read_pool(std::string folder) {
  const Snapshot rows = StoreReader::open(folder).snapshot();
  return read_rows(folder, rows, rows.rows());
}

at::Tensor read_pool_rows(std::string folder, const at::Tensor& slots) {
  return ops::rows_of(StoreReader::open(folder).snapshot(), slots);
}

std::string write_pool_row(std::string folder, std::int64_t slot, const at::Tensor& row) {
  constexpr const char* kOp = "write_pool_row";
  Store store = Store::open(folder);
  const Snapshot now = store.snapshot();
  TORCH_CHECK_INDEX(slot >= 0 && slot < now.rows(), kOp, ": expected a slot in [0, ", now.rows(),
                    "), got ", slot);
  return ops::write_row(store, slot, ops::encode_row(kOp, row, now.row_dtype(), now.width()),
                        "write");
}

// A copy of a dense weight as it is stored.
at::Tensor weight_of(const io::TensorView& view, const std::string& where) {
  at::ScalarType type = at::kFloat;
  if (view.type == io::ElementType::kBF16) {
    type = at::kBFloat16;
  } else if (view.type == io::ElementType::kF16) {
    type = at::kHalf;
  } else if (view.type != io::ElementType::kF32) {
    throw Error(where + ": expected a tensor of type F32, BF16 or F16, got " +
                std::string(io::element_name(view.type)));
  }
  at::Tensor weight = at::empty(view.shape, type);
  io::copy_mapped(weight.mutable_data_ptr(), view.bytes);
  if (!at::isfinite(weight).all().item<bool>()) {
    throw Error(where + ": expected finite weights, got NaN or infinity");
  }
  return weight;
}

// The memory of the model in `folder`: config.json as it was understood; the names and numbers of
// the tensors model.layers.<N>.memory.*; the pool as read_pool().
std::tuple<std::string, std::vector<std::string>, std::vector<at::Tensor>, at::Tensor, at::Tensor,
           at::Tensor>
read_memory(std::string folder) {
  io::FileSystem& fs = io::posix();
  const std::string path = io::join(folder, "config.json");
  const ModelConfig config = io::read_model(fs, folder);
  if (config.memory_layers().empty()) {
    throw Error(path + ": expected a model with memory, found no memlayers.memory");
  }
  std::vector<std::string> names;
  std::vector<at::Tensor> weights;
  const io::SafetensorsFolder files = io::SafetensorsFolder::open(fs, folder);
  for (const auto& [name, view] : files.tensors()) {
    if (name.find(".memory.") == std::string::npos) continue;
    names.push_back(name);
    weights.push_back(weight_of(view, folder + ": tensor " + io::quote(name)));
  }
  const std::string pool_folder = io::join(folder, "pool");
  check_row_type(pool_folder, config.memory->row_dtype);
  const Snapshot rows = open_pool(fs, config, pool_folder).snapshot();
  auto [values, places, numbers] = read_rows(pool_folder, rows, config.memory->slots());
  return {io::model_config_json(config), names, weights, values, places, numbers};
}

// int64 [n, ...], from integers of any width.
at::Tensor integers(const char* name, const at::Tensor& tensor, std::int64_t dim) {
  constexpr const char* kOp = "write_patch";
  ops::check_dim(kOp, name, tensor, dim);
  TORCH_CHECK_TYPE(at::isIntegralType(tensor.scalar_type(), /*includeBool=*/false), kOp,
                   ": expected ", name, " of a type of integers, got ", tensor.scalar_type());
  return tensor.detach().to(at::kCPU, at::kLong).contiguous();
}

std::vector<std::int64_t> list_of(const at::Tensor& numbers) {  // int64, contiguous
  const auto* data = numbers.const_data_ptr<std::int64_t>();
  return {data, data + numbers.numel()};
}

// Where the i-th smallest of n things is.
template <class Key>
std::vector<std::int64_t> ascending(std::int64_t n, const Key& key) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::ranges::stable_sort(order, {}, key);
  return order;
}

at::Tensor in_order(const at::Tensor& tensor, const std::vector<std::int64_t>& order) {
  return tensor.index_select(
      0, ops::borrowed(order.data(), {static_cast<std::int64_t>(order.size())}));
}

void take_rows(Patch& patch, const at::Tensor& slots_in, const at::Tensor& rows_in,
               const at::Tensor& erased) {
  const at::Tensor slots = integers("slots", slots_in, 1);
  ops::check_dim("write_patch", "rows", rows_in, 2);
  ops::check_type("write_patch", "rows", rows_in, {at::kFloat, at::kBFloat16});
  TORCH_CHECK_VALUE(rows_in.size(0) == slots.size(0) && rows_in.size(1) >= 1,
                    "write_patch: expected rows [", slots.size(0), ", width] for slots [",
                    slots.size(0), "], got ", rows_in.sizes());
  patch.width = rows_in.size(1);
  patch.row_dtype = rows_in.scalar_type() == at::kFloat ? RowType::kFloat32 : RowType::kBFloat16;
  const std::vector<std::int64_t> given = list_of(slots);
  std::vector<std::int64_t> order =
      ascending(slots.size(0), [&](std::int64_t i) { return given[static_cast<std::size_t>(i)]; });
  for (const std::int64_t i : order) patch.slots.push_back(given[static_cast<std::size_t>(i)]);
  const at::Tensor rows = in_order(rows_in.detach().to(at::kCPU), order).contiguous();
  const std::span<const std::byte> bytes = nn::bytes_of(rows);
  patch.rows.assign(bytes.begin(), bytes.end());
  patch.erased = list_of(integers("erased", erased, 1));
  std::ranges::sort(patch.erased);
}

void take_sub_keys(Patch& patch, const at::Tensor& places_in, const at::Tensor& keys_in) {
  const at::Tensor places = integers("key_places", places_in, 2);
  ops::check_dim("write_patch", "keys", keys_in, 2);
  TORCH_CHECK_TYPE(at::isFloatingType(keys_in.scalar_type()),
                   "write_patch: expected keys of a type of floating point, got ",
                   keys_in.scalar_type());
  TORCH_CHECK_VALUE(places.size(1) == 4 && places.size(0) == keys_in.size(0),
                    "write_patch: expected key_places [k, 4] for keys [k, k_dim / 2], got ",
                    places.sizes(), " for ", keys_in.sizes());
  if (places.size(0) == 0) return;
  const auto* numbers = places.const_data_ptr<std::int64_t>();
  const auto place = [numbers](std::int64_t i) {
    const std::int64_t* const at = numbers + 4 * i;
    return SubKeyPlace{at[0], at[1], at[2], at[3]};
  };
  std::vector<std::int64_t> order = ascending(places.size(0), place);
  const at::Tensor keys = in_order(keys_in.detach().to(at::kCPU, at::kFloat), order).contiguous();
  patch.sub_keys.width = keys.size(1);
  for (const std::int64_t i : order) patch.sub_keys.places.push_back(place(i));
  const auto* data = keys.const_data_ptr<float>();
  patch.sub_keys.numbers.assign(data, data + keys.numel());
}

// What holds for a patch of any pool of its width.
void check_patch_alone(const Patch& patch) {
  const pool::PoolInfo any{patch.pool, std::numeric_limits<std::int64_t>::max(), patch.width,
                           patch.row_dtype};
  SubKeyGrid grid{.layers = {},
                  .heads = std::numeric_limits<std::int64_t>::max(),
                  .n_keys = std::numeric_limits<std::int64_t>::max(),
                  .width = patch.sub_keys.width};
  for (const SubKeyPlace& place : patch.sub_keys.places) {
    if (grid.layers.empty() || grid.layers.back() != place.layer)
      grid.layers.push_back(place.layer);
  }
  try {
    pool::check_patch(patch, any, grid);
  } catch (const Error& error) {
    TORCH_CHECK_VALUE(false, "write_patch: ", error.what());
  }
}

void write_patch(std::string path, std::string id, std::string pool, const at::Tensor& slots,
                 const at::Tensor& rows, const at::Tensor& erased, const at::Tensor& key_places,
                 const at::Tensor& keys, const c10::Dict<std::string, std::string>& notes,
                 const at::Tensor& subjects) {
  Patch patch{.id = std::move(id), .pool = std::move(pool)};
  take_rows(patch, slots, rows, erased);
  take_sub_keys(patch, key_places, keys);
  for (const auto& note : notes) patch.notes[note.key()] = note.value();
  if (subjects.numel() > 0) {
    TORCH_CHECK_VALUE(subjects.scalar_type() == at::kByte && subjects.dim() == 1,
                      "write_patch: subjects: expected bytes, got another tensor");
    const at::Tensor bytes = subjects.contiguous();
    patch.subjects = subjects_of(std::as_bytes(std::span(bytes.const_data_ptr<std::uint8_t>(),
                                                         static_cast<std::size_t>(bytes.numel()))),
                                 "write_patch: subjects");
  }
  check_patch_alone(patch);
  memlayers::write_patch(path, patch);
}

// id, pool, slots, rows, erased, places and numbers of sub-keys, notes, bytes of the subjects.
std::tuple<std::string, std::string, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor,
           c10::Dict<std::string, std::string>, at::Tensor>
read_patch(std::string path) {
  const Patch patch = memlayers::read_patch(path);
  check_row_type(path, patch.row_dtype);
  const auto list = [](const std::vector<std::int64_t>& numbers) {
    at::Tensor tensor = at::empty({static_cast<std::int64_t>(numbers.size())}, at::kLong);
    std::ranges::copy(numbers, tensor.mutable_data_ptr<std::int64_t>());
    return tensor;
  };
  at::Tensor rows = at::empty({static_cast<std::int64_t>(patch.slots.size()), patch.width},
                              nn::element_type(patch.row_dtype));
  std::ranges::copy(patch.rows, data_of(rows));
  auto [places, numbers] = tensors_of(patch.sub_keys);
  c10::Dict<std::string, std::string> notes;
  for (const auto& [name, text] : patch.notes) notes.insert(name, text);
  const std::vector<std::byte> bytes =
      patch.subjects.empty() ? std::vector<std::byte>{} : to_bytes(patch.subjects);
  at::Tensor subjects = at::empty({static_cast<std::int64_t>(bytes.size())}, at::kByte);
  std::ranges::copy(bytes, data_of(subjects));
  return {patch.id, patch.pool, list(patch.slots), rows, list(patch.erased), places,
          numbers,  notes,      subjects};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(memlayers, m) {
  m.def("pool_id(str folder) -> str", &pool_id);
  m.def("read_pool(str folder) -> (Tensor values, Tensor key_places, Tensor keys)", &read_pool);
  m.def("read_pool_rows(str folder, Tensor slots) -> Tensor", &read_pool_rows);
  m.def("write_pool_row(str folder, int slot, Tensor row) -> str", &write_pool_row);
  m.def(
      "read_memory(str folder) -> (str config, str[] names, Tensor[] weights, Tensor values, "
      "Tensor key_places, Tensor keys)",
      &read_memory);
  m.def(
      "read_patch(str path) -> (str id, str pool, Tensor slots, Tensor rows, Tensor erased, "
      "Tensor key_places, Tensor keys, Dict(str, str) notes, Tensor subjects)",
      &read_patch);
  m.def(
      "write_patch(str path, str id, str pool, Tensor slots, Tensor rows, Tensor erased, "
      "Tensor key_places, Tensor keys, Dict(str, str) notes, Tensor subjects) -> ()",
      &write_patch);
}

}  // namespace memlayers::python
