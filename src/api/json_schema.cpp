// SPDX-License-Identifier: Apache-2.0
#include "api/json_schema.h"

#include <algorithm>

#include "api/grammar/filter.h"
#include "api/grammar/schema.h"
#include "memlayers/error.h"

namespace memlayers::api {
namespace {

constexpr std::size_t kMostKept = 16;

std::shared_ptr<const grammar::TokenTree> tree_of(const Tokenizer& tokenizer) {
  auto tree = std::make_shared<grammar::TokenTree>(tokenizer);
  for (unsigned char byte = 0x20; byte < 0x7F; ++byte) {
    if (tree->single_bytes()[byte]) continue;
    throw Error(tokenizer.file_name() +
                ": expected a token for each ASCII character, to write JSON with, got none for " +
                std::string(1, static_cast<char>(byte)));
  }
  return tree;
}

}  // namespace

JsonGrammars::JsonGrammars(const Tokenizer& tokenizer, std::vector<std::int32_t> end_tokens)
    : tree_(tree_of(tokenizer)), end_tokens_(std::move(end_tokens)) {}

JsonGrammars::~JsonGrammars() = default;

std::shared_ptr<const Grammar> JsonGrammars::schema(std::string_view schema) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = std::ranges::find(
        kept_, schema, [](const auto& kept) { return std::string_view(kept.first); });
    if (found != kept_.end()) {
      kept_.splice(kept_.begin(), kept_, found);
      return found->second;
    }
  }
  auto made = std::make_shared<grammar::TokenGrammar>(
      grammar::compile_schema(schema, tree_->single_bytes()), tree_, end_tokens_);
  const std::lock_guard lock(mutex_);
  kept_.emplace_front(std::string(schema), made);
  if (kept_.size() > kMostKept) kept_.pop_back();
  return made;
}

std::shared_ptr<const Grammar> JsonGrammars::object() { return schema(R"({"type":"object"})"); }

}  // namespace memlayers::api
