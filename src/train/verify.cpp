// SPDX-License-Identifier: Apache-2.0
#include "train/verify.h"

#include <torch/types.h>

#include <algorithm>
#include <optional>

#include "io/mapped_read.h"
#include "io/safetensors.h"
#include "io/shown.h"
#include "memlayers/error.h"
#include "nn/finite.h"
#include "pool/chunks.h"
#include "train/row_state_files.h"

namespace memlayers::train {
namespace {

constexpr std::int64_t kAtOnce = 1 << 20;  // numbers

std::optional<at::ScalarType> number_type(io::ElementType type) {
  switch (type) {
    case io::ElementType::kF32:
      return at::kFloat;
    case io::ElementType::kF64:
      return at::kDouble;
    case io::ElementType::kBF16:
      return at::kBFloat16;
    case io::ElementType::kI32:
      return at::kInt;
    case io::ElementType::kI64:
      return at::kLong;
    default:
      return std::nullopt;  // the state of a random generator: any bytes
  }
}

// Counts of steps and reads, and means of squares.
bool is_at_least_0(const std::string& tensor) {
  return tensor == "steps" || tensor == "reads" || tensor == "usage" ||
         tensor.starts_with("exp_avg_sq");
}

void verify_tensor(const io::SafetensorsFile& file, const std::string& name,
                   const io::TensorView& view) {
  const auto type = number_type(view.type);
  if (!type) return;
  const std::string where = file.path() + ": tensor " + io::shown(name);
  const std::int64_t size = io::element_bytes(view.type);
  const auto count = static_cast<std::int64_t>(view.bytes.size()) / size;
  for (std::int64_t first = 0; first < count; first += kAtOnce) {
    const std::int64_t some = std::min(kAtOnce, count - first);
    const auto part = view.bytes.subspan(static_cast<std::size_t>(first * size),
                                         static_cast<std::size_t>(some * size));
    const at::Tensor numbers = at::empty({some}, *type);
    io::copy_mapped(numbers.mutable_data_ptr(), part);
    file.release(part);
    nn::check_finite(numbers, where);
    if (is_at_least_0(name) && !(numbers >= 0).all().item<bool>()) {
      throw Error(where + ": expected numbers of at least 0, got others");
    }
  }
}

// Rows of the optimizer's, in chunks as the pool's are.
void verify_chunk(io::FileSystem& files, const std::string& path) {
  const pool::Chunk chunk = pool::open_chunk(files, path);
  const pool::RowsFile& rows = chunk.file;
  const std::int64_t at_once = std::max<std::int64_t>(1, (4 << 20) / rows.stride());
  for (std::int64_t first = 0; first < rows.rows(); first += at_once) {
    const std::int64_t count = std::min(at_once, rows.rows() - first);
    rows.check(first, count);
    rows.release(first, count);
  }
}

void verify_file(io::FileSystem& files, const std::string& path) {
  const io::SafetensorsFile file = io::SafetensorsFile::open(files, path);
  if (file.tensors().contains("xxh3")) return verify_chunk(files, path);
  for (const auto& [name, view] : file.tensors()) verify_tensor(file, name, view);
}

}  // namespace

void verify_run_files(io::FileSystem& files, const std::string& checkpoint) {
  const std::string usage = io::join(checkpoint, kUsageFile);
  if (files.exists(usage)) verify_file(files, usage);
  const std::string optimizer = io::join(checkpoint, "optimizer");
  if (!files.is_folder(optimizer)) return;
  for (const std::string& name : files.list(optimizer)) {
    if (name.ends_with(".safetensors")) verify_file(files, io::join(optimizer, name));
  }
}

}  // namespace memlayers::train
