// SPDX-License-Identifier: Apache-2.0
// Where weights lie: what is read from its beginning to its end comes from huge pages at twice the
// rate. Where the system has none, these copy into ordinary ones.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

namespace memlayers::nn {

at::Tensor in_huge_pages(const at::Tensor& tensor);  // a copy
// Moves parameters on the CPU there, one behind the other in one memory.
void to_huge_pages(std::vector<std::pair<std::string, at::Tensor>> parameters);
// The same for parameters that nobody has set yet (nn/unset_weights.h): nothing is copied.
void make_room_in_huge_pages(std::vector<std::pair<std::string, at::Tensor>> parameters);

}  // namespace memlayers::nn
