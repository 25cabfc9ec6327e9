// SPDX-License-Identifier: Apache-2.0
#include "api/grammar/filter.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <limits>
#include <string>
#include <utility>

#include "api/engine.h"

namespace memlayers::api::grammar {
namespace {

constexpr std::size_t kMostMaskBytes = std::size_t{8} << 20;  // of one grammar

class Filter : public TokenFilter {
 public:
  explicit Filter(std::shared_ptr<const TokenGrammar> grammar)
      : grammar_(std::move(grammar)),
        reader_(grammar_->program(), stacks_, kMostDepth),
        state_(reader_.begin()) {}

  void apply(std::span<float> logits) const override {
    const TokenTree& tree = grammar_->tree();
    TokenBits bits((static_cast<std::size_t>(tree.vocab_size()) + 63) / 64);
    for (std::size_t i = 0; i < state_.configs.size();) {
      const std::uint32_t stack = state_.configs[i].stack;
      std::vector<Config> together;
      for (; i < state_.configs.size() && state_.configs[i].stack == stack; ++i) {
        together.push_back(state_.configs[i]);
      }
      add(std::move(together), stack, bits);
    }
    if (state_.is_over) set_bits(bits, grammar_->end_tokens());
    constexpr float kNever = -std::numeric_limits<float>::infinity();
    for (std::size_t word = 0; word * 64 < logits.size(); ++word) {
      const std::uint64_t allowed = word < bits.size() ? bits[word] : 0;
      if (allowed == ~std::uint64_t{0}) continue;
      const auto part =
          logits.subspan(word * 64, std::min<std::size_t>(64, logits.size() - word * 64));
      if (allowed == 0) {
        std::ranges::fill(part, kNever);
        continue;
      }
      for (std::size_t i = 0; i < part.size(); ++i) {
        if ((allowed >> i & 1) == 0) part[i] = kNever;
      }
    }
  }

  void take(std::int32_t token) override {
    if (std::ranges::find(grammar_->end_tokens(), token) != grammar_->end_tokens().end()) return;
    State state = std::move(state_);
    for (const char byte : grammar_->tree().bytes_of(token)) {
      state = reader_.step(state, static_cast<unsigned char>(byte));
    }
    assert(!state.is_empty() && "a token that apply() left");
    if (state.configs.size() > kMostConfigs) state.configs.resize(kMostConfigs);
    // Those of one stack side by side, as apply() takes them.
    std::ranges::stable_sort(state.configs, {}, &Config::stack);
    state_ = std::move(state);
  }

 private:
  void add(std::vector<Config> configs, std::uint32_t stack, TokenBits& bits) const {
    const auto mask = grammar_->mask(std::move(configs), kMostDepth - stacks_.depth(stack));
    for (std::size_t word = 0; word < mask->bits.size(); ++word) bits[word] |= mask->bits[word];
    set_bits(bits, mask->tokens);
    if (stack == 0 || mask->over.empty()) return;
    const std::size_t size = stacks_.size();
    {
      Walk walk(grammar_->program(), grammar_->tree(), reader_, reader_.returned(stack));
      for (const std::uint32_t node : mask->over) walk.run(node, bits);
    }
    stacks_.shrink(size);
  }

  const std::shared_ptr<const TokenGrammar> grammar_;
  mutable Stacks stacks_;  // as they were when apply() returns
  const Reader reader_;
  State state_;
};

std::string key_of(const std::vector<Config>& configs, std::uint32_t room) {
  std::string key(reinterpret_cast<const char*>(configs.data()), configs.size() * sizeof(Config));
  return key += std::to_string(room);
}

}  // namespace

TokenGrammar::TokenGrammar(Program program, std::shared_ptr<const TokenTree> tree,
                           std::vector<std::int32_t> end_tokens)
    : program_(std::move(program)), tree_(std::move(tree)), end_tokens_(std::move(end_tokens)) {
  if (program_.height(program_.rule(program_.root()).start) > kMostDepth) {
    throw Refusal(400, "invalid_json_schema",
                  "response_format: expected a schema that some JSON of at most " +
                      std::to_string(kMostDepth) +
                      " levels satisfies, spelled by this model's tokens, got one that none does",
                  "response_format");
  }
}

std::unique_ptr<TokenFilter> TokenGrammar::begin() const {
  return std::make_unique<Filter>(shared_from_this());
}

// A count that no token can tell from this one: where the loop's limits are further than its bytes.
std::uint32_t TokenGrammar::like(NodeId node, std::uint32_t count) const {
  const Rule& rule = program_.rule(program_.node(node).rule);
  const auto reach = static_cast<std::uint32_t>(tree_->longest() + 2);
  if (rule.least > reach && count < rule.least - reach) return 0;
  const bool far = rule.most == kUnlimited || (rule.most > reach && count < rule.most - reach);
  return far && count >= rule.least ? rule.least : count;
}

std::shared_ptr<const TokenMask> TokenGrammar::mask(std::vector<Config> configs,
                                                    std::uint32_t room) const {
  for (Config& config : configs) {
    config.stack = 0;
    config.count = like(config.node, config.count);
  }
  std::ranges::sort(configs);
  configs.erase(std::ranges::unique(configs).begin(), configs.end());
  room = std::min(
      room, static_cast<std::uint32_t>(tree_->most_openings()) + 3 + program_.greatest_height());
  const std::string key = key_of(configs, room);
  const std::lock_guard lock(mutex_);
  if (const auto found = masks_.find(key); found != masks_.end()) return found->second;

  Stacks stacks;
  const Reader reader(program_, stacks, room);
  Walk walk(program_, *tree_, reader, {.configs = std::move(configs)});
  auto mask = std::make_shared<TokenMask>();
  mask->bits.resize((static_cast<std::size_t>(tree_->vocab_size()) + 63) / 64);
  walk.run(0, mask->bits);
  mask->over = walk.over();
  std::size_t count = 0;
  for (const std::uint64_t word : mask->bits)
    count += static_cast<std::size_t>(std::popcount(word));
  if (count < mask->bits.size()) {
    for (std::int32_t token = 0; token < tree_->vocab_size(); ++token) {
      if (mask->bits[static_cast<std::size_t>(token) / 64] >> (token % 64) & 1) {
        mask->tokens.push_back(token);
      }
    }
    mask->bits = {};
  }
  const std::size_t bytes = sizeof(TokenMask) + key.size() + 8 * mask->bits.size() +
                            4 * (mask->tokens.size() + mask->over.size());
  if (mask_bytes_ + bytes > kMostMaskBytes) {
    masks_.clear();
    mask_bytes_ = 0;
  }
  mask_bytes_ += bytes;
  return masks_[key] = std::move(mask);
}

}  // namespace memlayers::api::grammar
