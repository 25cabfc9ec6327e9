// SPDX-License-Identifier: Apache-2.0
#include "text/gguf_tokenizer.h"

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "io/gguf/tokenizer.h"
#include "io/gguf/vocabulary.h"
#include "io/json.h"
#include "io/json_field.h"
#include "memlayers/error.h"
#include "text/spelled_byte.h"
#include "text/tokenizer_file.h"

namespace memlayers::text {
namespace {

using io::JsonField;
using io::gguf::TokenKind;
using nlohmann::json;

constexpr std::string_view kSpace = "\xE2\x96\x81";  // as SentencePiece spells a space

// Without what makes no difference to ids: how offsets are counted, and defaults.
json plain(json part) {
  if (part.is_object()) {
    part.erase("trim_offsets");
    if (part.value("type", "") == "Split" && !part.value("invert", false)) part.erase("invert");
    if (part.value("type", "") == "ByteLevel") part.emplace("use_regex", true);
    for (auto& [name, member] : part.items()) member = plain(member);
  } else if (part.is_array()) {
    for (json& element : part) element = plain(element);
  }
  return part;
}

// tokenizer.ggml.pre of words that are cut so; "" where it has no name. No file says that a text is
// normalized, and for Qwen's, whose tokenizers do so, no reader of GGUF does it.
std::string words_of(const json& tokenizer, const JsonField& model) {
  const json normalizer = tokenizer.value("normalizer", json());
  const bool is_nfc = normalizer.is_object() && normalizer.value("type", "") == "NFC";
  const bool ignores_merges = model.boolean_or("ignore_merges", false);
  for (const io::gguf::KnownWords& known : io::gguf::known_words()) {
    if (!normalizer.is_null() && !(is_nfc && known.name == "qwen2")) continue;
    if (known.ignores_merges != ignores_merges) continue;
    if (plain(json::parse(known.json)) == plain(tokenizer.value("pre_tokenizer", json()))) {
      return known.name;
    }
  }
  return "";
}

std::vector<std::pair<std::string, std::string>> merges_of(const JsonField& model) {
  std::vector<std::pair<std::string, std::string>> merges;
  for (const JsonField& merge : model.at("merges").elements()) {
    if (merge.is_string()) {  // the older spelling
      const std::string& text = merge.string();
      const std::size_t space = text.find(' ');
      merges.emplace_back(text.substr(0, space), text.substr(space + 1));
    } else {
      const auto both = merge.elements();
      merges.emplace_back(both.at(0).string(), both.at(1).string());
    }
  }
  return merges;
}

std::string padding_token(std::int64_t id) { return "[PAD" + std::to_string(id) + "]"; }

std::string with_spaces(std::string text) {
  for (std::size_t at = text.find(kSpace); at != std::string::npos; at = text.find(kSpace, at)) {
    text.replace(at, kSpace.size(), " ");
  }
  return text;
}

struct Tokens {
  std::vector<std::string> texts;
  std::vector<std::int32_t> kinds;
};

Tokens tokens_of(const Tokenizer& tokenizer, const JsonField& root, std::int64_t vocab_size) {
  std::map<std::int64_t, TokenKind> added;
  if (const auto list = root.find("added_tokens")) {
    for (const JsonField& token : list->elements()) {
      added[token.at("id").count()] =
          token.boolean_or("special", false) ? TokenKind::kControl : TokenKind::kUserDefined;
    }
  }
  Tokens tokens;
  for (std::int64_t id = 0; id < vocab_size; ++id) {
    std::string text =
        id < tokenizer.vocab_size() ? tokenizer.token(static_cast<std::int32_t>(id)) : "";
    TokenKind kind = TokenKind::kNormal;
    if (text.empty()) {
      text = padding_token(id);
      kind = TokenKind::kUnused;
    } else if (const auto found = added.find(id); found != added.end()) {
      kind = found->second;
    }
    tokens.texts.push_back(std::move(text));
    tokens.kinds.push_back(static_cast<std::int32_t>(kind));
  }
  return tokens;
}

void put_kinds(io::gguf::Writer& writer, const Tokens& tokens) {
  writer.texts("tokenizer.ggml.tokens", tokens.texts);
  writer.integers("tokenizer.ggml.token_type", tokens.kinds);
}

void put_bytes_model(io::gguf::Writer& writer, const std::string& words, const Tokens& tokens,
                     const JsonField& model) {
  writer.text("tokenizer.ggml.model", "gpt2");
  writer.text("tokenizer.ggml.pre", words);
  put_kinds(writer, tokens);
  std::vector<std::string> merges;
  for (const auto& [left, right] : merges_of(model)) merges.push_back(left + " " + right);
  writer.texts("tokenizer.ggml.merges", merges);
}

// Scores in the order of merges. One token has one score: where the merges that give it do not
// stand together, no scores say the same.
std::vector<float> scores_of(const Tokens& tokens, const JsonField& model,
                             const std::string& where) {
  std::map<std::string, float> scores;
  std::string last;
  for (const auto& [left, right] : merges_of(model)) {
    const std::string token = left + right;
    if (token == last) continue;
    if (!scores.emplace(token, -static_cast<float>(scores.size())).second) {
      throw Error(where +
                  ": model.merges: expected those that give one token one after the other, "
                  "as scores have them, got \"" +
                  token + "\" again");
    }
    last = token;
  }
  std::vector<float> all;
  const auto least = -static_cast<float>(scores.size());
  for (const std::string& text : tokens.texts) {
    const auto found = scores.find(text);
    all.push_back(found == scores.end() ? least : found->second);
  }
  return all;
}

// Whether a space is put before a text, by a tokenizer that spells spaces as SentencePiece; throws
// Error where it does not.
bool adds_space(const json& tokenizer, const std::string& where) {
  const json prepend = {{"type", "Prepend"}, {"prepend", kSpace}};
  const json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpace}};
  const json normalizer = tokenizer.value("normalizer", json());
  const json steps = normalizer.is_object() && normalizer.value("type", "") == "Sequence"
                         ? normalizer["normalizers"]
                         : json::array({normalizer});
  const bool has_words =
      tokenizer.contains("pre_tokenizer") && !tokenizer["pre_tokenizer"].is_null();
  if (!has_words && steps == json::array({prepend, replace})) return true;
  if (!has_words && steps == json::array({replace})) return false;
  throw Error(where +
              ": normalizer, pre_tokenizer: expected words that GGUF has a name for, or "
              "spaces spelled as SentencePiece does by a normalizer, got others");
}

