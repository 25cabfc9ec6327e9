// SPDX-License-Identifier: Apache-2.0
#include "memlayers/pool.h"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <utility>

#include "memlayers/error.h"
#include "nn/by_tokens.h"
#include "nn/pool_exchange.h"
#include "nn/pool_record.h"
#include "nn/sharded_gather.h"
#include "nn/table.h"
#include "ops/backend.h"
#include "ops/check.h"
#include "ops/parallel.h"
#include "pool/chunks.h"
#include "pool/random_rows.h"
#include "pool/row_format.h"

namespace memlayers {

using nn::by_tokens;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// `values` is an input only so that backward runs; its gradient goes to the record.
class MemoryPoolImpl::Gather : public torch::autograd::Function<MemoryPoolImpl::Gather> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& values,
                            const at::Tensor& slots, const at::Tensor& weights,
                            const std::shared_ptr<Record>& record) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({slots, weights});
    // Not saved as a variable: the optimizer changes rows in place between forward calls whose
    // graphs are kept, and autograd's version check would forbid what is right here: backward reads
    // rows before the step.
    const at::Tensor rows = remember(context, values, record);
    return by_tokens(rows, record->is_in_file(rows), slots,
                     [&](std::int64_t begin, std::int64_t end) -> std::vector<at::Tensor> {
                       return {ops::dispatch::gather(rows, slots.slice(0, begin, end),
                                                     weights.slice(0, begin, end), false)};
                     })[0];
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor grad = grads[0].contiguous();
    if (context->needs_input_grad(0)) {
      record_of(context)->add(call_of(context), {saved[0], saved[1], grad, 0});
    }
    at::Tensor weights;
    if (context->needs_input_grad(2)) {
      const at::Tensor rows = values_of(context);
      weights = by_tokens(rows, record_of(context)->is_in_file(rows), saved[0],
                          [&](std::int64_t begin, std::int64_t end) -> std::vector<at::Tensor> {
                            return {ops::dispatch::gather_backward_weights(
                                grad.slice(0, begin, end), rows, saved[0].slice(0, begin, end))};
                          })[0];
    }
    return {{}, {}, weights, {}};
  }

 private:
  friend class PeerGather;
  struct Capture : torch::CustomClassHolder {
    std::shared_ptr<Record> record;
    at::Tensor values;
    std::int64_t call;
  };
  static at::Tensor remember(AutogradContext* context, const at::Tensor& values,
                             const std::shared_ptr<Record>& record) {
    auto capture = c10::make_intrusive<Capture>();
    capture->record = record;
    capture->values = values.detach();
    capture->call = record->next_call();
    context->saved_data["capture"] = c10::IValue::make_capsule(capture);
    return capture->values;
  }
  static c10::intrusive_ptr<Capture> capture(AutogradContext* context) {
    return c10::static_intrusive_pointer_cast<Capture>(context->saved_data["capture"].toCapsule());
  }
  static std::shared_ptr<Record> record_of(AutogradContext* c) { return capture(c)->record; }
  static at::Tensor values_of(AutogradContext* c) { return capture(c)->values; }
  static std::int64_t call_of(AutogradContext* c) { return capture(c)->call; }
};

