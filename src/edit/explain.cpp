// SPDX-License-Identifier: Apache-2.0
#include "memlayers/explain.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "edit/slot_reads.h"
#include "edit/slot_rows.h"
#include "io/json_lines.h"
#include "memlayers/error.h"
#include "nn/lookup_hook.h"
#include "train/fact_row.h"

namespace memlayers {
namespace {

constexpr std::int64_t kBatchTokens = 8192;

void expect(bool holds, const std::string& field, const std::string& wanted, std::int64_t found) {
  if (!holds) {
    throw Error("explain: " + field + ": expected " + wanted + ", got " + std::to_string(found));
  }
}

void check_model(const Llama& model) {
  if (model->pool().is_empty()) {
    throw Error("explain: expected a model with memory layers, got one without a pool");
  }
  if (model->pool()->is_sharded()) {
    throw Error("explain: expected a model in one process, got one whose pool a group shares");
  }
}

// Prompt and answer as tokens, without an end of text that the model's own answer did not reach.
train::FactRow tokens_of(Generator& generator, const std::string& prompt,
                         const std::optional<std::string>& answer, std::int64_t max_tokens,
                         const std::optional<Snapshot>& rows) {
  if (answer) return train::make_fact_row(generator, {prompt, *answer});
  Decoder decoder(generator.model(), generator.shared_tokenizer(), {.gives_text = false});
  const std::vector<std::int32_t> tokens = generator.question_tokens(prompt);
  decoder.join(tokens, {.max_tokens = max_tokens}, {.rows = rows});
  train::FactRow row = train::make_fact_row(generator, {prompt, ""});
  row.tokens.resize(tokens.size());
  while (!decoder.is_idle()) {
    for (const DecodedToken& made : decoder.step()) {
      if (made.finish == FinishReason::kError) throw Error(made.error);
      if (made.token && !made.is_end) row.tokens.push_back(*made.token);
      const auto& end = generator.end_tokens();
      if (made.finish == FinishReason::kStop && !end.empty()) row.tokens.push_back(end.back());
    }
  }
  return row;
}

const Snapshot* pointer_to(const std::optional<Snapshot>& rows) { return rows ? &*rows : nullptr; }

// [rows]: the log-probability of the answer in each row of equal tokens [rows, T].
at::Tensor log_probabilities(Llama& model, const train::FactRow& row, std::int64_t rows,
                             const std::optional<Snapshot>& pool) {
  const std::vector<std::int64_t> tokens(row.tokens.begin(), row.tokens.end());
  const at::Tensor all = torch::tensor(tokens, torch::kLong);
  const std::int64_t length = all.size(0), from = row.answer_from;
  const at::Tensor input = all.slice(0, 0, length - 1).unsqueeze(0).expand({rows, length - 1});
  const at::Tensor hidden =
      model->hidden_states(input.contiguous(), {}, pointer_to(pool)).slice(1, from - 1);
  const at::Tensor wanted = all.slice(0, from).view({1, -1, 1}).expand({rows, -1, 1});
  return model->logits(hidden).log_softmax(-1).gather(2, wanted).to(torch::kDouble).sum({1, 2});
}

// What was read, by slot; `rows` reads of one slot by different layers and heads.
using Reads = std::map<std::int64_t, std::map<std::pair<std::int64_t, std::int64_t>, SlotRead>>;

void add(Reads& reads, std::int64_t layer, const at::Tensor& slots_in, const at::Tensor& weights) {
  const at::Tensor slots = slots_in.cpu().contiguous();  // [answer tokens, H, k]
  const at::Tensor shares = weights.cpu().contiguous();
  const std::int64_t A = slots.size(0);
  const auto* slot = slots.const_data_ptr<std::int64_t>();
  const float* weight = shares.const_data_ptr<float>();
  for (std::int64_t token = 0; token < A; ++token) {
    for (std::int64_t head = 0; head < slots.size(1); ++head) {
      for (std::int64_t i = 0; i < slots.size(2); ++i, ++slot, ++weight) {
        SlotRead& read = reads[*slot][{layer, head}];
        if (read.by_token.empty()) read = {layer, head, 0, std::vector<double>(A)};
        read.weight += *weight;
        read.by_token[token] += *weight;
      }
    }
  }
}

std::vector<ExplainedSlot> ranked(const MemoryPool& pool, Reads reads, std::int64_t top,
                                  const std::optional<Snapshot>& rows) {
  std::vector<std::int64_t> slots;
  for (const auto& [slot, by_head] : reads) slots.push_back(slot);
  const at::Tensor lengths =
      edit::rows_of(pool, torch::tensor(slots, torch::kLong), pointer_to(rows))
          .norm(2, 1)
          .to(torch::kDouble)
          .contiguous();
  std::vector<ExplainedSlot> all;
  for (auto& [slot, by_head] : reads) {
    ExplainedSlot found{.slot = slot};
    found.length = lengths.const_data_ptr<double>()[all.size()];
    for (auto& [key, read] : by_head) {
      found.weight += read.weight;
      found.reads.push_back(std::move(read));
    }
    all.push_back(std::move(found));
  }
  std::stable_sort(all.begin(), all.end(), [](const ExplainedSlot& a, const ExplainedSlot& b) {
    return a.weight * a.length > b.weight * b.length;
  });
  if (static_cast<std::int64_t>(all.size()) > top) all.resize(top);
  return all;
}

// Leaves out each slot by itself: reading it with weight 0 is reading a row of zeros.
void measure(Llama& model, const train::FactRow& row, double whole,
             const std::optional<Snapshot>& pool, std::vector<ExplainedSlot>& slots) {
  const std::int64_t length = static_cast<std::int64_t>(row.tokens.size()) - 1;
  const auto at_once = static_cast<std::size_t>(std::max<std::int64_t>(1, kBatchTokens / length));
  for (std::size_t begin = 0; begin < slots.size(); begin += at_once) {
    const std::size_t end = std::min(slots.size(), begin + at_once);
    const auto rows = static_cast<std::int64_t>(end - begin);
    std::vector<std::int64_t> left_out;
    for (std::size_t i = begin; i < end; ++i) left_out.push_back(slots[i].slot);
    const at::Tensor without = torch::tensor(left_out, torch::kLong).view({rows, 1, 1, 1});
    const nn::LookupHook hook(
        [&](const MemoryLayerImpl&, const at::Tensor& read, at::Tensor& weights) {
          const auto shape = {rows, length, read.size(1), read.size(2)};
          weights.masked_fill_((read.view(shape) == without.to(read.device())).view_as(weights), 0);
        });
    const at::Tensor left = log_probabilities(model, row, rows, pool).cpu().contiguous();
    for (std::size_t i = begin; i < end; ++i) {
      slots[i].change = left.const_data_ptr<double>()[i - begin] - whole;
    }
  }
}

std::vector<std::int64_t> reads_of(Generator& generator, const std::string& prompt,
                                   const std::optional<Snapshot>& rows) {
  const std::vector<std::int32_t> tokens = generator.question_tokens(prompt);
  expect(!tokens.empty(), "prompt", "at least one token", 0);
  const std::int64_t context = generator.model()->config().context;
  const auto length = static_cast<std::int64_t>(tokens.size());
  expect(length <= context, "tokens of an earlier prompt",
         "at most " + std::to_string(context) + ", the model's context", length);
  return edit::last_reads(generator.model(), tokens, pointer_to(rows));
}

}  // namespace

void ExplainOptions::validate() const {
  expect(top >= 1, "top", "at least 1", top);
  expect(max_tokens >= 1, "max_tokens", "at least 1", max_tokens);
}

Explanation explain(Generator& generator, const std::string& prompt,
                    const std::optional<std::string>& answer, const ExplainOptions& options) {
  options.validate();
  Llama& model = generator.model();
  check_model(model);
  const c10::InferenceMode inference;
  MemoryPool pool = model->pool();
  std::optional<Snapshot> rows = options.rows;
  if (!rows) {
    pool->refresh();
    rows = pool->snapshot();
  }
  const train::FactRow row = tokens_of(generator, prompt, answer, options.max_tokens, rows);
  const auto length = static_cast<std::int64_t>(row.tokens.size());
  expect(length > row.answer_from, "answer", "at least one token", 0);
  expect(length <= model->config().context, "tokens of prompt and answer",
         "at most " + std::to_string(model->config().context) + ", the model's context", length);

  Explanation result{.is_own = !answer};
  result.confidence = memory_confidence(generator, prompt, rows);
  const std::vector<std::int32_t> tokens(row.tokens.begin() + row.answer_from, row.tokens.end());
  for (const std::int32_t token : tokens) {
    result.tokens.push_back(generator.tokenizer().decode({&token, 1}));
  }
  result.answer = answer ? *answer : generator.tokenizer().decode(tokens);
  std::map<const MemoryLayerImpl*, std::int64_t> numbers;
  for (const auto& [number, layer] : model->memory_layers()) numbers[layer.get()] = number;
  Reads reads;
  {
    const nn::LookupHook hook(
        [&](const MemoryLayerImpl& layer, const at::Tensor& slots, at::Tensor& weights) {
          const std::int64_t from = row.answer_from - 1;
          add(reads, numbers.at(&layer), slots.slice(0, from), weights.slice(0, from));
        });
    result.log_probability = log_probabilities(model, row, 1, rows).item<double>();
  }
  result.slots_read = static_cast<std::int64_t>(reads.size());
  result.slots = ranked(pool, std::move(reads), options.top, rows);
  measure(model, row, result.log_probability, rows, result.slots);
  std::stable_sort(result.slots.begin(), result.slots.end(),
                   [](const ExplainedSlot& a, const ExplainedSlot& b) {
                     return std::abs(a.change) > std::abs(b.change);
                   });
  for (ExplainedSlot& slot : result.slots) {
    if (rows) slot.patch = rows->writer_of(slot.slot);
  }
  for (std::size_t i = 0; i < options.prompts.size(); ++i) {
    const std::vector<std::int64_t> used = reads_of(generator, options.prompts[i], rows);
    for (ExplainedSlot& slot : result.slots) {
      if (std::ranges::binary_search(used, slot.slot))
        slot.prompts.push_back(static_cast<std::int64_t>(i));
    }
  }
  return result;
}

std::vector<std::string> read_prompts(const std::string& path) {
  std::vector<std::string> prompts;
  io::for_each_json_line(path, [&](const io::JsonField& line, const std::string& /*place*/) {
    prompts.push_back(line.at("prompt").string());
  });
  if (prompts.empty()) throw Error(path + ": expected at least one prompt, got none");
  return prompts;
}

}  // namespace memlayers
