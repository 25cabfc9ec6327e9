// SPDX-License-Identifier: Apache-2.0
#include "nn/huge_pages.h"

#include <torch/types.h>
#include <torch/utils.h>

#include "nn/table.h"

namespace memlayers::nn {
namespace {

// Gives each parameter a place there; fill(place, parameter) before the parameter leaves its own.
template <class Fill>
void move_to_huge_pages(std::vector<std::pair<std::string, at::Tensor>>& parameters,
                        const Fill& fill) {
  const torch::NoGradGuard no_grad;
  constexpr std::int64_t kAligned = 64;
  const auto place_of = [](const at::Tensor& parameter) {
    return (static_cast<std::int64_t>(parameter.nbytes()) + kAligned - 1) / kAligned * kAligned;
  };
  std::int64_t bytes = 0;
  for (const auto& [name, parameter] : parameters) bytes += place_of(parameter);
  const at::Tensor table = make_table({bytes}, at::kByte, std::nullopt).tensor;
  std::int64_t at = 0;
  for (auto& [name, parameter] : parameters) {
    at::Tensor moved = table.narrow(0, at, static_cast<std::int64_t>(parameter.nbytes()))
                           .view(parameter.scalar_type())
                           .view(parameter.sizes());
    fill(moved, parameter);
    at += place_of(parameter);
    parameter.set_data(moved);
  }
}

}  // namespace

at::Tensor in_huge_pages(const at::Tensor& tensor) {
  at::Tensor copy = make_table(tensor.sizes(), tensor.scalar_type(), std::nullopt).tensor;
  return copy.copy_(tensor);
}

void to_huge_pages(std::vector<std::pair<std::string, at::Tensor>> parameters) {
  move_to_huge_pages(parameters, [](at::Tensor& to, const at::Tensor& from) { to.copy_(from); });
}

void make_room_in_huge_pages(std::vector<std::pair<std::string, at::Tensor>> parameters) {
  move_to_huge_pages(parameters, [](const at::Tensor&, const at::Tensor&) {});
}

}  // namespace memlayers::nn