class MemoryPoolImpl::PeerGather : public torch::autograd::Function<MemoryPoolImpl::PeerGather> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& values, const at::Tensor& x,
                            const at::Tensor& slots, const at::Tensor& weights,
                            const std::shared_ptr<Record>& record) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({x, slots, weights});
    const at::Tensor rows = Gather::remember(context, values, record);
    return by_tokens(rows, record->is_in_file(rows), slots,
                     [&](std::int64_t begin, std::int64_t end) -> std::vector<at::Tensor> {
                       return {ops::dispatch::peer_gather(rows, x.slice(0, begin, end),
                                                          slots.slice(0, begin, end),
                                                          weights.slice(0, begin, end), false)};
                     })[0];
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor grad = grads[0].contiguous();
    const at::Tensor rows = Gather::values_of(context);
    const auto record = Gather::record_of(context);
    // grad_x, grad_weights, factors of U and of V
    const std::vector<at::Tensor> made =
        by_tokens(rows, record->is_in_file(rows), saved[1],
                  [&](std::int64_t begin, std::int64_t end) -> std::vector<at::Tensor> {
                    const auto part = [&](const at::Tensor& t) { return t.slice(0, begin, end); };
                    auto [x, weights, u, v] = ops::dispatch::peer_gather_backward(
                        part(grad), rows, part(saved[0]), part(saved[1]), part(saved[2]));
                    return {x, weights, u, v};
                  });
    if (context->needs_input_grad(0)) {
      const std::int64_t call = Gather::call_of(context);
      record->add(call, {saved[1], made[2], saved[0], 0});
      record->add(call, {saved[1], made[3], grad, saved[0].size(1)});
    }
    return {{}, made[0], {}, made[1], {}};
  }
};

namespace {

// The same numbers that a float32 pool starts with, in few bits.
template <class AfterPart>
void fill_quantized(at::Tensor& rows, const PoolOptions& options, double std,
                    const AfterPart& after_part) {
  constexpr std::int64_t kAtOnce = 1024;
  ops::parallel_ranges(rows.size(0), options.width * 8, [&](std::int64_t first, std::int64_t last) {
    const at::NoGradGuard no_grad;  // of this thread
    for (std::int64_t begin = first; begin < last; begin += kAtOnce) {
      const std::int64_t end = std::min(last, begin + kAtOnce);
      at::Tensor part = at::empty({end - begin, options.width}, at::kFloat);
      pool::fill_normal(static_cast<std::byte*>(part.mutable_data_ptr()), RowType::kFloat32,
                        options.width, begin, end, std, options.seed);
      rows.slice(0, begin, end).copy_(quantize_rows(part, options.row_dtype));
      after_part();
    }
  });
}

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

// Columns [range.first, range.first + range.width) of a slot.
void fill_columns(std::byte* to, const PoolOptions& options, std::int64_t slot,
                  const PoolPart::Columns& range, double std) {
  const std::int64_t aligned = range.first / 4 * 4;  // what fill_normal() can begin with
  if (aligned == range.first) {
    pool::fill_normal(to, options.row_dtype, range.width, slot, slot + 1, std, options.seed,
                      aligned);
    return;
  }
  const std::int64_t width = range.first + range.width - aligned;
  at::Tensor buffer = at::empty({width}, nn::element_type(options.row_dtype));
  auto* data = static_cast<std::byte*>(buffer.mutable_data_ptr());
  pool::fill_normal(data, options.row_dtype, width, slot, slot + 1, std, options.seed, aligned);
  std::copy(data + buffer.nbytes() / width * (range.first - aligned), data + buffer.nbytes(), to);
}

// Fills the new table of one part of a pool, with the bits that the whole has there.
template <class AfterPart>
void fill_part(at::Tensor& rows, const PoolOptions& options, const PoolPart& part, double std,
               const AfterPart& after_part) {
  auto* data = static_cast<std::byte*>(rows.mutable_data_ptr());
  const std::int64_t size = rows.element_size(), row_bytes = part.width() * size;
  ops::parallel_ranges(part.rows, row_bytes * 8, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) {
      std::byte* to = data + row * row_bytes;
      for (const PoolPart::Columns& range : part.columns) {
        fill_columns(to, options, part.slot(row), range, std);
        to += range.width * size;
      }
      if (row % 4096 == 4095) after_part();
    }
  });
}

