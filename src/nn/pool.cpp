// SPDX-License-Identifier: Apache-2.0
#include "memlayers/pool.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>
#include <utility>

#include "nn/table.h"
#include "ops/backend.h"
#include "ops/check.h"
#include "ops/parallel.h"
#include "pool/chunks.h"
#include "pool/random_rows.h"
#include "pool/row_format.h"

namespace memlayers {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Shared with the graphs of forward calls, which may outlive the pool.
struct MemoryPoolImpl::Record {
  const void* file_rows = nullptr;  // where the scratch file is mapped; null: rows in RAM
  bool is_in_file(const at::Tensor& values) const {
    return file_rows != nullptr && values.is_cpu() && values.const_data_ptr() == file_rows;
  }
  // Of the rows and the tables beside them, as far as they are still there. Guarded by mutex.
  std::vector<std::weak_ptr<const pool::MappedRegion>> files;
  at::Tensor make_table(at::IntArrayRef sizes, at::ScalarType type,
                        const std::optional<std::string>& folder) {
    nn::Table table = nn::make_table(sizes, type, folder);
    const std::lock_guard lock(mutex);
    std::erase_if(files, [](const auto& file) { return file.expired(); });
    if (folder) files.push_back(table.region);
    return table.tensor;
  }
  void write_back() const {
    const std::lock_guard lock(mutex);
    for (const auto& file : files) {
      if (const auto region = file.lock()) region->write_back();
    }
  }
  std::int64_t next_call() { return calls++; }
  void add(std::int64_t call, FactoredGradient part) {
    // Saved variables come back with their graph, which must not live as long as the record.
    part.weights = part.weights.detach();
    part.rows = part.rows.detach();
    const std::lock_guard lock(mutex);
    parts.emplace_back(call, std::move(part));
  }

  std::atomic<std::int64_t> calls{0};
  mutable std::mutex mutex;
  std::vector<std::pair<std::int64_t, FactoredGradient>> parts;  // guarded by mutex
};

namespace {

// run(begin, end) computes tensors for the tokens [begin, end), each of which reads rows of
// slots [T, J]. Rows in RAM: one call for all. In a file: the rows of the next tokens are read
// meanwhile.
template <class Run>
std::vector<at::Tensor> by_tokens(const at::Tensor& values, bool is_in_file,
                                  const at::Tensor& slots_in, const Run& run) {
  if (!is_in_file || slots_in.numel() == 0) return run(0, slots_in.size(0));
  const at::Tensor slots = slots_in.contiguous();
  ops::check_slots("MemoryPool", slots, values.size(0));
  std::vector<std::vector<at::Tensor>> parts;  // by output
  nn::for_each_window({&values, 1}, nn::as_span(slots), slots.size(1),
                      [&](std::int64_t begin, std::int64_t end) {
                        std::vector<at::Tensor> outputs = run(begin, end);
                        parts.resize(outputs.size());
                        for (std::size_t i = 0; i < outputs.size(); ++i) {
                          parts[i].push_back(std::move(outputs[i]));
                        }
                      });
  std::vector<at::Tensor> whole;
  for (auto& part : parts) whole.push_back(part.size() == 1 ? part[0] : at::cat(part));
  return whole;
}

}  // namespace

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
  for (std::int64_t first = 0; first < rows.size(0); first += kAtOnce) {
    const std::int64_t last = std::min(rows.size(0), first + kAtOnce);
    at::Tensor part = at::empty({last - first, options.width}, at::kFloat);
    pool::fill_normal(static_cast<std::byte*>(part.mutable_data_ptr()), RowType::kFloat32,
                      options.width, first, last, std, options.seed);
    rows.slice(0, first, last).copy_(quantize_rows(part, options.row_dtype));
    after_part();
  }
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

// Fills the new table; after_part() is called now and then.
template <class AfterPart>
void fill(at::Tensor& rows, const PoolOptions& options, const AfterPart& after_part) {
  const double std = options.init_std.value_or(1 / std::sqrt(static_cast<double>(options.width)));
  if (std == 0) return;  // the table is zero already
  if (is_quantized(options.row_dtype)) return fill_quantized(rows, options, std, after_part);
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
  at::Tensor rows =
      make_table({slots(), pool::row_format(options.row_dtype, options.width).elements},
                 nn::element_type(options.row_dtype));
  if (options.folder) record_->file_rows = rows.const_data_ptr();
  fill(rows, options, [&] { write_back(); });
  values = register_parameter("values", rows, !is_quantized(options.row_dtype));
  reset_usage();
}

at::Tensor MemoryPoolImpl::gather(const at::Tensor& slots, const at::Tensor& weights) {
  if (is_quantized(options_.row_dtype)) {
    count_usage(slots);
    return gather_quantized(values, options_.row_dtype, width(), slots, weights);
  }
  ops::check_gather("MemoryPool::gather", values, slots, weights);
  if (lag_ != nullptr) lag_->catch_up(slots);
  count_usage(slots);
  return Gather::apply(values, slots, weights, record_);
}

at::Tensor MemoryPoolImpl::peer_gather(const at::Tensor& x, const at::Tensor& slots,
                                       const at::Tensor& weights) {
  if (is_quantized(options_.row_dtype)) {
    count_usage(slots);
    return peer_gather_quantized(values, options_.row_dtype, width(), x, slots, weights);
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
  const std::int64_t* slot = read.const_data_ptr<std::int64_t>();
  auto* count = usage_.mutable_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < read.numel(); ++i) ++count[slot[i]];
}

void MemoryPoolImpl::quantize(RowType type) {
  TORCH_CHECK_VALUE(!is_quantized(options_.row_dtype),
                    "MemoryPool::quantize: expected rows of type float32 or bfloat16, got ",
                    row_type_name(options_.row_dtype));
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
  if (!is_in_file()) return;
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

at::Tensor MemoryPoolImpl::dense_gradient() const { return to_dense(gradient(), slots(), width()); }

void MemoryPoolImpl::set_usage(const at::Tensor& usage) {
  TORCH_CHECK_VALUE(usage.dim() == 1 && usage.size(0) == slots(),
                    "MemoryPool::set_usage: expected [", slots(), "], got ", usage.sizes());
  ops::check_type("MemoryPool::set_usage", "usage", usage, {torch::kLong});
  at::Tensor table = nn::make_table({slots()}, torch::kLong, {}).tensor;
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

void MemoryPoolImpl::reset_usage() { usage_ = nn::make_table({slots()}, torch::kLong, {}).tensor; }

}  // namespace memlayers
