// SPDX-License-Identifier: Apache-2.0
#include "io/gguf/vocabulary.h"

#include <algorithm>
#include <string_view>
#include <unordered_set>

#include "io/shown.h"
#include "io/utf8.h"
#include "memlayers/error.h"

namespace memlayers::io::gguf {
namespace {

constexpr const char* kTokens = "tokenizer.ggml.tokens";

std::optional<std::int64_t> token_id(const Metadata& metadata, const std::string& name,
                                     std::int64_t vocab_size) {
  const auto field = metadata.find("tokenizer.ggml." + name + "_token_id");
  if (!field) return std::nullopt;
  return field->integer(0, vocab_size - 1);
}

std::vector<TokenKind> read_kinds(const Metadata& metadata, std::size_t tokens) {
  const auto field = metadata.find("tokenizer.ggml.token_type");
  if (!field) return std::vector<TokenKind>(tokens, TokenKind::kNormal);
  std::vector<TokenKind> kinds;
  for (const std::int64_t kind : field->integers()) {
    const bool is_known = kind >= 1 && kind <= 6;
    // 0, "undefined", is what llama.cpp makes of all others.
    kinds.push_back(is_known ? static_cast<TokenKind>(kind) : TokenKind::kNormal);
  }
  if (kinds.size() != tokens) {
    field->fail(std::to_string(tokens) + " elements, as many as there are tokens");
  }
  return kinds;
}

}  // namespace

std::vector<std::int64_t> SpecialTokens::ends() const {
  std::vector<std::int64_t> all;
  for (const auto& token : {eos, end_of_turn, end_of_message}) {
    if (token && std::ranges::find(all, *token) == all.end()) all.push_back(*token);
  }
  return all;
}

SpecialTokens read_special_tokens(const Metadata& metadata) {
  SpecialTokens special;
  const auto tokens = metadata.find(kTokens);
  if (!tokens) return special;
  const std::uint64_t count = tokens->count();
  if (count == 0 || count > kMostTokens) {
    tokens->fail("1 to " + std::to_string(kMostTokens) + " tokens");
  }
  special.vocab_size = static_cast<std::int64_t>(count);
  const auto read = [&](const char* name) { return token_id(metadata, name, special.vocab_size); };
  special.bos = read("bos");
  special.eos = read("eos");
  special.unknown = read("unknown");
  special.pad = read("padding");
  special.end_of_turn = read("eot");
  special.end_of_message = read("eom");
  const auto model = metadata.find("tokenizer.ggml.model");
  if (model && model->string() == "llama" && special.vocab_size > 2) {  // as llama.cpp has them
    if (!special.unknown) special.unknown = 0;
    if (!special.bos) special.bos = 1;
    if (!special.eos) special.eos = 2;
  }
  return special;
}

Vocabulary read_vocabulary(const Metadata& metadata) {
  const Field field = metadata.at(kTokens);
  if (field.count() == 0 || field.count() > kMostTokens) {
    field.fail("1 to " + std::to_string(kMostTokens) + " tokens");
  }
  Vocabulary vocabulary;
  vocabulary.tokens = field.strings();
  std::unordered_set<std::string_view> known;
  known.reserve(vocabulary.tokens.size());
  for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    std::string& token = vocabulary.tokens[i];
    const std::string where =
        metadata.path() + ": " + std::string(kTokens) + "[" + std::to_string(i) + "]";
    check_utf8(token, where);
    if (token.empty()) token = "[EMPTY_" + std::to_string(i) + "]";
    if (!known.insert(token).second) {
      throw Error(where + ": expected each token once, got " + quote(token) + " again");
    }
  }
  vocabulary.kinds = read_kinds(metadata, vocabulary.tokens.size());
  return vocabulary;
}

}  // namespace memlayers::io::gguf
