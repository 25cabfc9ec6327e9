// SPDX-License-Identifier: Apache-2.0
#include "jinja/text.h"

#include <algorithm>

namespace memlayers::jinja {

std::size_t Text::first_behind(std::size_t byte) const {
  const auto found = std::upper_bound(foreign_.begin(), foreign_.end(), byte,
                                      [](std::size_t at, const Stretch& s) { return at < s.end; });
  return static_cast<std::size_t>(found - foreign_.begin());
}

bool Text::is_template_at(std::size_t byte) const {
  const std::size_t i = first_behind(byte);
  return i == foreign_.size() || byte < foreign_[i].begin;
}

void Text::append(std::string_view bytes, bool is_template) {
  if (!is_template && !bytes.empty()) {
    if (!foreign_.empty() && foreign_.back().end == bytes_.size()) {
      foreign_.back().end += bytes.size();
    } else {
      foreign_.push_back({bytes_.size(), bytes_.size() + bytes.size()});
    }
  }
  bytes_ += bytes;
}

void Text::append(const Text& other, std::size_t begin, std::size_t end) {
  other.for_each_piece(
      begin, end, [&](std::string_view bytes, bool is_template) { append(bytes, is_template); });
}

Text Text::part(std::size_t begin, std::size_t end) const {
  Text text;
  text.append(*this, begin, end);
  return text;
}

}  // namespace memlayers::jinja
