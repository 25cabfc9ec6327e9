// SPDX-License-Identifier: Apache-2.0
#include "nn/row_source.h"

#include <torch/csrc/autograd/custom_function.h>

#include <utility>

namespace memlayers::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

struct KeptRead : torch::CustomClassHolder {
  explicit KeptRead(std::shared_ptr<RowRead> the_read) : read(std::move(the_read)) {}
  std::shared_ptr<RowRead> read;
};

RowRead& keep(AutogradContext* context, std::shared_ptr<RowRead> read) {
  RowRead& kept = *read;
  context->saved_data["read"] =
      c10::IValue::make_capsule(c10::make_intrusive<KeptRead>(std::move(read)));
  return kept;
}

RowRead& kept(AutogradContext* context) {
  return *c10::static_intrusive_pointer_cast<KeptRead>(context->saved_data["read"].toCapsule())
              ->read;
}

class Sums : public Function<Sums> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& /*values*/,
                            const at::Tensor& slots, const at::Tensor& weights,
                            std::shared_ptr<RowRead> read) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({slots, weights});
    return keep(context, std::move(read)).sums(weights);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const RowRead::Wanted wanted{.rows = context->needs_input_grad(0),
                                 .weights = context->needs_input_grad(2)};
    return {{}, {}, kept(context).sums_backward(saved[1], grads[0].contiguous(), wanted), {}};
  }
};

class PeerSums : public Function<PeerSums> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& /*values*/,
                            const at::Tensor& x, const at::Tensor& slots, const at::Tensor& weights,
                            std::shared_ptr<RowRead> read) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [sums, products] = keep(context, std::move(read)).peer_sums(x, weights);
    context->save_for_backward({x, slots, weights, products});
    return sums;
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    auto [x, weights] =
        kept(context).peer_backward({.x = saved[0], .weights = saved[2], .products = saved[3]},
                                    grads[0].contiguous(), context->needs_input_grad(0));
    return {{}, x, {}, weights, {}};
  }
};

class StoreRows final : public RowSource {
 public:
  explicit StoreRows(std::shared_ptr<StoreReader> store) : store_(std::move(store)) {}
  at::Tensor gather(const at::Tensor& slots, const at::Tensor& weights) override {
    return memlayers::gather(store_->snapshot(), slots, weights);
  }
  at::Tensor peer_gather(const at::Tensor& x, const at::Tensor& slots,
                         const at::Tensor& weights) override {
    return memlayers::peer_gather(store_->snapshot(), x, slots, weights);
  }

 private:
  std::shared_ptr<StoreReader> store_;
};

class QuantizedRows final : public RowSource {
 public:
  QuantizedRows(at::Tensor values, RowType type, std::int64_t width, OnRead on_read)
      : values_(std::move(values)), type_(type), width_(width), on_read_(std::move(on_read)) {}
  at::Tensor gather(const at::Tensor& slots, const at::Tensor& weights) override {
    on_read_(slots);
    return gather_quantized(values_, type_, width_, slots, weights);
  }
  at::Tensor peer_gather(const at::Tensor& x, const at::Tensor& slots,
                         const at::Tensor& weights) override {
    on_read_(slots);
    return peer_gather_quantized(values_, type_, width_, x, slots, weights);
  }

 private:
  at::Tensor values_;  // the pool's parameter: what is put into that is seen here
  RowType type_;
  std::int64_t width_;
  OnRead on_read_;
};

}  // namespace

std::unique_ptr<RowSource> store_rows(std::shared_ptr<StoreReader> store) {
  return std::make_unique<StoreRows>(std::move(store));
}

std::unique_ptr<RowSource> quantized_rows(const at::Tensor& values, RowType type,
                                          std::int64_t width, OnRead on_read) {
  return std::make_unique<QuantizedRows>(values, type, width, std::move(on_read));
}

at::Tensor sums_of(const at::Tensor& values, const at::Tensor& slots, const at::Tensor& weights,
                   std::shared_ptr<RowRead> read) {
  return Sums::apply(values, slots, weights, std::move(read));
}

at::Tensor peer_sums_of(const at::Tensor& values, const at::Tensor& x, const at::Tensor& slots,
                        const at::Tensor& weights, std::shared_ptr<RowRead> read) {
  return PeerSums::apply(values, x, slots, weights, std::move(read));
}

}  // namespace memlayers::nn
