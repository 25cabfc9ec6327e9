// SPDX-License-Identifier: Apache-2.0
#include "edit/student.h"

#include <algorithm>

namespace memlayers::edit {

std::int64_t Student::parameters() const {
  std::int64_t sum = 0;
  for (const at::Tensor& tensor : learned()) sum += tensor.numel();
  return sum;
}

std::int64_t Student::stored_bytes() const { return bytes_of(trained()); }

std::int64_t bytes_of(const std::vector<at::Tensor>& tensors) {
  std::int64_t sum = 0;
  for (const at::Tensor& tensor : tensors) sum += static_cast<std::int64_t>(tensor.nbytes());
  return sum;
}

OnlyTrained::OnlyTrained(Llama& model, const std::vector<at::Tensor>& trained) {
  for (const at::Tensor& parameter : model->parameters()) {
    before_.emplace_back(parameter, parameter.requires_grad());
    const bool is_trained =
        std::any_of(trained.begin(), trained.end(),
                    [&](const at::Tensor& tensor) { return tensor.is_same(parameter); });
    parameter.set_requires_grad(is_trained);
  }
}

OnlyTrained::~OnlyTrained() {
  // Backwards: a pool that several layers share is there several times, the first time as it was.
  for (auto entry = before_.rbegin(); entry != before_.rend(); ++entry) {
    entry->first.set_requires_grad(entry->second);
  }
}

}  // namespace memlayers::edit
