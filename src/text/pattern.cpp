// SPDX-License-Identifier: Apache-2.0
#include "text/pattern.h"

#include "text/utf8.h"

namespace memlayers::text {

Pattern::Pattern(const JsonField& field) {
  const auto text = field.find("String");
  const auto regex = field.find("Regex");
  if (text.has_value() == regex.has_value()) field.fail("a \"String\" or a \"Regex\"");
  if (regex) {
    regex_ = Regex(*regex);
  } else {
    text_ = text->string();
    if (text_.empty()) text->fail("a string that is not empty");
  }
}

void Pattern::for_each_match(std::string_view text,
                             const std::function<void(std::size_t, std::size_t)>& each) const {
  if (regex_) return regex_->for_each_match(text, each);
  if (is_one_ != nullptr) {
    for (std::size_t at = 0; at < text.size();) {
      const Utf8Character character = decode_utf8(text.substr(at));
      if (is_one_(character.code)) each(at, at + character.bytes);
      at += character.bytes;
    }
    return;
  }
  for (std::size_t at = text.find(text_); at != std::string_view::npos;) {
    const std::size_t end = at + text_.size();
    each(at, end);
    at = text.find(text_, end);
  }
}

std::string Pattern::replaced(std::string_view text, std::string_view content) const {
  std::string result;
  std::size_t done = 0;
  for_each_match(text, [&](std::size_t begin, std::size_t end) {
    result.append(text, done, begin - done).append(content);
    done = end;
  });
  return result.append(text, done);
}

}  // namespace memlayers::text
