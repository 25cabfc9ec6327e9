// SPDX-License-Identifier: Apache-2.0
#include "memlayers/pool.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>
#include <utility>

#include "ops/backend.h"
#include "ops/check.h"
#include "ops/parallel.h"
#include "pool/chunks.h"
#include "pool/mapped_region.h"
#include "pool/random_rows.h"

namespace memlayers {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Shared with the graphs of forward calls, which may outlive the pool.
struct MemoryPoolImpl::Record {
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
    return ops::dispatch::gather(remember(context, values, record), slots, weights, false);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor grad = grads[0].contiguous();
    if (context->needs_input_grad(0)) {
      record_of(context)->add(call_of(context), {saved[0], saved[1], grad, 0});
    }
    at::Tensor weights;
    if (context->needs_input_grad(2)) {
      weights = ops::dispatch::gather_backward_weights(grad, values_of(context), saved[0]);
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
    return ops::dispatch::peer_gather(Gather::remember(context, values, record), x, slots, weights,
                                      false);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor grad = grads[0].contiguous();
    auto [x, weights, u_factors, v_factors] = ops::dispatch::peer_gather_backward(
        grad, Gather::values_of(context), saved[0], saved[1], saved[2]);
    if (context->needs_input_grad(0)) {
      const auto record = Gather::record_of(context);
      const std::int64_t call = Gather::call_of(context);
      record->add(call, {saved[1], u_factors, saved[0], 0});
      record->add(call, {saved[1], v_factors, grad, saved[0].size(1)});
    }
    return {{}, x, {}, weights, {}};
  }
};

namespace {

at::Tensor as_tensor(const std::shared_ptr<pool::MappedRegion>& region, std::int64_t slots,
                     const PoolOptions& options) {
  return torch::from_blob(
      region->bytes().data(), {slots, options.width}, [region](void*) {},
      torch::dtype(options.row_dtype == RowType::kFloat32 ? torch::kFloat : torch::kBFloat16));
}

// A table in a mapping of its own, so that it can lie in huge pages and is given back at once.
at::Tensor make_rows(const PoolOptions& options) {
  TORCH_CHECK_VALUE(options.n_keys >= 1 && options.width >= 1,
                    "MemoryPool: expected n_keys and width >= 1, got ", options.n_keys, " and ",
                    options.width);
  TORCH_CHECK_VALUE(options.n_keys <= (std::int64_t{1} << 31) / 2 &&
                        options.n_keys * options.n_keys <= (std::int64_t{1} << 60) / options.width,
                    "MemoryPool: expected n_keys^2 * width below 2^60, got n_keys ", options.n_keys,
                    " and width ", options.width);
  const bool is_float = options.row_dtype == RowType::kFloat32;
  const std::int64_t slots = options.n_keys * options.n_keys;
  const std::int64_t row_bytes = options.width * (is_float ? 4 : 2);
  auto region = std::make_shared<pool::MappedRegion>(
      pool::MappedRegion::anonymous(static_cast<std::size_t>(slots * row_bytes)));
  std::byte* data = region->bytes().data();
  const double std = options.init_std.value_or(1 / std::sqrt(static_cast<double>(options.width)));
  if (std == 0) return as_tensor(region, slots, options);  // the mapping is zero already
  ops::parallel_ranges(slots, options.width * 8, [&](std::int64_t begin, std::int64_t end) {
    pool::fill_normal(data + begin * row_bytes, options.row_dtype, options.width, begin, end, std,
                      options.seed);
  });
  return as_tensor(region, slots, options);
}

}  // namespace

MemoryPoolImpl::MemoryPoolImpl(const PoolOptions& options)
    : id(pool::new_pool_id()),
      options_(options),
      usage_(torch::zeros({0}, torch::kLong)),
      record_(std::make_shared<Record>()) {
  values = register_parameter("values", make_rows(options));
  reset_usage();
}

at::Tensor MemoryPoolImpl::gather(const at::Tensor& slots, const at::Tensor& weights) {
  ops::check_gather("MemoryPool::gather", values, slots, weights);
  if (lag_ != nullptr) lag_->catch_up(slots);
  count_usage(slots);
  return Gather::apply(values, slots, weights, record_);
}

at::Tensor MemoryPoolImpl::peer_gather(const at::Tensor& x, const at::Tensor& slots,
                                       const at::Tensor& weights) {
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
  usage_ = usage.to(torch::kCPU).contiguous().clone();
}

void MemoryPoolImpl::set_lag(std::shared_ptr<Lag> lag) {
  const std::shared_ptr<Lag> before = std::exchange(lag_, std::move(lag));
  if (before != nullptr) before->catch_up_all();
}

void MemoryPoolImpl::catch_up() {
  if (lag_ != nullptr) lag_->catch_up_all();
}

void MemoryPoolImpl::reset_usage() { usage_ = torch::zeros({slots()}, torch::kLong); }

}  // namespace memlayers
