// SPDX-License-Identifier: Apache-2.0
#include "memlayers/pool.h"

#include <torch/types.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "memlayers/error.h"
#include "memlayers/ops.h"
#include "nn/gradient_record.h"
#include "nn/held_rows.h"
#include "nn/new_rows.h"
#include "nn/pool_exchange.h"
#include "nn/pool_tables.h"
#include "nn/sharded_rows.h"
#include "nn/table.h"
#include "ops/torch/check.h"
#include "pool/chunks.h"
#include "pool/row_format.h"

namespace memlayers {

namespace {

void check_options(const PoolOptions& options) {
  TORCH_CHECK_VALUE(options.n_keys >= 1 && options.width >= 1,
                    "MemoryPool: expected n_keys and width >= 1, got ", options.n_keys, " and ",
                    options.width);
  TORCH_CHECK_VALUE(options.n_keys <= (std::int64_t{1} << 31) / 2 &&
                        options.n_keys * options.n_keys <= (std::int64_t{1} << 60) / options.width,
                    "MemoryPool: expected n_keys^2 * width below 2^60, got n_keys ", options.n_keys,
                    " and width ", options.width);
}

void check_store(const PoolOptions& options) {
  const Snapshot rows = options.store->snapshot();
  TORCH_CHECK_VALUE(!options.folder && options.group.processes == nullptr,
                    "MemoryPool: expected a store, a folder for rows of its own or a memory group, "
                    "got two of them");
  TORCH_CHECK_VALUE(rows.rows() >= options.n_keys * options.n_keys &&
                        rows.width() == options.width && rows.row_dtype() == options.row_dtype,
                    "MemoryPool: expected a store of ", options.n_keys * options.n_keys,
                    " rows or more of ", options.width, " ", row_type_name(options.row_dtype),
                    ", got ", rows.rows(), " of ", rows.width(), " ",
                    row_type_name(rows.row_dtype()));
}

}  // namespace

MemoryPoolImpl::MemoryPoolImpl(const PoolOptions& options)
    : id(pool::new_pool_id()),
      options_(options),
      tables_(std::make_shared<nn::PoolTables>(options.folder)),
      record_(std::make_shared<nn::GradientRecord>()) {
  check_options(options);
  if (options.store != nullptr) {
    check_store(options);
    id = options.store->snapshot().pool_id();
    part_ = {.rows = 0, .columns = {{0, options.width}}, .row_width = options.width};
    values = register_parameter(
        "values",
        at::empty({0, pool::row_format(options.row_dtype, options.width).elements},
                  nn::element_type(options.row_dtype)),
        /*requires_grad=*/false);
    reset_usage();
    source_ = nn::store_rows(options.store);
    return;
  }
  make_exchange();
  at::Tensor rows =
      tables_->make_rows({part_.rows, pool::row_format(options.row_dtype, part_.width()).elements},
                         nn::element_type(options.row_dtype));
  nn::fill_new_rows(rows, options, part_, [&] { tables_->write_back(); });
  values = register_parameter("values", rows, !is_quantized(options.row_dtype));
  reset_usage();
  source_ = make_source();
}

MemoryPoolImpl::~MemoryPoolImpl() = default;

std::unique_ptr<nn::RowSource> MemoryPoolImpl::make_source() {
  // Of this call: whether it counts is asked now, and not when another process asks for rows.
  const auto on_read = [this](const at::Tensor& rows, bool counts) {
    if (const auto& lag = tables_->lag()) lag->catch_up(rows);
    if (counts) add_usage(rows);
  };
  const auto counts = [this] { return is_training() && torch::GradMode::is_enabled(); };
  const auto in_file = [tables = tables_](const at::Tensor& rows) {
    return tables->are_in_file(rows);
  };
  const nn::OnRead now = [on_read, counts](const at::Tensor& rows) { on_read(rows, counts()); };
  if (is_quantized(options_.row_dtype)) {
    return nn::quantized_rows(values, options_.row_dtype, width(), now);
  }
  if (!is_sharded()) return nn::held_rows({values, in_file, record_, now});
  return nn::sharded_rows({.values = values,
                           .exchange = exchange_,
                           .slots = slots(),
                           .width = width(),
                           .u_width = options_.u_width,
                           .is_in_file = in_file,
                           .record = record_,
                           .on_read = [on_read, counts]() -> nn::OnRead {
                             return [on_read, counts = counts()](const at::Tensor& rows) {
                               on_read(rows, counts);
                             };
                           }});
}

void MemoryPoolImpl::make_exchange() {
  const std::int64_t width = options_.width, u_width = options_.u_width;
  part_ = {.rows = slots(), .columns = {{0, width}}, .row_width = width};
  if (options_.group.processes == nullptr || options_.group.processes->size() == 1) return;
  TORCH_CHECK_VALUE(!is_quantized(options_.row_dtype),
                    "MemoryPool: expected rows of type float32 or bfloat16 in a memory group, got ",
                    row_type_name(options_.row_dtype));
  TORCH_CHECK_VALUE(u_width >= 0 && u_width < width, "MemoryPool: expected u_width below ", width,
                    ", got ", u_width);
  const std::vector<std::int64_t> sections =
      u_width == 0 ? std::vector{width} : std::vector{u_width, width - u_width};
  const auto element =
      static_cast<std::int64_t>(c10::elementSize(nn::element_type(options_.row_dtype)));
  const PoolSplit split = options_.group.split.value_or(
      choose_split(*std::min_element(sections.begin(), sections.end()), element,
                   options_.group.processes->size()));
  exchange_ =
      std::make_shared<nn::PoolExchange>(options_.group.processes, slots(), sections, split);
  part_ = exchange_->part();
}

PoolPart MemoryPoolImpl::part_of(int process) const {
  return is_sharded() ? exchange_->part_of(process) : part_;
}

std::optional<Snapshot> MemoryPoolImpl::snapshot() const {
  if (options_.store == nullptr) return std::nullopt;
  return options_.store->snapshot();
}

bool MemoryPoolImpl::refresh() {
  if (options_.store == nullptr) return false;
  const std::lock_guard lock(refresh_mutex_);
  return options_.store->refresh();
}

at::Tensor MemoryPoolImpl::gather(const at::Tensor& slots, const at::Tensor& weights,
                                  const Snapshot* rows) {
  return rows != nullptr ? memlayers::gather(*rows, slots, weights)
                         : source_->gather(slots, weights);
}

at::Tensor MemoryPoolImpl::peer_gather(const at::Tensor& x, const at::Tensor& slots,
                                       const at::Tensor& weights, const Snapshot* rows) {
  return rows != nullptr ? memlayers::peer_gather(*rows, x, slots, weights)
                         : source_->peer_gather(x, slots, weights);
}

void MemoryPoolImpl::add_usage(const at::Tensor& rows) {
  const at::Tensor read = rows.to(torch::kCPU).contiguous();
  ops::check_slots("MemoryPool", read, part_.rows);
  const std::int64_t* row = read.const_data_ptr<std::int64_t>();
  auto* count = usage_.mutable_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < read.numel(); ++i) ++count[row[i]];
}