// Fills the new table; after_part() is called now and then.
template <class AfterPart>
void fill(at::Tensor& rows, const PoolOptions& options, const PoolPart& part,
          const AfterPart& after_part) {
  const double std = options.init_std.value_or(1 / std::sqrt(static_cast<double>(options.width)));
  if (std == 0) return;  // the table is zero already
  if (is_quantized(options.row_dtype)) return fill_quantized(rows, options, std, after_part);
  if (options.group.processes != nullptr && options.group.processes->size() > 1) {
    return fill_part(rows, options, part, std, after_part);
  }
  auto* data = static_cast<std::byte*>(rows.mutable_data_ptr());
  const auto row_bytes = static_cast<std::int64_t>(rows.nbytes()) / rows.size(0);
  const std::int64_t at_once = std::max<std::int64_t>(1, (8 << 20) / row_bytes);
  ops::parallel_ranges(rows.size(0), options.width * 8, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t begin = first; begin < last; begin += at_once) {
      const std::int64_t end = std::min(last, begin + at_once);
      pool::fill_normal(data + begin * row_bytes, options.row_dtype, options.width, begin, end, std,
                        options.seed);
      after_part();
    }
  });
}

}  // namespace

MemoryPoolImpl::MemoryPoolImpl(const PoolOptions& options)
    : id(pool::new_pool_id()), options_(options), record_(std::make_shared<Record>()) {
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
    return;
  }
  make_exchange();
  at::Tensor rows =
      make_table({part_.rows, pool::row_format(options.row_dtype, part_.width()).elements},
                 nn::element_type(options.row_dtype));
  if (options.folder) record_->file_rows = rows.const_data_ptr();
  fill(rows, options, part_, [&] { write_back(); });
  values = register_parameter("values", rows, !is_quantized(options.row_dtype));
  reset_usage();
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

// What a gather over the group needs of this process.
nn::ShardedRead MemoryPoolImpl::sharded_read(const at::Tensor& slots) {
  TORCH_CHECK_VALUE(values.is_cpu(),
                    "MemoryPool: expected the rows of a memory group on the CPU, "
                    "got them on ",
                    values.device());
  ops::check_slots("MemoryPool", slots.contiguous(), this->slots());
  const bool counts = is_training() && torch::GradMode::is_enabled();
  const auto on_rows = [this, counts](const at::Tensor& rows) {
    if (lag_ != nullptr) lag_->catch_up(rows);
    if (counts) add_usage(rows);
  };
  const auto record = [record = record_](std::int64_t number,
                                         std::vector<FactoredGradient> by_process) {
    constexpr std::int64_t kMostCalls = std::int64_t{1} << 40;
    std::int64_t order = number;
    for (FactoredGradient& part : by_process) {
      if (part.slots.defined()) record->add(order, std::move(part));
      order += kMostCalls;
    }
  };
  return {.call = exchange_->ask(slots, record_->next_call(), on_rows),
          .rows = {values.detach(), is_in_file()},
          .record = record};
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
  if (rows != nullptr) return memlayers::gather(*rows, slots, weights);
  if (const auto now = snapshot()) return memlayers::gather(*now, slots, weights);
  if (is_quantized(options_.row_dtype)) {
    count_usage(slots);
    return gather_quantized(values, options_.row_dtype, width(), slots, weights);
  }
  ops::check_gather("MemoryPool::gather", values, slots, weights);
  if (is_sharded()) return nn::sharded_gather(values, weights, sharded_read(slots));
  if (lag_ != nullptr) lag_->catch_up(slots);
  count_usage(slots);
  // Decoding: what autograd's function costs, whose code is in no cache then, is a tenth of a
  // token.
  if (!torch::GradMode::is_enabled() && values.is_cpu() && !is_in_file()) {
    return ops::cpu::gather(values, slots, weights, /*sparse_grad=*/false);
  }
  return Gather::apply(values, slots, weights, record_);
}

