// SPDX-License-Identifier: Apache-2.0
// A pool's folder from Python: written from a tensor, and its digest.
#include <torch/library.h>

#include <string>

#include "memlayers/store.h"
#include "nn/table.h"
#include "ops/torch/check.h"
#include "pool/chunks.h"

namespace memlayers::python {
namespace {

std::string pool_digest(std::string folder) {
  return StoreReader::open(folder).snapshot().digest();
}

// The chunks of a pool in `folder`, which must exist and hold none; `id` empty: of a new pool.
void write_pool(std::string folder, const at::Tensor& given, std::string id) {
  constexpr const char* kOp = "write_pool";
  ops::check_dim(kOp, "values", given, 2);
  ops::check_type(kOp, "values", given, {at::kFloat, at::kBFloat16});
  const at::Tensor values = given.detach().to(at::kCPU).contiguous();
  const bool is_float = values.scalar_type() == at::kFloat;
  const pool::RowsView rows{static_cast<const std::byte*>(values.const_data_ptr()), values.size(0),
                            values.size(1), is_float ? RowType::kFloat32 : RowType::kBFloat16};
  pool::ask_for_rows(io::posix(), folder, rows.rows, rows.width, rows.type);
  pool::write_chunks(io::posix(), folder, "chunk", rows, id.empty() ? pool::new_pool_id() : id,
                     /*generation=*/0);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(memlayers, m) {
  m.def("pool_digest(str folder) -> str", &pool_digest);
  m.def("write_pool(str folder, Tensor values, str id) -> ()", &write_pool);
}

}  // namespace memlayers::python
