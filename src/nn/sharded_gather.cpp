// SPDX-License-Identifier: Apache-2.0
#include "nn/sharded_gather.h"

#include <torch/csrc/autograd/custom_function.h>

#include "ops/gelu.h"

namespace memlayers::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

struct Capture : torch::CustomClassHolder {
  explicit Capture(ShardedRead the_read) : read(std::move(the_read)) {}
  ShardedRead read;
};

void remember(AutogradContext* context, const ShardedRead& read) {
  context->saved_data["read"] = c10::IValue::make_capsule(c10::make_intrusive<Capture>(read));
}

const ShardedRead& recall(AutogradContext* context) {
  return c10::static_intrusive_pointer_cast<Capture>(context->saved_data["read"].toCapsule())->read;
}

class Gather : public Function<Gather> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& /*values*/,
                            const at::Tensor& weights, const ShardedRead& read) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    remember(context, read);
    return read.call->gather(0, weights, read.rows);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const ShardedRead& read = recall(context);
    const at::Tensor weights =
        read.call->dots(0, grads[0].contiguous(), read.rows, context->needs_input_grad(1));
    if (context->needs_input_grad(0)) read.record(read.call->number(), read.call->gradient(0));
    return {{}, weights, {}};
  }
};

// f(i) for every number of a tensor like `shape`, in a new one.
template <class F>
at::Tensor each(const at::Tensor& shape, const F& f) {
  at::Tensor out = at::empty(shape.sizes(), at::kFloat);
  auto* to = out.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < out.numel(); ++i) to[i] = f(i);
  return out;
}

// With z = x . U, g = grad . V: as src/ops/peer.cpp has it, number for number.
class PeerGather : public Function<PeerGather> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& /*values*/,
                            const at::Tensor& x, const at::Tensor& weights_in,
                            const ShardedRead& read) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    remember(context, read);
    const at::Tensor weights = weights_in.contiguous();
    const at::Tensor products = read.call->dots(0, x.contiguous(), read.rows, true);
    const float* z = products.const_data_ptr<float>();
    const float* w = weights.const_data_ptr<float>();
    const at::Tensor factors =
        each(weights, [&](std::int64_t i) { return w[i] * ops::gelu(z[i]); });
    context->save_for_backward({products, weights});
    return read.call->gather(1, factors, read.rows);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const ShardedRead& read = recall(context);
    const variable_list saved = context->get_saved_variables();
    const at::Tensor products = read.call->dots(1, grads[0].contiguous(), read.rows, true);
    const float* z = saved[0].const_data_ptr<float>();
    const float* w = saved[1].const_data_ptr<float>();
    const float* g = products.const_data_ptr<float>();
    const at::Tensor u_factors =
        each(products, [&](std::int64_t i) { return g[i] * w[i] * ops::gelu_derivative(z[i]); });
    const at::Tensor weights =
        each(products, [&](std::int64_t i) { return g[i] * ops::gelu(z[i]); });
    const at::Tensor x = read.call->gather(0, u_factors, read.rows);
    if (context->needs_input_grad(0)) {
      for (const std::size_t section : {0U, 1U}) {
        read.record(read.call->number(), read.call->gradient(section));
      }
    }
    return {{}, x, weights, {}};
  }
};

}  // namespace

at::Tensor sharded_gather(const at::Tensor& values, const at::Tensor& weights,
                          const ShardedRead& read) {
  return Gather::apply(values, weights, read);
}

at::Tensor sharded_peer_gather(const at::Tensor& values, const at::Tensor& x,
                               const at::Tensor& weights, const ShardedRead& read) {
  return PeerGather::apply(values, x, weights, read);
}

}  // namespace memlayers::nn
