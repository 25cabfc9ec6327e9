// SPDX-License-Identifier: Apache-2.0
#include "nn/held_rows.h"

#include <torch/types.h>

#include <utility>
#include <vector>

#include "nn/token_windows.h"
#include "ops/torch/check.h"
#include "ops/torch/operators.h"

namespace memlayers::nn {
namespace {

class HeldRead final : public RowRead {
 public:
  HeldRead(const HeldTable& table, at::Tensor slots)
      // Not saved as a variable: the optimizer changes rows in place between forward calls whose
      // graphs are kept, and autograd's version check would forbid what is right here: backward
      // reads rows before the step.
      : rows_(table.values.detach()),
        is_in_file_(table.is_in_file(rows_)),
        slots_(std::move(slots)),
        record_(table.record),
        call_(record_->next_call()) {}

  at::Tensor sums(const at::Tensor& weights) override {
    return by_token_windows(rows_, is_in_file_, slots_,
                            [&](std::int64_t begin, std::int64_t end) -> std::vector<at::Tensor> {
                              return {ops::dispatch::gather(rows_, slots_.slice(0, begin, end),
                                                            weights.slice(0, begin, end), false)};
                            })[0];
  }

  at::Tensor sums_backward(const at::Tensor& weights, const at::Tensor& grad,
                           Wanted wanted) override {
    if (wanted.rows) record_->add(call_, FactoredGradient{slots_, weights, grad, 0});
    if (!wanted.weights) return {};
    return by_token_windows(rows_, is_in_file_, slots_,
                            [&](std::int64_t begin, std::int64_t end) -> std::vector<at::Tensor> {
                              return {ops::dispatch::gather_backward_weights(
                                  grad.slice(0, begin, end), rows_, slots_.slice(0, begin, end))};
                            })[0];
  }

  PeerSums peer_sums(const at::Tensor& x, const at::Tensor& weights) override {
    return {by_token_windows(rows_, is_in_file_, slots_,
                             [&](std::int64_t begin, std::int64_t end) -> std::vector<at::Tensor> {
                               return {ops::dispatch::peer_gather(
                                   rows_, x.slice(0, begin, end), slots_.slice(0, begin, end),
                                   weights.slice(0, begin, end), false)};
                             })[0]};
  }

  PeerGradient peer_backward(const PeerInputs& inputs, const at::Tensor& grad,
                             bool wants_rows) override {
    // grad_x, grad_weights, factors of U and of V
    const std::vector<at::Tensor> made = by_token_windows(
        rows_, is_in_file_, slots_,
        [&](std::int64_t begin, std::int64_t end) -> std::vector<at::Tensor> {
          const auto part = [&](const at::Tensor& t) { return t.slice(0, begin, end); };
          auto [x, weights, u, v] = ops::dispatch::peer_gather_backward(
              part(grad), rows_, part(inputs.x), part(slots_), part(inputs.weights));
          return {x, weights, u, v};
        });
    if (wants_rows) {
      record_->add(call_, FactoredGradient{slots_, made[2], inputs.x, 0});
      record_->add(call_, FactoredGradient{slots_, made[3], grad, inputs.x.size(1)});
    }
    return {made[0], made[1]};
  }

 private:
  at::Tensor rows_;
  bool is_in_file_;
  at::Tensor slots_;
  std::shared_ptr<GradientRecord> record_;
  std::int64_t call_;
};

class HeldRows final : public RowSource {
 public:
  explicit HeldRows(HeldTable table) : table_(std::move(table)) {}

  at::Tensor gather(const at::Tensor& slots, const at::Tensor& weights) override {
    ops::check_gather("MemoryPool::gather", table_.values, slots, weights);
    table_.on_read(slots);
    // Decoding: what autograd's function costs, whose code is in no cache then, is a tenth of a
    // token.
    if (!torch::GradMode::is_enabled() && table_.values.is_cpu() &&
        !table_.is_in_file(table_.values)) {
      return ops::cpu::gather(table_.values, slots, weights, /*sparse_grad=*/false);
    }
    return sums_of(table_.values, slots, weights, std::make_shared<HeldRead>(table_, slots));
  }

  at::Tensor peer_gather(const at::Tensor& x, const at::Tensor& slots,
                         const at::Tensor& weights) override {
    ops::check_peer_gather("MemoryPool::peer_gather", table_.values, x, slots, weights);
    table_.on_read(slots);
    return peer_sums_of(table_.values, x, slots, weights,
                        std::make_shared<HeldRead>(table_, slots));
  }

 private:
  HeldTable table_;
};

}  // namespace

std::unique_ptr<RowSource> held_rows(HeldTable table) {
  return std::make_unique<HeldRows>(std::move(table));
}

}  // namespace memlayers::nn
