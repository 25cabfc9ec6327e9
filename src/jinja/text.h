// SPDX-License-Identifier: Apache-2.0
// Text that knows of each byte where it comes from: out of the template, or out of what it was
// given (a message that a stranger wrote). Filters and operators carry that on.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace memlayers::jinja {

// UTF-8.
class Text {
 public:
  Text() = default;
  Text(std::string_view bytes, bool is_template) { append(bytes, is_template); }

  const std::string& bytes() const { return bytes_; }
  std::size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  bool is_template_at(std::size_t byte) const;

  void append(std::string_view bytes, bool is_template);
  void append(const Text& other) { append(other, 0, other.size()); }
  void append(const Text& other, std::size_t begin, std::size_t end);
  Text part(std::size_t begin, std::size_t end) const;

  // each(bytes, is_template) for what of [begin, end) comes from one side.
  template <class Each>
  void for_each_piece(std::size_t begin, std::size_t end, const Each& each) const {
    for (std::size_t i = first_behind(begin); begin < end; ++i) {
      const Stretch next = i < foreign_.size() ? foreign_[i] : Stretch{end, end};
      if (begin < next.begin) {
        const std::size_t stop = next.begin < end ? next.begin : end;
        each(std::string_view(bytes_).substr(begin, stop - begin), true);
        begin = stop;
      }
      if (begin < end && begin >= next.begin) {
        const std::size_t stop = next.end < end ? next.end : end;
        each(std::string_view(bytes_).substr(begin, stop - begin), false);
        begin = stop;
      }
    }
  }
  template <class Each>
  void for_each_piece(const Each& each) const {
    for_each_piece(0, size(), each);
  }

  bool is_safe = false;  // what `|safe` and `|escape` give: "+" escapes what is joined to it

 private:
  struct Stretch {
    std::size_t begin, end;
  };
  std::size_t first_behind(std::size_t byte) const;  // the first of foreign_ that ends behind it

  std::string bytes_;
  std::vector<Stretch> foreign_;  // not from the template; ascending, with something between
};

}  // namespace memlayers::jinja
