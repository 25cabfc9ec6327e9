// SPDX-License-Identifier: Apache-2.0
#include "nn/sharded_rows.h"

#include <torch/types.h>

#include <utility>

#include "ops/gather/gelu.h"
#include "ops/torch/check.h"

namespace memlayers::nn {
namespace {

// f(i) for every number of a tensor like `shape`, in a new one.
template <class F>
at::Tensor each(const at::Tensor& shape, const F& f) {
  at::Tensor out = at::empty(shape.sizes(), at::kFloat);
  auto* to = out.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < out.numel(); ++i) to[i] = f(i);
  return out;
}

class ShardedRead final : public RowRead {
 public:
  ShardedRead(std::shared_ptr<PoolExchange::Call> call, PoolExchange::Rows rows,
              std::shared_ptr<GradientRecord> record)
      : call_(std::move(call)), rows_(std::move(rows)), record_(std::move(record)) {}

  at::Tensor sums(const at::Tensor& weights) override { return call_->gather(0, weights, rows_); }

  at::Tensor sums_backward(const at::Tensor& /*weights*/, const at::Tensor& grad,
                           Wanted wanted) override {
    const at::Tensor weights = call_->dots(0, grad, rows_, wanted.weights);
    if (wanted.rows) record_->add(call_->number(), call_->gradient(0));
    return weights;
  }

  // With z = x . U, g = grad . V: as src/ops/gather/peer.cpp has it, number for number.
  PeerSums peer_sums(const at::Tensor& x, const at::Tensor& weights_in) override {
    const at::Tensor weights = weights_in.contiguous();
    const at::Tensor products = call_->dots(0, x.contiguous(), rows_, true);
    const float* z = products.const_data_ptr<float>();
    const float* w = weights.const_data_ptr<float>();
    const at::Tensor factors =
        each(weights, [&](std::int64_t i) { return w[i] * ops::gelu(z[i]); });
    return {call_->gather(1, factors, rows_), products};
  }

  PeerGradient peer_backward(const PeerInputs& inputs, const at::Tensor& grad,
                             bool wants_rows) override {
    const at::Tensor products = call_->dots(1, grad, rows_, true);
    const at::Tensor given = inputs.weights.contiguous();
    const float* z = inputs.products.const_data_ptr<float>();
    const float* w = given.const_data_ptr<float>();
    const float* g = products.const_data_ptr<float>();
    const at::Tensor u_factors =
        each(products, [&](std::int64_t i) { return g[i] * w[i] * ops::gelu_derivative(z[i]); });
    const at::Tensor weights =
        each(products, [&](std::int64_t i) { return g[i] * ops::gelu(z[i]); });
    const at::Tensor x = call_->gather(0, u_factors, rows_);
    if (wants_rows) {
      for (const std::size_t section : {0U, 1U}) {
        record_->add(call_->number(), call_->gradient(section));
      }
    }
    return {x, weights};
  }

 private:
  std::shared_ptr<PoolExchange::Call> call_;
  PoolExchange::Rows rows_;
  std::shared_ptr<GradientRecord> record_;
};

class ShardedRows final : public RowSource {
 public:
  explicit ShardedRows(ShardedTable table) : table_(std::move(table)) {}

  at::Tensor gather(const at::Tensor& slots, const at::Tensor& weights) override {
    ops::check_gather("MemoryPool::gather", table_.values, slots, weights);
    return sums_of(table_.values, slots, weights, read(slots));
  }

  at::Tensor peer_gather(const at::Tensor& x, const at::Tensor& slots,
                         const at::Tensor& weights) override {
    ops::check_gather("MemoryPool::peer_gather", table_.values, slots, weights);
    ops::check_peer_x("MemoryPool::peer_gather", x, slots, table_.width);
    TORCH_CHECK_VALUE(x.size(1) == table_.u_width,
                      "MemoryPool::peer_gather: expected x of width u_width of the pool, ",
                      table_.u_width, ", got ", x.size(1));
    return peer_sums_of(table_.values, x, slots, weights, read(slots));
  }

 private:
  std::shared_ptr<RowRead> read(const at::Tensor& slots) {
    const at::Tensor& values = table_.values;
    TORCH_CHECK_VALUE(values.is_cpu(),
                      "MemoryPool: expected the rows of a memory group on the CPU, got them on ",
                      values.device());
    ops::check_slots("MemoryPool", slots.contiguous(), table_.slots);
    const at::Tensor rows = values.detach();
    return std::make_shared<ShardedRead>(
        table_.exchange->ask(slots, table_.record->next_call(), table_.on_read()),
        PoolExchange::Rows{rows, table_.is_in_file(rows)}, table_.record);
  }

  ShardedTable table_;
};

}  // namespace

std::unique_ptr<RowSource> sharded_rows(ShardedTable table) {
  return std::make_unique<ShardedRows>(std::move(table));
}

}  // namespace memlayers::nn
