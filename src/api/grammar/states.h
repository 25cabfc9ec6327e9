// SPDX-License-Identifier: Apache-2.0
// Where reading a text by a Program may stand: all places at once, with the rules that were called.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "api/grammar/program.h"

namespace memlayers::api::grammar {

// What a rule that ends goes on with.
struct Frame {
  NodeId node = 0;
  std::uint32_t count = 0, stack = 0;
  auto operator<=>(const Frame&) const = default;
};

// Sets of frames; equal ones have one number, so that stacks share what is below. 0: none.
class Stacks {
 public:
  Stacks() : stacks_(1) {}
  std::uint32_t put(std::vector<Frame> frames);  // all of one depth
  const std::vector<Frame>& frames(std::uint32_t stack) const { return stacks_[stack].frames; }
  std::uint32_t depth(std::uint32_t stack) const { return stacks_[stack].depth; }
  std::size_t size() const { return stacks_.size(); }
  void shrink(std::size_t size);  // forgets the later ones

 private:
  struct Stack {
    std::vector<Frame> frames = {};
    std::uint32_t depth = 0;
  };
  std::vector<Stack> stacks_;
  std::unordered_map<std::string, std::uint32_t> known_;  // by the bytes of the frames
};

struct Config {
  NodeId node = 0;          // that takes a byte
  std::uint32_t count = 0;  // rounds of the rule's loop
  std::uint32_t blank = 0;  // of kBlank: 0 nothing was taken yet, else a line's end, 1 + spaces
  std::uint32_t stack = 0;
  auto operator<=>(const Config&) const = default;
};

struct State {
  std::vector<Config> configs = {};  // ascending, each once
  bool is_over = false;              // the outermost rule may end here
  bool is_empty() const { return configs.empty() && !is_over; }
};

// How deep rules may go: `room` of them below stack 0.
class Reader {
 public:
  Reader(const Program& program, Stacks& stacks, std::uint32_t room)
      : program_(program), stacks_(stacks), room_(room) {}

  State begin() const { return close({{.node = program_.rule(program_.root()).start}}); }
  State step(const State& state, unsigned char byte) const;
  // Behind the end of the rules that a stack called.
  State returned(std::uint32_t stack) const;

 private:
  State close(std::vector<Config> open) const;
  void merge(std::vector<Config>& configs) const;

  const Program& program_;
  Stacks& stacks_;
  const std::uint32_t room_;
};

}  // namespace memlayers::api::grammar
