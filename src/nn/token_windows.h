// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ops/cat.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "nn/table.h"
#include "ops/torch/check.h"

namespace memlayers::nn {

// run(begin, end) computes tensors for the tokens [begin, end), each of which reads rows of
// slots [T, J]. Rows in RAM: one call for all. In a file: the rows of the next tokens are read
// meanwhile.
template <class Run>
std::vector<at::Tensor> by_token_windows(const at::Tensor& values, bool is_in_file,
                                         const at::Tensor& slots_in, const Run& run) {
  if (!is_in_file || slots_in.numel() == 0) return run(0, slots_in.size(0));
  const at::Tensor slots = slots_in.contiguous();
  ops::check_slots("MemoryPool", slots, values.size(0));
  std::vector<std::vector<at::Tensor>> parts;  // by output
  for_each_window({&values, 1}, as_span(slots), slots.size(1),
                  [&](std::int64_t begin, std::int64_t end) {
                    std::vector<at::Tensor> outputs = run(begin, end);
                    parts.resize(outputs.size());
                    for (std::size_t i = 0; i < outputs.size(); ++i) {
                      parts[i].push_back(std::move(outputs[i]));
                    }
                  });
  std::vector<at::Tensor> whole;
  for (auto& part : parts) whole.push_back(part.size() == 1 ? part[0] : at::cat(part));
  return whole;
}

}  // namespace memlayers::nn