at::Tensor MemoryPoolImpl::peer_gather(const at::Tensor& x, const at::Tensor& slots,
                                       const at::Tensor& weights, const Snapshot* rows) {
  if (rows != nullptr) return memlayers::peer_gather(*rows, x, slots, weights);
  if (const auto now = snapshot()) return memlayers::peer_gather(*now, x, slots, weights);
  if (is_quantized(options_.row_dtype)) {
    count_usage(slots);
    return peer_gather_quantized(values, options_.row_dtype, width(), x, slots, weights);
  }
  if (is_sharded()) {
    ops::check_gather("MemoryPool::peer_gather", values, slots, weights);
    ops::check_peer_x("MemoryPool::peer_gather", x, slots, width());
    TORCH_CHECK_VALUE(x.size(1) == options_.u_width,
                      "MemoryPool::peer_gather: expected x of width u_width of the pool, ",
                      options_.u_width, ", got ", x.size(1));
    return nn::sharded_peer_gather(values, x, weights, sharded_read(slots));
  }
  ops::check_peer_gather("MemoryPool::peer_gather", values, x, slots, weights);
  if (lag_ != nullptr) lag_->catch_up(slots);
  count_usage(slots);
  return PeerGather::apply(values, x, slots, weights, record_);
}

void MemoryPoolImpl::count_usage(const at::Tensor& slots) {
  if (!is_training() || !torch::GradMode::is_enabled()) return;
  const at::Tensor read = slots.to(torch::kCPU).contiguous();
  ops::check_slots("MemoryPool", read, this->slots());
  add_usage(read);
}

void MemoryPoolImpl::add_usage(const at::Tensor& rows) {
  const std::int64_t* row = rows.const_data_ptr<std::int64_t>();
  auto* count = usage_.mutable_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < rows.numel(); ++i) ++count[row[i]];
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
  set_lag(nullptr);  // up to date for good: rows of few bits are not trained
  const at::Tensor rows = quantize_rows(values, type);
  const torch::NoGradGuard no_grad;
  values.set_requires_grad(false);
  values.set_data(rows);
  options_.row_dtype = type;
  record_->file_rows = nullptr;  // the rows lie in memory now
  clear_gradient();
}

at::Tensor MemoryPoolImpl::make_table(at::IntArrayRef sizes, at::ScalarType type) const {
  return record_->make_table(sizes, type, options_.folder);
}

void MemoryPoolImpl::write_back() const {
  if (options_.folder) record_->write_back();
}

bool MemoryPoolImpl::is_in_file() const { return record_->is_in_file(values); }

void MemoryPoolImpl::prefetch(const at::Tensor& slots) const {
  if (!is_in_file() || is_sharded()) return;  // who holds the rows reads ahead by itself
  ops::check_type("MemoryPool::prefetch", "slots", slots, {torch::kLong});
  const at::Tensor read = slots.to(torch::kCPU).contiguous();
  ops::check_slots("MemoryPool::prefetch", read, this->slots());
  const std::int64_t most = nn::rows_a_window({&values, 1});
  nn::prefetch_rows({&values, 1}, nn::as_span(read).first(std::min(most, read.numel())));
}

std::vector<FactoredGradient> MemoryPoolImpl::gradient() const {
  const std::lock_guard lock(record_->mutex);
  auto parts = record_->parts;
  std::stable_sort(parts.begin(), parts.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<FactoredGradient> gradient;
  gradient.reserve(parts.size());
  for (auto& [call, part] : parts) gradient.push_back(std::move(part));
  return gradient;
}

void MemoryPoolImpl::clear_gradient() {
  const std::lock_guard lock(record_->mutex);
  record_->parts.clear();
}

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

void MemoryPoolImpl::set_lag(std::shared_ptr<Lag> lag) {
  const std::shared_ptr<Lag> before = std::exchange(lag_, std::move(lag));
  if (before != nullptr) before->catch_up_all();
}

void MemoryPoolImpl::catch_up() {
  if (lag_ != nullptr) lag_->catch_up_all();
}

void MemoryPoolImpl::reset_usage() {
  usage_ = nn::make_table({part_.rows}, torch::kLong, {}).tensor;
}

}  // namespace memlayers
