// SPDX-License-Identifier: Apache-2.0
// Derivatives of the operators. Their nodes are torch's own kind, not torch::autograd::Function,
// which is made for users' functions and refuses the transforms of torch.func.
#include <ATen/TensorOperators.h>
#include <ATen/core/stack.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/dynamo/compiled_autograd.h>
#include <torch/library.h>

#include "ops/torch/operators.h"

namespace memlayers::ops {
namespace {

using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

// The node of an operator with one differentiable output.
class Backward : public torch::autograd::Node {
 public:
  // What derivatives() will need. Never an output itself, which would own its own node.
  void save(const variable_list& tensors) {
    for (const at::Tensor& tensor : tensors) saved_.emplace_back(tensor, /*is_output=*/false);
  }

  variable_list apply(variable_list&& grads) override {
    const std::lock_guard lock(mutex_);  // against backward passes in other threads
    if (!grads[0].defined()) return variable_list(num_outputs());
    variable_list tensors;
    for (const SavedVariable& variable : saved_) tensors.push_back(variable.unpack());
    return derivatives(grads[0].contiguous(), tensors);
  }
  void release_variables() override {
    const std::lock_guard lock(mutex_);
    for (SavedVariable& variable : saved_) variable.reset_data();
  }
  void compiled_args(torch::dynamo::autograd::CompiledNodeArgs& args) const override {
    args.collect(saved_, /*is_output=*/false);
    for (const std::int64_t number : numbers()) args.collect(number);
  }
  variable_list apply_with_saved(const variable_list& grads,
                                 torch::dynamo::autograd::SwapSavedVariables& saved) override {
    saved.before(saved_);
    variable_list result = apply(variable_list(grads));
    saved.after(saved_);
    return result;
  }

 protected:
  // One for each tensor that the operator takes, in order; undefined where none is needed.
  virtual variable_list derivatives(const at::Tensor& grad, const variable_list& saved) = 0;
  // Arguments that are no tensors and that derivatives() depends on.
  virtual std::vector<std::int64_t> numbers() const { return {}; }

 private:
  std::vector<SavedVariable> saved_;
};

struct LookupBackward : Backward {
  variable_list derivatives(const at::Tensor& grad, const variable_list& saved) override {
    auto [query, keys] = dispatch::lookup_backward(grad, saved[0], saved[1], saved[2]);
    return {query, keys};
  }
};

struct LookupSoftmaxBackward : Backward {
  variable_list derivatives(const at::Tensor& grad, const variable_list& saved) override {
    const at::Tensor& weights = saved[3];
    const at::Tensor grad_scores = weights * (grad - (grad * weights).sum(-1, true));
    auto [query, keys] = dispatch::lookup_backward(grad_scores, saved[0], saved[1], saved[2]);
    return {query, keys};
  }
};

struct GatherBackward : Backward {
  bool sparse_grad = false;

  std::vector<std::int64_t> numbers() const override { return {sparse_grad}; }
  variable_list derivatives(const at::Tensor& grad, const variable_list& saved) override {
    at::Tensor values, weights;
    if (task_should_compute_output(0)) {
      values = dispatch::gather_backward_values(grad, saved[0], saved[1], saved[2], sparse_grad);
    }
    if (task_should_compute_output(2)) {
      weights = dispatch::gather_backward_weights(grad, saved[0], saved[1]);
    }
    return {values, {}, weights};
  }
};

struct PeerGatherBackward : Backward {
  bool sparse_grad = false;

  std::vector<std::int64_t> numbers() const override { return {sparse_grad}; }
  variable_list derivatives(const at::Tensor& grad, const variable_list& saved) override {
    auto [x, weights, u_factors, v_factors] =
        dispatch::peer_gather_backward(grad, saved[0], saved[1], saved[2], saved[3]);
    at::Tensor values;
    if (task_should_compute_output(0)) {
      values = dispatch::peer_gather_backward_values(grad, saved[0], saved[1], saved[2], u_factors,
                                                     v_factors, sparse_grad);
    }
    return {values, x, {}, weights};
  }
};

struct GatherQuantizedBackward : Backward {
  std::int64_t bits = 0, width = 0;

  std::vector<std::int64_t> numbers() const override { return {bits, width}; }
  variable_list derivatives(const at::Tensor& grad, const variable_list& saved) override {
    return {
        {}, {}, dispatch::gather_quantized_backward_weights(grad, saved[0], saved[1], bits, width)};
  }
};

struct PeerGatherQuantizedBackward : Backward {
  std::int64_t bits = 0, width = 0;