void put_scored_model(io::gguf::Writer& writer, Tokens tokens, const JsonField& model,
                      const json& tokenizer, const std::string& where) {
  const bool has_space = adds_space(tokenizer, where);
  if (!model.boolean_or("byte_fallback", false)) model.at("byte_fallback").fail("true");
  writer.text("tokenizer.ggml.model", "llama");
  writer.flag("tokenizer.ggml.add_space_prefix", has_space);
  const std::string unknown = model.string_or("unk_token", "");
  for (std::size_t i = 0; i < tokens.texts.size(); ++i) {
    TokenKind kind = static_cast<TokenKind>(tokens.kinds[i]);
    if (read_spelled_byte(tokens.texts[i])) kind = TokenKind::kByte;
    if (!unknown.empty() && tokens.texts[i] == unknown) {
      kind = TokenKind::kUnknown;
      writer.count("tokenizer.ggml.unknown_token_id", static_cast<std::int64_t>(i));
    }
    tokens.kinds[i] = static_cast<std::int32_t>(kind);
  }
  put_kinds(writer, tokens);
  writer.numbers("tokenizer.ggml.scores", scores_of(tokens, model, where));
}

// GGUF's SentencePiece models are BPE and take a text as it is.
void put_sentencepiece(io::gguf::Writer& writer, const Tokenizer& tokenizer,
                       std::int64_t vocab_size, const std::string& where) {
  const SentencePieceTraits traits = check_sentencepiece(where, tokenizer.file_bytes());
  if (!traits.is_bpe || !traits.chars_map.is_empty() || traits.remove_extra_whitespaces) {
    throw Error(where +
                ": expected a SentencePiece model of type BPE that takes text as it is, got "
                "one of " +
                (traits.is_bpe ? "a normalizer" : "type unigram"));
  }
  Tokens tokens;
  std::vector<float> scores;
  for (ScoredPiece& piece : scored_pieces(where, tokenizer.file_bytes())) {
    const auto kind = static_cast<TokenKind>(piece.type);
    if (kind == TokenKind::kUnknown) {
      writer.count("tokenizer.ggml.unknown_token_id",
                   static_cast<std::int64_t>(tokens.texts.size()));
    }
    if (kind == TokenKind::kUserDefined) piece.text = with_spaces(piece.text);  // as text has them
    tokens.texts.push_back(std::move(piece.text));
    tokens.kinds.push_back(piece.type);
    scores.push_back(piece.score);
  }
  for (auto id = static_cast<std::int64_t>(scores.size()); id < vocab_size; ++id) {
    tokens.texts.push_back(padding_token(id));
    tokens.kinds.push_back(static_cast<std::int32_t>(TokenKind::kUnused));
    scores.push_back(0);
  }
  writer.text("tokenizer.ggml.model", "llama");
  writer.flag("tokenizer.ggml.add_space_prefix", traits.add_dummy_prefix);
  put_kinds(writer, tokens);
  writer.numbers("tokenizer.ggml.scores", scores);
}

