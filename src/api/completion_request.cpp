// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "api/request.h"

namespace memlayers::api {
namespace {

constexpr std::int64_t kUsualTokens = 16;  // as OpenAI's, where nothing is said

const FieldRule kCompletionRules[] = {
    {"prompt",
     R"({"anyOf":[{"type":"string"},{"type":"array","items":{"type":"string"},"minItems":1},
      {"type":"array","items":{"type":"integer","minimum":0},"minItems":1},
      {"type":"array","minItems":1,"items":{"type":"array","items":{"type":"integer","minimum":0},
      "minItems":1}}]})",
     "A text, token ids, or a list of either. Ids are taken as they are."},
    {"max_tokens", R"({"type":"integer","minimum":0,"default":16})", "Of an answer, at most."},
    {"echo", R"({"type":"boolean","default":false})", "The prompt before its answer."},
    {"logprobs", R"({"type":"integer","minimum":0,"maximum":20})",
     "Of each token, and of so many of the most likely ones at its place; with echo of the "
     "prompt's as well."},
    {"add_special_tokens", R"({"type":"boolean","default":true})",
     "Whether the tokenizer's prefix (BOS) stands before a text (vLLM's)."},
    {"parse_special", R"({"type":"boolean","default":false})",
     "Whether a text that spells a control token is one: only for prompts that no stranger wrote."},
    {"best_of", R"({"type":"integer","minimum":1})", "All answers are given: best_of is n."},
    {"suffix", R"({"type":"null"})", "the model does not fill gaps", R"([""])"},
};

class PromptReader {
 public:
  PromptReader(const io::JsonField& body, const Reading& reading)
      : tokenizer_(reading.engine.tokenizer()),
        most_(reading.options.most_prompts),
        adds_special_(body.boolean_or("add_special_tokens", true)),
        parses_special_(body.boolean_or("parse_special", false)) {}

  std::vector<Prompt> read(const io::JsonField& field) const {
    if (field.is_string()) return {of_text(field)};
    const auto& json = field.json();
    if (!json.is_array() || json.empty()) field.fail("a text, token ids, or a list of these");
    if (json[0].is_number()) return {of_ids(field)};
    if (static_cast<std::int64_t>(json.size()) > most_) {
      throw io::FieldError("prompt: expected at most " + std::to_string(most_) + " prompts, got " +
                               std::to_string(json.size()),
                           "prompt");
    }
    std::vector<Prompt> prompts;
    for (const io::JsonField& one : field.elements()) {
      prompts.push_back(one.is_string() ? of_text(one) : of_ids(one));
    }
    return prompts;
  }

 private:
  Prompt of_text(const io::JsonField& field) const {
    Prompt prompt{.text = field.string()};
    if (adds_special_) prompt.tokens = tokenizer_.prefix();
    const std::array pieces{PromptPiece{prompt.text, parses_special_}};
    const auto tokens =
        parses_special_ ? tokenizer_.encode_pieces(pieces) : tokenizer_.encode(prompt.text);
    prompt.tokens.insert(prompt.tokens.end(), tokens.begin(), tokens.end());
    if (prompt.tokens.empty()) field.fail("a text of at least one token");
    return prompt;
  }

  Prompt of_ids(const io::JsonField& field) const {
    Prompt prompt{.tokens = token_ids(field, tokenizer_.vocab_size())};
    if (prompt.tokens.empty()) field.fail("at least one token id");
    prompt.text = tokenizer_.decode(prompt.tokens);
    return prompt;
  }

  const Tokenizer& tokenizer_;
  const std::int64_t most_;
  const bool adds_special_, parses_special_;
};

}  // namespace

FieldRules completion_rules() {
  static const std::vector<FieldRule> rules =
      with_common_rules({std::begin(kCompletionRules), std::end(kCompletionRules)});
  return rules;
}

Asked read_completion(const io::JsonField& body, const Reading& reading) {
  check_fields(body, completion_rules());
  Asked asked;
  read_common(body, reading, asked);
  asked.echo = body.boolean_or("echo", false);
  if (const auto logprobs = body.find("logprobs")) {
    asked.options.logprobs = logprobs->integer(0, kMostLogprobs);
  }
  asked.options.prompt_logprobs = asked.echo && asked.options.logprobs;
  if (const auto best = body.find("best_of"); best && best->integer(1, INT64_MAX) != asked.n) {
    best->fail("as many as n, " + std::to_string(asked.n) + ": all answers are given");
  }
  asked.prompts = PromptReader(body, reading).read(body.at("prompt"));
  fit_context(reading, integer_or(body, "max_tokens", kUsualTokens, 0, kMostTokens), "prompt",
              asked);
  return asked;
}

}  // namespace memlayers::api