  std::vector<std::int64_t> numbers() const override { return {bits, width}; }
  variable_list derivatives(const at::Tensor& grad, const variable_list& saved) override {
    auto [x, weights] = dispatch::peer_gather_quantized_backward(grad, saved[0], saved[1], saved[2],
                                                                 saved[3], bits, width);
    return {{}, x, {}, weights};
  }
};

// A node behind all tensors that an operator takes; null where none needs a gradient.
template <class Node>
c10::intrusive_ptr<Node> node_behind(const char* op, const variable_list& inputs) {
  for (const at::Tensor& input : inputs) {
    TORCH_CHECK_NOT_IMPLEMENTED(
        !torch::autograd::isFwGradDefined(input), op,
        ": expected no forward-mode derivative (torch.func.jvp), got one: only backward is there");
  }
  if (!at::GradMode::is_enabled() || !torch::autograd::any_variable_requires_grad(inputs)) {
    return {};
  }
  auto node = c10::make_intrusive<Node>();
  node->set_next_edges(torch::autograd::collect_next_edges(inputs));
  return node;
}

// The operator itself, below autograd.
template <class Operator, class... Arguments>
auto below(const Operator& op, const Arguments&... arguments) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  return op(arguments...);
}

std::tuple<at::Tensor, at::Tensor> lookup(const at::Tensor& query, const at::Tensor& keys,
                                          std::int64_t knn) {
  const auto node = node_behind<LookupBackward>("lookup", {query, keys});
  auto [scores, slots] = below(dispatch::lookup, query, keys, knn);
  if (node) {
    node->save({query, keys, slots});
    torch::autograd::set_history(scores, node);
  }
  return {scores, slots};
}

std::tuple<at::Tensor, at::Tensor> lookup_softmax(const at::Tensor& query, const at::Tensor& keys,
                                                  std::int64_t knn) {
  const auto node = node_behind<LookupSoftmaxBackward>("lookup_softmax", {query, keys});
  auto [weights, slots] = below(dispatch::lookup_softmax, query, keys, knn);
  if (node) {
    node->save({query, keys, slots, weights.detach()});
    torch::autograd::set_history(weights, node);
  }
  return {weights, slots};
}

at::Tensor gather(const at::Tensor& values, const at::Tensor& slots, const at::Tensor& weights,
                  bool sparse_grad) {
  const auto node = node_behind<GatherBackward>("gather", {values, slots, weights});
  at::Tensor out = below(dispatch::gather, values, slots, weights, sparse_grad);
  if (node) {
    node->save({values, slots, weights});
    node->sparse_grad = sparse_grad;
    torch::autograd::set_history(out, node);
  }
  return out;
}

at::Tensor peer_gather(const at::Tensor& values, const at::Tensor& x, const at::Tensor& slots,
                       const at::Tensor& weights, bool sparse_grad) {
  const auto node = node_behind<PeerGatherBackward>("peer_gather", {values, x, slots, weights});
  at::Tensor out = below(dispatch::peer_gather, values, x, slots, weights, sparse_grad);
  if (node) {
    node->save({values, x, slots, weights});
    node->sparse_grad = sparse_grad;
    torch::autograd::set_history(out, node);
  }
  return out;
}

at::Tensor gather_quantized(const at::Tensor& rows, const at::Tensor& slots,
                            const at::Tensor& weights, std::int64_t bits, std::int64_t width) {
  const auto node =
      node_behind<GatherQuantizedBackward>("gather_quantized", {rows, slots, weights});
  at::Tensor out = below(dispatch::gather_quantized, rows, slots, weights, bits, width);
  if (node) {
    node->save({rows, slots});
    node->bits = bits;
    node->width = width;
    torch::autograd::set_history(out, node);
  }
  return out;
}

at::Tensor peer_gather_quantized(const at::Tensor& rows, const at::Tensor& x,
                                 const at::Tensor& slots, const at::Tensor& weights,
                                 std::int64_t bits, std::int64_t width) {
  const auto node =
      node_behind<PeerGatherQuantizedBackward>("peer_gather_quantized", {rows, x, slots, weights});
  at::Tensor out = below(dispatch::peer_gather_quantized, rows, x, slots, weights, bits, width);
  if (node) {
    node->save({rows, x, slots, weights});
    node->bits = bits;
    node->width = width;
    torch::autograd::set_history(out, node);
  }
  return out;
}

constexpr const char* kUpdates[] = {"update_adamw", "update_rowwise_adamw",
                                    "update_rowwise_adagrad", "update_sgd"};

// The tensors that an operator's schema says it writes; undefined ones are left out.
variable_list written_by(const c10::OperatorHandle& op, const torch::jit::Stack& stack) {
  const auto& arguments = op.schema().arguments();
  const auto given = torch::jit::last(stack, arguments.size());
  variable_list written;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const c10::AliasInfo* alias = arguments[i].alias_info();
    if (alias != nullptr && alias->isWrite() && given[i].isTensor()) {
      written.push_back(given[i].toTensor());
    }
  }
  return written;
}

// An update has no derivative. torch's fallback for such operators would pass by what counts
// changes.
void update(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  for (const at::Tensor& tensor : written_by(op, *stack)) {
    torch::autograd::check_inplace(tensor, at::GradMode::is_enabled() && tensor.requires_grad());
  }
  const at::AutoDispatchBelowAutograd guard;
  op.redispatchBoxed(keys & c10::after_autograd_keyset, stack);
}

// Counts the change in the version of each tensor that an operator writes. What torch has for this
// counts only tensors that are returned as well.
void count_changes(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
                   torch::jit::Stack* stack) {
  const variable_list written = written_by(op, *stack);
  {
    const at::AutoDispatchBelowADInplaceOrView guard;
    op.redispatchBoxed(keys & c10::after_ADInplaceOrView_keyset, stack);
  }
  for (const at::Tensor& tensor : written) {
    if (!tensor.is_inference()) torch::autograd::impl::bump_version(tensor);  // those have none
  }
}

}  // namespace

TORCH_LIBRARY_IMPL(memlayers, Autograd, m) {
  m.impl("lookup", &lookup);
  m.impl("lookup_softmax", &lookup_softmax);
  m.impl("gather", &gather);
  m.impl("peer_gather", &peer_gather);
  m.impl("gather_quantized", &gather_quantized);
  m.impl("peer_gather_quantized", &peer_gather_quantized);
  // A second derivative is an error, not a silent zero.
  for (const char* name : {"lookup_backward", "gather_backward_weights", "gather_backward_values",
                           "peer_gather_backward", "peer_gather_backward_values",
                           "gather_quantized_backward_weights", "peer_gather_quantized_backward"}) {
    m.impl(name, torch::autograd::autogradNotImplementedFallback());
  }
  for (const char* name : kUpdates) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&update>());
  }
}

TORCH_LIBRARY_IMPL(memlayers, ADInplaceOrView, m) {
  for (const char* name : kUpdates) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&count_changes>());
  }
}

}  // namespace memlayers::ops
