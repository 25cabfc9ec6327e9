// SPDX-License-Identifier: Apache-2.0
// Ctrl-C as something that is asked for, and waited for together with input.
#pragma once

#include <optional>
#include <string>

namespace memlayers::cli {

// The exit code of a program that Ctrl-C ended.
inline constexpr int kInterrupted = 130;

// One at a time. While it lives, Ctrl-C sets a flag; one more before the flag is taken back ends
// the process, also where it does not live any more.
class Interrupts {
 public:
  Interrupts();
  ~Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;
  bool requested() const;
  void forget();  // takes the flag back
  // Something to read for whoever waits with poll().
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

// Lines of standard input, one after the other.
class LineInput {
 public:
  explicit LineInput(const Interrupts& interrupts) : interrupts_(interrupts) {}
  // None at the end, and as soon as Ctrl-C is pressed. Throws Error where it cannot be read.
  std::optional<std::string> next();

 private:
  // Waits for input and takes it; false at the end or where Ctrl-C came.
  bool read_more();

  const Interrupts& interrupts_;
  std::string pending_;  // read, not given away
  bool is_first_ = true, has_ended_ = false;
};

}  // namespace memlayers::cli
