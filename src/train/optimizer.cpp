// SPDX-License-Identifier: Apache-2.0
// DenseAdamW: AdamW for everything but the pool.
#include "memlayers/optimizer.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>

#include "train/clip.h"

namespace memlayers {

DenseAdamW::DenseAdamW(std::vector<std::pair<std::string, at::Tensor>> parameters,
                       const Options& options)
    : options_(options), groups_(2), steps_(at::zeros({}, at::kFloat)) {
  TORCH_CHECK_VALUE(!parameters.empty(), "DenseAdamW: expected at least one parameter, got none");
  at::NoGradGuard no_grad;
  groups_[0].weight_decay = options_.weight_decay;
  groups_[1].weight_decay = 0;
  for (auto& [name, parameter] : parameters) {
    Group& group = groups_[parameter.dim() == 2 ? 0 : 1];
    const at::Tensor target =
        parameter.scalar_type() == at::kFloat ? parameter : parameter.detach().to(at::kFloat);
    group.names.push_back(name);
    group.parameters.push_back(parameter);
    group.targets.push_back(target);
    group.exp_avg.push_back(at::zeros_like(target, target.options().requires_grad(false)));
    group.exp_avg_sq.push_back(at::zeros_like(target, target.options().requires_grad(false)));
  }
  std::erase_if(groups_, [](const Group& group) { return group.names.empty(); });
}

void DenseAdamW::zero_grad() {
  // Undefined instead of zero: the first backward then hands its result over without an addition.
  for (Group& group : groups_) {
    for (at::Tensor& parameter : group.parameters) parameter.mutable_grad().reset();
  }
}

double DenseAdamW::gradient_norm() const {
  at::NoGradGuard no_grad;
  std::vector<at::Tensor> gradients;
  for (const Group& group : groups_) {
    for (const at::Tensor& parameter : group.parameters) {
      if (parameter.grad().defined()) gradients.push_back(parameter.grad());
    }
  }
  if (gradients.empty()) return 0;
  double sum = 0;
  for (const at::Tensor& norm : at::_foreach_norm(gradients)) {
    const double value = norm.item<double>();
    sum += value * value;
  }
  return std::sqrt(sum);
}

double DenseAdamW::step(double lr, std::optional<double> clip) {
  const double norm = gradient_norm();
  step_with_norm(norm, lr, clip);
  return norm;
}

void DenseAdamW::step_with_norm(double norm, double lr, std::optional<double> clip) {
  if (!std::isfinite(norm)) return;
  at::NoGradGuard no_grad;
  steps_ += 1;
  // The fused kernel divides the gradient as it reads it, which saves a pass over all gradients.
  std::optional<at::Tensor> divisor;
  const double factor = train::clip_factor(norm, clip);
  if (factor != 1.0) divisor = at::full({}, 1 / factor, at::kFloat);

  for (Group& group : groups_) {
    std::vector<at::Tensor> parameters, targets, gradients, exp_avg, exp_avg_sq;
    for (std::size_t i = 0; i < group.names.size(); ++i) {
      const at::Tensor& gradient = group.parameters[i].grad();
      if (!gradient.defined()) continue;
      parameters.push_back(group.parameters[i]);
      targets.push_back(group.targets[i]);
      gradients.push_back(gradient.to(at::kFloat));
      exp_avg.push_back(group.exp_avg[i]);
      exp_avg_sq.push_back(group.exp_avg_sq[i]);
    }
    if (targets.empty()) continue;
    const std::vector<at::Tensor> steps(targets.size(), steps_);
    at::_fused_adamw_(targets, gradients, exp_avg, exp_avg_sq, /*max_exp_avg_sqs=*/{}, steps, lr,
                      options_.beta1, options_.beta2, group.weight_decay, options_.eps,
                      /*amsgrad=*/false, /*maximize=*/false, divisor);
    for (std::size_t i = 0; i < targets.size(); ++i) {
      if (!targets[i].is_same(parameters[i])) parameters[i].copy_(targets[i]);
    }
  }
}

std::vector<std::pair<std::string, at::Tensor>> DenseAdamW::state() const {
  std::vector<std::pair<std::string, at::Tensor>> result{{"steps", steps_}};
  for (const Group& group : groups_) {
    for (std::size_t i = 0; i < group.names.size(); ++i) {
      result.emplace_back("exp_avg." + group.names[i], group.exp_avg[i]);
      result.emplace_back("exp_avg_sq." + group.names[i], group.exp_avg_sq[i]);
      if (!group.targets[i].is_same(group.parameters[i])) {
        result.emplace_back("master." + group.names[i], group.targets[i]);
      }
    }
  }
  return result;
}

}  // namespace memlayers
