// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "memlayers/generator.h"

namespace memlayers {

struct Fact {
  std::string prompt, answer;
  std::string place = {};  // where it was read, "facts.jsonl:7"; empty: nowhere
};

// A number with the 95 % interval it was measured to.
struct Estimate {
  double value = 0, low = 0, high = 0;
};

struct FactScore {
  bool is_recalled = false;
  double nll = 0;  // negative log-likelihood of the answer and EOS, nats
  std::int64_t tokens = 0;
  bool is_cut = false;  // longer than the context: nll and tokens are of the part that fits
  // As the generator judges the prompt (Generator::judge_by()).
  std::optional<double> memory_confidence = {};
  bool memory_is_off = false;
};

struct FactScores {
  Estimate recall;  // share of answers recalled exactly; Wilson's interval
  // Of the facts that fit the context; absent where none does. Nats per answer, mean, with the
  // normal interval of a mean; nats per answer token, EOS included, ratio of sums.
  std::optional<Estimate> nll, nll_per_token;
  std::vector<FactScore> facts;       // in the order given
  std::vector<std::size_t> cut = {};  // those that do not fit the context, ascending
};

// How well a model knows facts. An answer is recalled when greedy decoding behind the prompt gives
// exactly its tokens and then EOS; since greedy decoding is deterministic this is so just when,
// with the answer given, each of its tokens and EOS is the most likely one at its place. One
// forward pass a batch of like lengths decides both figures. A fact that does not fit the context
// is not recalled, and the likelihoods are of the others. Prompts are judged, and the memory is off
// for them, as where the generator answers. `progress(done)` is told after each
// batch. Throws Error for an empty list, and for an answer that has no token.
FactScores evaluate_facts(Generator& generator, const std::vector<Fact>& facts,
                          std::int64_t batch_tokens = 8192,
                          const std::function<void(std::int64_t)>& progress = {});

struct TextScore {
  double loss = 0;  // nats per token
  std::int64_t tokens = 0;
  std::optional<Estimate> interval = {};  // of the loss, where it was measured
};

// Mean loss of the target tokens of text or facts, as training computes it; perplexity is
// exp(loss). Documents stand by themselves where each fits the context, else all are packed.
// `progress(done, all)` is told after each batch, in batches. Throws Error naming the files where
// they hold no token to predict.
TextScore evaluate_text(Generator& generator, const std::vector<std::string>& paths,
                        DataFormat format, const std::string& cache_folder,
                        std::int64_t batch_tokens = 8192,
                        const std::function<void(std::int64_t, std::int64_t)>& progress = {});

struct WindowOptions {
  std::int64_t stride = 512;                // tokens from one window's start to the next one's
  std::optional<std::int64_t> window = {};  // tokens of a window; absent: the model's context
  std::int64_t batch_tokens = 8192;
};

// Mean loss of every token but the first of a document, each seen with what stands before it in its
// window: of text that is longer than the context. Each window predicts what the one before it has
// not; a document is the text between the special tokens that its tokenizer gives it. What Hugging
// Face's documentation calls the perplexity of fixed-length models is exp(loss), but for a token a
// window which that weighs a little less. Of JSONL with prompts the answers are predicted.
// The interval is that of a ratio over blocks of 256 tokens, as if they were independent; absent
// for fewer than 8. `progress(done, all)` is told after each batch, in tokens. Throws Error for a
// window longer than the context, a stride longer than the window, and where the files hold no
// token to predict.
TextScore evaluate_windows(Generator& generator, const std::vector<std::string>& paths,
                           DataFormat format, const WindowOptions& options = {},
                           const std::function<void(std::int64_t, std::int64_t)>& progress = {});

struct Question {
  std::string question;
  std::vector<std::string> choices;
  std::size_t answer = 0;  // which of them is right
  std::string place = {};  // where it was read, "questions.jsonl:7"; empty: nowhere
};

struct QuestionScore {
  std::vector<double> log_likelihoods;  // of each choice behind the question, nats
  std::size_t chosen = 0;               // the most likely one
  std::size_t chosen_by_length = 0;     // that by log-likelihood a character
};

struct ChoiceScores {
  // Shares of right choices among the questions that fit the context, with Wilson's interval;
  // absent where none does.
  std::optional<Estimate> accuracy, accuracy_by_length;
  std::vector<QuestionScore> questions;  // in the order given; empty for those that do not fit
  std::vector<std::size_t> cut = {};     // which do not, ascending
};

// Multiple choice: which continuation of a question a model finds most likely, one blank between
// the two unless either has one there. What lm-evaluation-harness calls acc and acc_norm; tokens
// are cut as it cuts them, those of the whole text behind as many as the question has alone. A
// question of which a choice does not fit the context is left out. `progress(choices)` is told
// after each batch. Throws Error for an empty list, and for a choice that has no token.
ChoiceScores evaluate_choices(Generator& generator, const std::vector<Question>& questions,
                              std::int64_t batch_tokens = 8192,
                              const std::function<void(std::int64_t)>& progress = {});

// Reads JSONL with "question", "choices" and "answer": the number of the right choice, counted from
// 0, or its text. Throws Error naming file, line and field.
std::vector<Question> read_questions(const std::vector<std::string>& paths);

// Reads facts: JSONL with "prompt" and "answer". Throws Error naming the file, and the line or
// fact.
std::vector<Fact> read_facts(const std::vector<std::string>& paths);

}  // namespace memlayers
