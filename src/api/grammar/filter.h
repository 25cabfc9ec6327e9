// SPDX-License-Identifier: Apache-2.0
// A Program over a model's tokens: what a sampler asks.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "api/grammar/program.h"
#include "api/grammar/token_tree.h"
#include "api/grammar/walk.h"
#include "memlayers/generate_options.h"

namespace memlayers::api::grammar {

// The tokens that may come at places of one stack, whatever that is.
struct TokenMask {
  TokenBits bits = {};                    // either these
  std::vector<std::int32_t> tokens = {};  // or these, where they are few
  std::vector<std::uint32_t> over = {};   // below these nodes the stack decides
};

// Throws Refusal 400 where no answer satisfies the program.
class TokenGrammar : public Grammar, public std::enable_shared_from_this<TokenGrammar> {
 public:
  TokenGrammar(Program program, std::shared_ptr<const TokenTree> tree,
               std::vector<std::int32_t> end_tokens);
  std::unique_ptr<TokenFilter> begin() const override;

  const Program& program() const { return program_; }
  const TokenTree& tree() const { return *tree_; }
  const std::vector<std::int32_t>& end_tokens() const { return end_tokens_; }
  // `configs` of one stack, below which `room` rules may be called.
  std::shared_ptr<const TokenMask> mask(std::vector<Config> configs, std::uint32_t room) const;

 private:
  std::uint32_t like(NodeId node, std::uint32_t count) const;

  const Program program_;
  const std::shared_ptr<const TokenTree> tree_;
  const std::vector<std::int32_t> end_tokens_;
  mutable std::mutex mutex_;
  // Guarded by mutex_. By the bytes of configs and room.
  mutable std::unordered_map<std::string, std::shared_ptr<const TokenMask>> masks_;
  mutable std::size_t mask_bytes_ = 0;
};

}  // namespace memlayers::api::grammar
