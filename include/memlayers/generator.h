// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "memlayers/llama.h"
#include "memlayers/tokenizer.h"

namespace memlayers {

struct GenerateOptions {
  std::int64_t max_tokens = 128;
  double temperature = 0;                  // 0: greedy
  std::optional<std::int64_t> top_k = {};  // keep the k most likely tokens
  std::optional<double> top_p = {};        // keep the smallest set with this much probability
  std::uint64_t seed = 0;                  // row b of a batch draws from (seed, b)
  std::vector<std::string> stop = {};      // text that ends a generation; not part of the result
  bool ignore_eos = false;

  void validate() const;  // throws Error naming the first wrong field
};

enum class FinishReason { kStop /* EOS or stop string */, kLength /* max_tokens or context */ };

struct Generation {
  std::string text;  // without the prompt
  std::vector<std::int32_t> tokens = {};
  FinishReason finish = FinishReason::kLength;
  std::int64_t prompt_tokens = 0;
  // Of the pool's store, whose rows all of the answer was made with; 0 without one.
  std::uint64_t pool_version = 0;
};

// A model with its tokenizer, ready to answer; the model is shared, not copied, and put into
// evaluation mode. generate() holds one KV cache per call; calls from several threads are fine.
// Where the model reads its pool from a store (open_model), each call begins with the edits made so
// far and keeps to that version to its end.
class Generator {
 public:
  Generator(Llama model, std::shared_ptr<const Tokenizer> tokenizer);
  // By open_model(): the pool stays in its files. See resolve_model_folder().
  static Generator load(const std::string& model_folder, const StoreOptions& options = {});

  // Continues every prompt, all in one batch. A prompt gets BOS where the tokenizer has one.
  // `on_text(row, text)` is called with new text as it comes (already cut at stop strings);
  // returning false ends that row. Throws Error for an empty prompt list or a prompt longer than
  // the context.
  std::vector<Generation> generate(
      const std::vector<std::string>& prompts, const GenerateOptions& options,
      const std::function<bool(std::int64_t, const std::string&)>& on_text = {});

  // The same from token ids, no text involved: no BOS is added, stop strings are not looked for,
  // and no prompts give no results.
  std::vector<std::vector<std::int32_t>> generate_tokens(
      const std::vector<std::vector<std::int32_t>>& prompts, const GenerateOptions& options);

  // Why the edits of the pool's store could not be followed when a call last tried; calls go on
  // with the version before. Absent: all is well.
  std::optional<std::string> store_error() const;

  Llama& model() { return model_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }

 private:
  void refresh();

  Llama model_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  struct StoreState;
  std::shared_ptr<StoreState> store_;
};

}  // namespace memlayers
