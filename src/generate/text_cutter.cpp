// SPDX-License-Identifier: Apache-2.0
#include "generate/text_cutter.h"

#include <algorithm>
#include <utility>

namespace memlayers::generate {

std::string TextCutter::push(const std::string& text) {
  if (is_stopped_) return {};
  held_ += text;
  // The one that is whole first, as if the text came byte by byte; of those the longest.
  std::size_t cut = std::string::npos, end = std::string::npos;
  for (const std::string& stop : stop_) {
    const std::size_t at = held_.find(stop);
    if (at == std::string::npos) continue;
    if (at + stop.size() < end || (at + stop.size() == end && at < cut)) {
      cut = at;
      end = at + stop.size();
    }
  }
  if (cut != std::string::npos) {
    is_stopped_ = true;
    std::string certain = held_.substr(0, cut);
    held_.clear();
    return certain;
  }
  // The longest end of held_ that begins a stop string.
  std::size_t keep = 0;
  for (const std::string& stop : stop_) {
    for (std::size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n) {
      if (held_.ends_with(std::string_view(stop).substr(0, n))) {
        keep = n;
        break;
      }
    }
  }
  std::string certain = held_.substr(0, held_.size() - keep);
  held_.erase(0, certain.size());
  return certain;
}

std::string TextCutter::finish() { return std::exchange(held_, {}); }

}  // namespace memlayers::generate