void MemoryPoolImpl::quantize(RowType type) {
  TORCH_CHECK_VALUE(!is_quantized(options_.row_dtype),
                    "MemoryPool::quantize: expected rows of type float32 or bfloat16, got ",
                    row_type_name(options_.row_dtype));
  TORCH_CHECK_VALUE(options_.store == nullptr,
                    "MemoryPool::quantize: expected a pool that holds its rows, got one that reads "
                    "them from a store");
  TORCH_CHECK_VALUE(!is_sharded(),
                    "MemoryPool::quantize: expected a pool that one process holds, got one of a "
                    "group of ",
                    options_.group.processes->size());
  tables_->set_lag(nullptr);  // up to date for good: rows of few bits are not trained
  const at::Tensor rows = quantize_rows(values, type);
  const torch::NoGradGuard no_grad;
  values.set_requires_grad(false);
  values.set_data(rows);
  options_.row_dtype = type;
  tables_->forget_rows();
  source_ = make_source();
  clear_gradient();
}

bool MemoryPoolImpl::is_in_file() const { return tables_->are_in_file(values); }

void MemoryPoolImpl::prefetch(const at::Tensor& slots) const {
  if (!is_in_file() || is_sharded()) return;  // who holds the rows reads ahead by itself
  ops::check_type("MemoryPool::prefetch", "slots", slots, {torch::kLong});
  const at::Tensor read = slots.to(torch::kCPU).contiguous();
  ops::check_slots("MemoryPool::prefetch", read, this->slots());
  const std::int64_t most = nn::rows_a_window({&values, 1});
  nn::prefetch_rows({&values, 1}, nn::as_span(read).first(std::min(most, read.numel())));
}

std::vector<FactoredGradient> MemoryPoolImpl::gradient() const { return record_->all(); }

void MemoryPoolImpl::clear_gradient() { record_->clear(); }

at::Tensor MemoryPoolImpl::dense_gradient() const {
  return to_dense(gradient(), part_.rows, part_.width());
}

void MemoryPoolImpl::set_usage(const at::Tensor& usage) {
  TORCH_CHECK_VALUE(usage.dim() == 1 && usage.size(0) == part_.rows,
                    "MemoryPool::set_usage: expected [", part_.rows, "], got ", usage.sizes());
  ops::check_type("MemoryPool::set_usage", "usage", usage, {torch::kLong});
  at::Tensor table = nn::make_table({part_.rows}, torch::kLong, {}).tensor;
  table.copy_(usage);
  usage_ = table;
}

void MemoryPoolImpl::catch_up() {
  if (const auto& lag = tables_->lag()) lag->catch_up_all();
}

void MemoryPoolImpl::reset_usage() {
  usage_ = nn::make_table({part_.rows}, torch::kLong, {}).tensor;
}

}  // namespace memlayers
