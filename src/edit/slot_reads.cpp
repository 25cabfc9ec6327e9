// SPDX-License-Identifier: Apache-2.0
#include "edit/slot_reads.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <optional>
#include <set>

#include "edit/student.h"
#include "nn/asked.h"
#include "nn/lookup_hook.h"
#include "nn/output_hook.h"
#include "train/fact_batch.h"

namespace memlayers::edit {
namespace {

constexpr std::size_t kBatchTokens = 8192;

// What a pool's slots are read for while it lives; then the pool's own count is as before.
class Counting {
 public:
  explicit Counting(Llama& model)
      : model_(model), before_(model->pool()->usage().clone()), nothing_(model, {}) {
    model_->pool()->reset_usage();
    model_->train();
  }
  ~Counting() {
    model_->eval();
    model_->pool()->set_usage(before_);
  }
  Counting(const Counting&) = delete;
  Counting& operator=(const Counting&) = delete;
  at::Tensor reads() const { return model_->pool()->usage().clone(); }

 private:
  Llama& model_;
  at::Tensor before_;
  OnlyTrained nothing_;
  at::AutoGradMode counting_{true};  // a pool counts what is read for training
};

// What slots are read with while it lives: weight times gate, summed over all reads.
class Mass {
 public:
  explicit Mass(Llama& model)
      : sum_(torch::zeros({model->pool()->slots()}, torch::kDouble)),
        lookups_([this](const MemoryLayerImpl&, const at::Tensor& slots, at::Tensor& weights) {
          slots_ = slots.detach().cpu();
          weights_ = weights.detach().to(torch::kCPU, torch::kDouble);
        }),
        outputs_([this](const MemoryLayerImpl& layer, const at::Tensor& x, const at::Tensor& y) {
          const torch::NoGradGuard no_gradient;
          if (const at::Tensor gate = nn::gate_of(layer, x); gate.defined()) {
            weights_ = weights_ * gate.to(torch::kCPU, torch::kDouble).unsqueeze(-1);
          }
          sum_.index_add_(0, slots_.flatten(), weights_.flatten());
          return y;
        }) {}
  Mass(const Mass&) = delete;
  Mass& operator=(const Mass&) = delete;
  const at::Tensor& sum() const { return sum_; }

 private:
  at::Tensor sum_, slots_, weights_;  // the last two of the layer that is being read
  nn::LookupHook lookups_;
  nn::OutputHook outputs_;
};

void add_to(std::set<std::int64_t>& slots, const at::Tensor& read) {
  const at::Tensor all = read.flatten().cpu().contiguous();
  const auto* slot = all.const_data_ptr<std::int64_t>();
  slots.insert(slot, slot + all.numel());
}

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
  const Counting counting(model);
  for (std::size_t begin = 0, end = 0; begin < sequences.size(); begin = end) {
    const std::size_t length = sequences[begin].size();
    std::vector<std::int64_t> tokens;
    for (end = begin;
         end < sequences.size() && sequences[end].size() == length && tokens.size() < kBatchTokens;
         ++end) {
      tokens.insert(tokens.end(), sequences[end].begin(), sequences[end].end());
    }
    if (length == 0) continue;
    model->hidden_states(
        torch::tensor(tokens, torch::kLong).view({static_cast<std::int64_t>(end - begin), -1}));
  }
  return counting.reads();
}

std::vector<std::int64_t> template_reads(Generator& generator) {
  const std::vector<std::int32_t> one = generator.question_tokens("Mouse"),
                                  other = generator.question_tokens("table");
  const auto end = std::ranges::mismatch(one, other).in1;
  const std::vector<std::int64_t> tokens(one.begin(), end);
  if (tokens.size() <= generator.tokenizer().prefix().size()) return {};
  const c10::InferenceMode inference;
  std::set<std::int64_t> slots;
  const nn::LookupHook hook(
      [&](const MemoryLayerImpl&, const at::Tensor& read, at::Tensor&) { add_to(slots, read); });
  generator.model()->hidden_states(torch::tensor(tokens, torch::kLong).unsqueeze(0));
  return {slots.begin(), slots.end()};
}

std::vector<std::int64_t> last_reads(Llama& model, const std::vector<std::int32_t>& prompt,
                                     const Snapshot* rows) {
  const c10::InferenceMode inference;
  std::set<std::int64_t> slots;
  const nn::LookupHook hook([&](const MemoryLayerImpl&, const at::Tensor& read, at::Tensor&) {
    add_to(slots, read[-1]);
  });
  const std::vector<std::int64_t> tokens(prompt.begin(), prompt.end());
  model->hidden_states(torch::tensor(tokens, torch::kLong).unsqueeze(0), {}, rows);
  return {slots.begin(), slots.end()};
}

std::vector<std::set<std::int64_t>> last_reads(Llama& model,
                                               const std::vector<train::FactRow>& rows) {
  const c10::InferenceMode inference;
  std::vector<std::set<std::int64_t>> slots(rows.size());
  std::size_t first = 0;  // row of the batch
  for (const train::Batch& batch :
       train::batches_of(rows, kBatchTokens, train::can_share_prefix(model->config()))) {
    const at::Tensor places = train::targets_of(batch).places;  // one a row
    const nn::LookupHook hook([&](const MemoryLayerImpl&, const at::Tensor& read, at::Tensor&) {
      const at::Tensor last = read.index_select(0, places);
      for (std::int64_t i = 0; i < batch.size(); ++i) add_to(slots[first + i], last[i]);
    });
    model->hidden_states(batch.input, batch.packed);
    first += batch.rows.size();
  }
  return slots;
}

FactReads count_fact_reads(Generator& generator, const std::vector<train::FactRow>& rows,
                           bool weighs) {
  Llama& model = generator.model();
  const Counting counting(model);
  std::optional<Mass> mass;
  if (weighs) mass.emplace(model);
  for (const train::Batch& batch :
       train::batches_of(rows, kBatchTokens, train::can_share_prefix(model->config()))) {
    model->hidden_states(batch.input, batch.packed);
  }
  return {.counts = counting.reads(), .mass = mass ? mass->sum() : at::Tensor()};
}

}  // namespace memlayers::edit
