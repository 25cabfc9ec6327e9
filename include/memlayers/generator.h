// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "memlayers/chat.h"
#include "memlayers/decoder.h"
#include "memlayers/llama.h"
#include "memlayers/tokenizer.h"

namespace memlayers {

struct Generation {
  std::string text;  // without the prompt
  std::vector<std::int32_t> tokens = {};
  FinishReason finish = FinishReason::kLength;
  std::int64_t prompt_tokens = 0;
  // Of the pool's store, whose rows all of the answer was made with; 0 without one.
  std::uint64_t pool_version = 0;
  // Where Generator::judge_by() was told how: that a patch taught what the prompt asks for, 0 to 1.
  // The memory was off where that was too little.
  std::optional<double> memory_confidence = {};
  bool memory_is_off = false;
  // Where GenerateOptions::logprobs asks: one for each token, and for the end token if one ended
  // it; one for each token of the prompt.
  std::vector<TokenLogprobs> logprobs = {}, prompt_logprobs = {};
};

// How facts are put to a model that was trained on conversations: the prompt as a user's message,
// behind a system message where one is given; the answer ends as the template ends a message.
struct ChatShape {
  ChatTemplate chat;
  std::optional<std::string> system = {};
};

// A model with its tokenizer, ready to answer; the model is shared, not copied, and put into
// evaluation mode. Each call has its own Decoder; calls from several threads are fine.
// Where the model reads its pool from a store (open_model), each call begins with the edits made so
// far and keeps to that version to its end.
class Generator {
 public:
  Generator(Llama model, std::shared_ptr<const Tokenizer> tokenizer);
  // By open_model(): the pool stays in its files. See resolve_model_folder().
  static Generator load(const std::string& model_folder, const StoreOptions& options = {});

  // Continues every prompt, many at a time, each as it is continued alone (Decoder): prompts that
  // are equal give equal results. A prompt gets its special tokens (Tokenizer::encode_prompt()).
  // `on_text(row, text)` is called with new text as it comes (already cut at stop strings);
  // returning false ends that row. Throws Error for an empty prompt list, a prompt longer than the
  // context, or a row that fails.
  std::vector<Generation> generate(
      const std::vector<std::string>& prompts, const GenerateOptions& options,
      const std::function<bool(std::int64_t, const std::string&)>& on_text = {});

  // The same of prompts in pieces (ChatTemplate::render()): special tokens are those that the
  // template wrote (Tokenizer::encode_pieces()), and no other is added.
  std::vector<Generation> generate_pieces(
      const std::vector<std::vector<PromptPiece>>& prompts, const GenerateOptions& options,
      const std::function<bool(std::int64_t, const std::string&)>& on_text = {});

  // The same by a decoder of the caller's, idle and of this model: where it keeps prefixes
  // (DecoderOptions), what a prompt shares with those of earlier calls is not computed again. A
  // call that throws leaves it idle.
  std::vector<Generation> generate_pieces(
      Decoder& decoder, const std::vector<std::vector<PromptPiece>>& prompts,
      const GenerateOptions& options,
      const std::function<bool(std::int64_t, const std::string&)>& on_text = {});

  // The same from token ids, no text involved: no BOS is added, stop strings are not looked for,
  // and no prompts give no results.
  std::vector<std::vector<std::int32_t>> generate_tokens(
      const std::vector<std::vector<std::int32_t>>& prompts, const GenerateOptions& options);

  // Why the edits of the pool's store could not be followed when a call last tried; calls go on
  // with the version before. Absent: all is well.
  std::optional<std::string> store_error() const;

  // How facts are asked from now on, by evaluate_facts(), learn(), explain(): as text where it is
  // absent, which is so at first. Throws ChatRefusal for a template that does not take such
  // messages.
  void ask_by(std::optional<ChatShape> shape);
  // By the tokenizer's chat template, where there is one.
  void ask_by_its_template();
  const std::optional<ChatShape>& chat() const { return chat_; }
  // As generate(), of prompts put as facts are.
  std::vector<Generation> ask(const std::vector<std::string>& prompts,
                              const GenerateOptions& options);
  // Of a prompt and the pool's rows as a store has them: that a patch taught what the prompt asks
  // for; absent: nobody knows.
  using Judge =
      std::function<std::optional<double>(std::span<const std::int32_t> prompt, const Snapshot&)>;
  // Each prompt is judged from now on (confidence_judge()), and answered without memory, as if all
  // rows were zero, where the judge says less than `least`. Throws Error for one outside of [0, 1].
  void judge_by(Judge judge, std::optional<double> least = {});
  struct Judgement {
    std::optional<double> confidence = {};
    bool is_off = false;
  };
  Judgement judge(std::span<const std::int32_t> prompt, const std::optional<Snapshot>& rows) const;
  // A fact so asked: what stands before the answer, the answer, and what the model says at its end.
  std::vector<std::int32_t> question_tokens(const std::string& prompt) const;
  std::vector<std::int32_t> answer_tokens(const std::string& answer) const;
  const std::vector<std::int32_t>& end_tokens() const { return end_; }

  Llama& model() { return model_; }
  const Llama& model() const { return model_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const std::shared_ptr<const Tokenizer>& shared_tokenizer() const { return tokenizer_; }

 private:
  void refresh();
  std::vector<std::vector<std::int32_t>> encode_all(
      const std::vector<std::vector<PromptPiece>>& prompts) const;
  std::vector<Generation> continue_all(
      Decoder& decoder, const std::vector<std::vector<std::int32_t>>& prompts,
      const GenerateOptions& options,
      const std::function<bool(std::int64_t, const std::string&)>& on_text);

  Llama model_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::optional<ChatShape> chat_;
  Judge judge_;  // none: no prompt is judged
  std::optional<double> least_;
  std::vector<std::int32_t> end_;
  struct StoreState;
  std::shared_ptr<StoreState> store_;
};

}  // namespace memlayers
