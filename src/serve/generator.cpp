// SPDX-License-Identifier: Apache-2.0
#include "memlayers/generator.h"

#include <torch/types.h>

#include <algorithm>
#include <mutex>
#include <numeric>
#include <set>

#include "memlayers/checkpoint.h"
#include "memlayers/error.h"
#include "serve/sampler.h"
#include "serve/text_cutter.h"

namespace memlayers {
namespace {

// Continues all prompts in one batch; rows that are done leave it. `take(row, token)` gets every
// new token, below `vocab_size`, and says whether the row goes on. Returns the pool's version.
std::uint64_t decode(Llama& model, const std::vector<std::vector<std::int32_t>>& prompts,
                     std::int64_t vocab_size, const GenerateOptions& options,
                     const std::function<bool(std::int64_t, std::int32_t)>& take) {
  const c10::InferenceMode inference;
  const std::int64_t context = model->config().context;
  std::int64_t longest = 0, room = 0;
  for (const auto& prompt : prompts) {
    const auto length = static_cast<std::int64_t>(prompt.size());
    if (length > context) {
      throw Error("prompt: expected at most " + std::to_string(context) +
                  " tokens, the model's context, got " + std::to_string(length));
    }
    if (length == 0) throw Error("prompt: expected at least one token, got none");
    longest = std::max(longest, length);
    room = std::max(room, context - length);
  }
  const auto rows = static_cast<std::int64_t>(prompts.size());
  const std::int64_t steps = std::min(options.max_tokens, room);
  if (steps == 0) return 0;

  KvCache cache(model->config(), rows, longest + steps);
  at::Tensor tokens = torch::zeros({rows, longest}, torch::kLong);
  std::vector<std::int64_t> padding;
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto& prompt = prompts[row];
    padding.push_back(longest - static_cast<std::int64_t>(prompt.size()));
    std::copy(prompt.begin(), prompt.end(),
              tokens.mutable_data_ptr<std::int64_t>() + row * longest + padding.back());
  }
  if (std::any_of(padding.begin(), padding.end(), [](std::int64_t p) { return p > 0; })) {
    cache.set_padding(padding);
  }
  std::vector<std::int64_t> active(rows);  // the prompt of each row of the batch
  std::iota(active.begin(), active.end(), 0);
  for (std::int64_t step = 0; step < steps && !active.empty(); ++step) {
    const at::Tensor hidden = model->hidden_states(tokens, &cache);
    const at::Tensor logits = model->logits(hidden.select(1, hidden.size(1) - 1)).contiguous();
    const std::int64_t vocab = logits.size(1);
    std::vector<std::int64_t> kept, next;
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(active.size()); ++i) {
      const std::int64_t row = active[i];
      const auto length = static_cast<std::int64_t>(prompts[row].size()) + step;
      if (length == context) continue;  // a prompt that fills it
      const std::span<const float> scores(logits.const_data_ptr<float>() + i * vocab, vocab_size);
      const std::int32_t token = serve::sample(scores, options, row, step);
      if (take(row, token) && length + 1 < context) {
        kept.push_back(i);
        next.push_back(token);
      }
    }
    if (kept.size() < active.size()) {
      if (kept.empty()) break;
      cache.keep_rows(kept);
      std::vector<std::int64_t> still;
      for (std::int64_t i : kept) still.push_back(active[i]);
      active = std::move(still);
    }
    tokens = torch::tensor(next, torch::kLong).unsqueeze(1);
  }
  return cache.pool_version().value_or(0);
}

std::set<std::int32_t> end_tokens(const Llama& model, const Tokenizer& tokenizer,
                                  const GenerateOptions& options) {
  std::set<std::int32_t> ends;
  if (options.ignore_eos) return ends;
  for (std::int64_t token : model->config().eos_tokens)
    ends.insert(static_cast<std::int32_t>(token));
  if (tokenizer.eos()) ends.insert(*tokenizer.eos());
  return ends;
}

}  // namespace

struct Generator::StoreState {
  std::mutex mutex;
  std::optional<std::string> error;  // guarded by mutex
};

