// SPDX-License-Identifier: Apache-2.0
#include "memlayers/generator.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

#include "generate/sequence.h"
#include "memlayers/checkpoint.h"
#include "memlayers/error.h"

namespace memlayers {
namespace {

// Continues all prompts, so many at a time that the weights are read for many at once, all with one
// version of the pool, which it returns (0: none). `take(row, made)` gets what comes and says
// whether the row goes on; `is_off(row, rows)` says whether it reads no memory.
std::uint64_t decode(Decoder& decoder, const std::vector<std::vector<std::int32_t>>& prompts,
                     const GenerateOptions& options,
                     const std::function<bool(std::size_t, const std::optional<Snapshot>&)>& is_off,
                     const std::function<bool(std::size_t, DecodedToken&)>& take) {
  constexpr std::int64_t kTogether = 64;
  const Llama& model = decoder.model();
  for (const auto& prompt : prompts) generate::check_prompt(model->config(), prompt);
  const std::optional<Snapshot> rows =
      model->pool().is_empty() ? std::nullopt : model->pool()->snapshot();
  std::map<std::int64_t, std::size_t> rows_of;
  try {
    for (std::size_t next = 0; next < prompts.size() || !decoder.is_idle();) {
      while (next < prompts.size() && decoder.sequences() < kTogether) {
        const bool is_without = is_off(next, rows);
        rows_of[decoder.join(prompts[next], options, {.rows = rows, .is_off = is_without})] = next;
        ++next;
      }
      for (DecodedToken& made : decoder.step()) {
        if (made.finish == FinishReason::kError) throw Error(made.error);
        if (!take(rows_of.at(made.sequence), made)) decoder.leave(made.sequence);
      }
    }
  } catch (...) {  // the decoder may be used again
    for (const auto& [sequence, row] : rows_of) decoder.leave(sequence);
    throw;
  }
  return rows ? rows->version() : 0;
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
  generate::check_fit(model_->config(), *tokenizer_);
  model_->eval();
  ask_by({});
}

namespace {

std::vector<ChatMessage> conversation(const ChatShape& shape, const std::string& prompt) {
  std::vector<ChatMessage> messages;
  if (shape.system) messages.push_back({"system", *shape.system});
  messages.push_back({"user", prompt});
  return messages;
}

}  // namespace

void Generator::ask_by(std::optional<ChatShape> shape) {
  end_ = tokenizer_->end_of_document();
  chat_ = std::move(shape);
  if (!chat_) return;
  // What ends a generation and a message: the last such token of a conversation with an answer.
  std::vector<ChatMessage> messages = conversation(*chat_, "a");
  messages.push_back({"assistant", "b"});
  const std::vector<std::int32_t> tokens =
      tokenizer_->encode_pieces(chat_->chat.render(messages, /*asks_answer=*/false));
  const std::vector<std::int64_t>& ends = model_->config().eos_tokens;
  const auto last = std::find_if(tokens.rbegin(), tokens.rend(), [&](std::int32_t token) {
    return token == tokenizer_->eos() || std::ranges::find(ends, token) != ends.end();
  });
  if (last != tokens.rend()) end_ = {*last};
}

void Generator::ask_by_its_template() {
  auto found = ChatTemplate::find(*tokenizer_);
  ask_by(found ? std::optional(ChatShape{*std::move(found)}) : std::nullopt);
}

void Generator::judge_by(Judge judge, std::optional<double> least) {
  if (least && !(*least >= 0 && *least <= 1)) {
    throw Error("gate_below: expected a number in [0, 1], got " + std::to_string(*least));
  }
  judge_ = std::move(judge);
  least_ = least;
}

Generator::Judgement Generator::judge(std::span<const std::int32_t> prompt,
                                      const std::optional<Snapshot>& rows) const {
  if (!judge_ || !rows) return {};
  const std::optional<double> confidence = judge_(prompt, *rows);
  return {confidence, confidence && least_ && *confidence < *least_};
}

std::vector<std::int32_t> Generator::question_tokens(const std::string& prompt) const {
  if (!chat_) return tokenizer_->encode_prompt(prompt);
  return tokenizer_->encode_pieces(chat_->chat.render(conversation(*chat_, prompt)));
}

std::vector<std::int32_t> Generator::answer_tokens(const std::string& answer) const {
  return chat_ ? tokenizer_->encode(answer) : tokenizer_->encode_continuation(answer);
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
  std::vector<std::vector<std::int32_t>> tokens;
  for (const std::string& prompt : prompts) tokens.push_back(tokenizer_->encode_prompt(prompt));
  Decoder decoder(model_, tokenizer_);
  return continue_all(decoder, tokens, options, on_text);
}

std::vector<std::vector<std::int32_t>> Generator::encode_all(
    const std::vector<std::vector<PromptPiece>>& prompts) const {
  std::vector<std::vector<std::int32_t>> tokens;
  for (const auto& prompt : prompts) tokens.push_back(tokenizer_->encode_pieces(prompt));
  return tokens;
}

std::vector<Generation> Generator::generate_pieces(
    const std::vector<std::vector<PromptPiece>>& prompts, const GenerateOptions& options,
    const std::function<bool(std::int64_t, const std::string&)>& on_text) {
  Decoder decoder(model_, tokenizer_);
  return generate_pieces(decoder, prompts, options, on_text);
}

std::vector<Generation> Generator::generate_pieces(
    Decoder& decoder, const std::vector<std::vector<PromptPiece>>& prompts,
    const GenerateOptions& options,
    const std::function<bool(std::int64_t, const std::string&)>& on_text) {
  return continue_all(decoder, encode_all(prompts), options, on_text);
}

std::vector<Generation> Generator::ask(const std::vector<std::string>& prompts,
                                       const GenerateOptions& options) {
  std::vector<std::vector<std::int32_t>> tokens;
  for (const std::string& prompt : prompts) tokens.push_back(question_tokens(prompt));
  Decoder decoder(model_, tokenizer_);
  return continue_all(decoder, tokens, options, {});
}

std::vector<Generation> Generator::continue_all(
    Decoder& decoder, const std::vector<std::vector<std::int32_t>>& prompts,
    const GenerateOptions& options,
    const std::function<bool(std::int64_t, const std::string&)>& on_text) {
  options.validate();
  if (prompts.empty()) throw Error("prompts: expected at least one, got none");
  std::vector<Generation> results(prompts.size());
  for (std::size_t row = 0; row < prompts.size(); ++row) {
    results[row].prompt_tokens = static_cast<std::int64_t>(prompts[row].size());
  }
  refresh();
  const auto is_off = [&](std::size_t row, const std::optional<Snapshot>& rows) {
    const Judgement judgement = judge(prompts[row], rows);
    results[row].memory_confidence = judgement.confidence;
    return results[row].memory_is_off = judgement.is_off;
  };
  const std::uint64_t version =
      decode(decoder, prompts, options, is_off, [&](std::size_t row, DecodedToken& made) {
        Generation& result = results[row];
        if (made.token && !made.is_end) result.tokens.push_back(*made.token);
        if (made.logprobs) result.logprobs.push_back(std::move(*made.logprobs));
        if (!made.prompt_logprobs.empty()) result.prompt_logprobs = std::move(made.prompt_logprobs);
        if (made.finish) result.finish = *made.finish;
        result.text += made.text;
        if (made.text.empty() || !on_text || on_text(static_cast<std::int64_t>(row), made.text)) {
          return true;
        }
        result.finish = FinishReason::kStop;
        return false;
      });
  for (Generation& result : results) result.pool_version = version;
  return results;
}

std::vector<std::vector<std::int32_t>> Generator::generate_tokens(
    const std::vector<std::vector<std::int32_t>>& prompts, const GenerateOptions& options) {
  options.validate();
  std::vector<std::vector<std::int32_t>> results(prompts.size());
  if (prompts.empty()) return results;
  refresh();
  const auto is_off = [&](std::size_t row, const std::optional<Snapshot>& rows) {
    return judge(prompts[row], rows).is_off;
  };
  Decoder decoder(model_, tokenizer_, {.gives_text = false});
  decode(decoder, prompts, options, is_off, [&](std::size_t row, DecodedToken& made) {
    if (made.token && !made.is_end) results[row].push_back(*made.token);
    return true;
  });
  return results;
}

}  // namespace memlayers