void put_json(io::gguf::Writer& writer, const Tokenizer& tokenizer, std::int64_t vocab_size,
              const std::string& where) {
  const json parsed = io::parse_json(tokenizer.file_bytes(), where);
  const JsonField root(parsed, where);
  const Tokens tokens = tokens_of(tokenizer, root, vocab_size);
  const std::string words = words_of(parsed, root.at("model"));
  if (words.empty()) {
    put_scored_model(writer, tokens, root.at("model"), parsed, where);
  } else {
    put_bytes_model(writer, words, tokens, root.at("model"));
  }
}

void put_frame(io::gguf::Writer& writer, const Tokenizer& tokenizer, const std::string& where) {
  const auto is_one = [](const std::vector<std::int32_t>& side,
                         const std::optional<std::int32_t>& token) {
    return side.size() == 1 && token == side.front();
  };
  const bool has_bos = !tokenizer.prefix().empty(), has_eos = !tokenizer.suffix().empty();
  if ((has_bos && !is_one(tokenizer.prefix(), tokenizer.bos())) ||
      (has_eos && !is_one(tokenizer.suffix(), tokenizer.eos()))) {
    throw Error(where + ": expected BOS alone before a text and EOS alone behind it, got others");
  }
  const auto count = [&](const char* key, std::optional<std::int32_t> token) {
    if (token) writer.count(key, *token);
  };
  count("tokenizer.ggml.bos_token_id", tokenizer.bos());
  count("tokenizer.ggml.eos_token_id", tokenizer.eos());
  count("tokenizer.ggml.padding_token_id", tokenizer.pad());
  writer.flag("tokenizer.ggml.add_bos_token", has_bos);
  writer.flag("tokenizer.ggml.add_eos_token", has_eos);
}

}  // namespace

void put_tokenizer(io::gguf::Writer& writer, const Tokenizer& tokenizer, std::int64_t vocab_size,
                   const std::string& where) {
  if (tokenizer.vocab_size() > vocab_size) {
    throw Error(where + ": expected a tokenizer of at most " + std::to_string(vocab_size) +
                " tokens, as the model has, got " + std::to_string(tokenizer.vocab_size()));
  }
  const std::string file = where + ": " + tokenizer.file_name();
  if (tokenizer.file_name() == "tokenizer.json") {
    put_json(writer, tokenizer, vocab_size, file);
  } else {
    put_sentencepiece(writer, tokenizer, vocab_size, file);
  }
  put_frame(writer, tokenizer, where);
}

}  // namespace memlayers::text
