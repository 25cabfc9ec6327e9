// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace memlayers::generate {

// Cuts a stream of text where the first of several stop strings is whole (of those that end
// together before the longest), however the text comes in pieces: text that may be the beginning of
// one is held back until that is decided.
class TextCutter {
 public:
  explicit TextCutter(std::vector<std::string> stop) : stop_(std::move(stop)) {}

  // The text that is certain now. After a stop string was met, is_stopped() and nothing more comes.
  std::string push(const std::string& text);
  std::string finish();  // what was held back
  bool is_stopped() const { return is_stopped_; }

 private:
  std::vector<std::string> stop_;
  std::string held_;
  bool is_stopped_ = false;
};

}  // namespace memlayers::generate