Generator::Generator(Llama model, std::shared_ptr<const Tokenizer> tokenizer)
    : model_(std::move(model)),
      tokenizer_(std::move(tokenizer)),
      store_(std::make_shared<StoreState>()) {
  if (tokenizer_->vocab_size() > model_->config().vocab_size) {
    throw Error(tokenizer_->file_name() + ": expected at most " +
                std::to_string(model_->config().vocab_size) +
                " tokens, the model's vocab_size, got " + std::to_string(tokenizer_->vocab_size()));
  }
  model_->eval();
}

Generator Generator::load(const std::string& model_folder, const StoreOptions& options) {
  const std::string folder = resolve_model_folder(model_folder);
  return {open_model(folder, options), load_tokenizer(folder)};
}

void Generator::refresh() {
  if (model_->pool().is_empty()) return;
  std::optional<std::string> error;
  try {
    model_->pool()->refresh();
  } catch (const Error& failed) {
    error = failed.what();
  }
  const std::lock_guard lock(store_->mutex);
  store_->error = std::move(error);
}

std::optional<std::string> Generator::store_error() const {
  const std::lock_guard lock(store_->mutex);
  return store_->error;
}

std::vector<Generation> Generator::generate(
    const std::vector<std::string>& prompts, const GenerateOptions& options,
    const std::function<bool(std::int64_t, const std::string&)>& on_text) {
  options.validate();
  if (prompts.empty()) throw Error("prompts: expected at least one, got none");
  std::vector<std::vector<std::int32_t>> tokens;
  std::vector<Generation> results(prompts.size());
  std::vector<StreamDecoder> decoders;
  std::vector<serve::TextCutter> cutters;
  for (std::size_t row = 0; row < prompts.size(); ++row) {
    std::vector<std::int32_t> prompt = tokenizer_->encode(prompts[row]);
    if (tokenizer_->bos()) prompt.insert(prompt.begin(), *tokenizer_->bos());
    results[row].prompt_tokens = static_cast<std::int64_t>(prompt.size());
    decoders.emplace_back(tokenizer_, prompt);
    cutters.emplace_back(options.stop);
    tokens.push_back(std::move(prompt));
  }
  const std::set<std::int32_t> ends = end_tokens(model_, *tokenizer_, options);
  const auto give = [&](std::int64_t row, const std::string& text) {
    results[row].text += text;
    return text.empty() || !on_text || on_text(row, text);
  };
  std::vector<char> is_done(prompts.size(), 0);
  const auto stop = [&](std::int64_t row) {
    results[row].finish = FinishReason::kStop;
    is_done[row] = 1;
    return false;
  };
  refresh();
  const std::uint64_t version = decode(
      model_, tokens, tokenizer_->vocab_size(), options, [&](std::int64_t row, std::int32_t token) {
        if (ends.contains(token)) {
          std::string rest = cutters[row].push(decoders[row].finish());
          rest += cutters[row].finish();
          give(row, rest);
          return stop(row);
        }
        results[row].tokens.push_back(token);
        const bool goes_on = give(row, cutters[row].push(decoders[row].push(token)));
        return goes_on && !cutters[row].is_stopped() ? true : stop(row);
      });
  for (std::size_t row = 0; row < prompts.size(); ++row) {
    results[row].pool_version = version;
    if (is_done[row]) continue;
    const auto r = static_cast<std::int64_t>(row);
    const std::string rest = cutters[row].push(decoders[row].finish());
    if (cutters[row].is_stopped()) results[row].finish = FinishReason::kStop;
    give(r, rest + cutters[row].finish());
  }
  return results;
}

std::vector<std::vector<std::int32_t>> Generator::generate_tokens(
    const std::vector<std::vector<std::int32_t>>& prompts, const GenerateOptions& options) {
  options.validate();
  const std::set<std::int32_t> ends = end_tokens(model_, *tokenizer_, options);
  std::vector<std::vector<std::int32_t>> results(prompts.size());
  if (prompts.empty()) return results;
  refresh();
  decode(model_, prompts, tokenizer_->vocab_size(), options,
         [&](std::int64_t row, std::int32_t token) {
           if (ends.contains(token)) return false;
           results[row].push_back(token);
           return true;
         });
  return results;
}

}  // namespace memlayers
