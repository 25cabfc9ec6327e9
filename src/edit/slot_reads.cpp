// SPDX-License-Identifier: Apache-2.0
#include "edit/slot_reads.h"

#include <torch/types.h>

#include <algorithm>

#include "edit/student.h"

namespace memlayers::edit {
namespace {

constexpr std::int64_t kBatchTokens = 8192;

}  // namespace

at::Tensor count_reads(Generator& generator, std::vector<std::vector<std::int32_t>> sequences) {
  Llama& model = generator.model();
  const auto context = static_cast<std::size_t>(model->config().context);
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    if (sequences[i].size() <= context) continue;
    std::vector<std::int32_t> rest(sequences[i].begin() + static_cast<std::ptrdiff_t>(context),
                                   sequences[i].end());
    sequences[i].resize(context);
    sequences.push_back(std::move(rest));
  }
  // Together only where they are as long as each other: padding would be counted.
  std::stable_sort(sequences.begin(), sequences.end(),
                   [](const auto& a, const auto& b) { return a.size() < b.size(); });
  MemoryPool pool = model->pool();
  const at::Tensor before = pool->usage().clone();
  const OnlyTrained nothing(model, {});
  const at::AutoGradMode counting(true);  // a pool counts what is read for training
  pool->reset_usage();
  model->train();
  for (std::size_t begin = 0, end = 0; begin < sequences.size(); begin = end) {
    const std::size_t length = sequences[begin].size();
    std::vector<std::int64_t> tokens;
    for (end = begin; end < sequences.size() && sequences[end].size() == length &&
                      static_cast<std::int64_t>(tokens.size()) < kBatchTokens;
         ++end) {
      tokens.insert(tokens.end(), sequences[end].begin(), sequences[end].end());
    }
    if (length == 0) continue;
    model->hidden_states(
        torch::tensor(tokens, torch::kLong).view({static_cast<std::int64_t>(end - begin), -1}));
  }
  model->eval();
  at::Tensor reads = pool->usage().clone();
  pool->set_usage(before);
  return reads;
}

}  // namespace memlayers::edit
