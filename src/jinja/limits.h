// SPDX-License-Identifier: Apache-2.0
// What a template may take. A template is a program from outside: it ends, whatever it says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace memlayers::jinja {

struct Limits {
  // Nodes evaluated, elements made, and 16 bytes of text made, each one step; and 32 steps more for
  // each byte that a template is given, since it may well look at it so often.
  std::int64_t steps = 10'000'000;
  std::int64_t steps_a_byte = 32;
  int depth = 1000;                           // of evaluations inside another
  std::size_t bytes = std::size_t{64} << 20;  // of any one text
};

// What is wrong, without the place: whoever evaluates a node adds its line.
class Problem : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// What raise_exception() was called with.
class Raised : public Problem {
 public:
  using Problem::Problem;
};

class Budget {
 public:
  explicit Budget(const Limits& limits, std::int64_t given_bytes = 0)
      : limits_(limits), steps_(limits.steps + limits.steps_a_byte * given_bytes) {}

  void spend(std::size_t steps) {
    if (static_cast<std::int64_t>(steps) > steps_ - spent_) fail_steps();
    spent_ += static_cast<std::int64_t>(steps);
  }
  // Before `bytes` of text are made, all of one text that already has `before`.
  void spend_text(std::size_t bytes, std::size_t before = 0) {
    if (bytes > limits_.bytes || before > limits_.bytes - bytes) fail_bytes();
    spend(bytes / 16 + 1);
  }
  void enter() {
    if (++depth_ > limits_.depth) fail_depth();
  }
  void leave() { --depth_; }

 private:
  [[noreturn]] void fail_steps() const {
    throw Problem("expected a template that ends within " + std::to_string(steps_) +
                  " steps, got one that goes on");
  }
  [[noreturn]] void fail_bytes() const {
    throw Problem("expected texts of at most " + std::to_string(limits_.bytes) +
                  " bytes, got one that is longer");
  }
  [[noreturn]] void fail_depth() const {
    throw Problem("expected a template that nests at most " + std::to_string(limits_.depth) +
                  " deep while it runs, got one that goes deeper");
  }

  Limits limits_;
  std::int64_t steps_, spent_ = 0;
  int depth_ = 0;
};

}  // namespace memlayers::jinja
