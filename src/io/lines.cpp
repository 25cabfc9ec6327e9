// SPDX-License-Identifier: Apache-2.0
#include "io/lines.h"

#include <algorithm>
#include <cstdint>

#include "io/file_kind.h"
#include "io/utf8.h"
#include "memlayers/error.h"

namespace memlayers::io {

std::string_view plain_line(std::string_view line, bool is_first) {
  if (is_first && line.starts_with(kByteOrderMark)) line.remove_prefix(kByteOrderMark.size());
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

void for_each_line(
    std::string_view text, const std::string& name,
    const std::function<void(std::string_view line, const std::string& where)>& each) {
  refuse_pointer(text, name);
  std::int64_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = plain_line(text.substr(begin, end - begin), begin == 0);
    const std::string where = name + ":" + std::to_string(++number);
    check_utf8(line, where, static_cast<std::size_t>(line.data() - text.data()));
    begin = end + 1;
    each(line, where);
  }
}

std::vector<std::string> lines_of(std::string_view text, const std::string& name) {
  std::vector<std::string> lines;
  for_each_line(text, name, [&](std::string_view line, const std::string& /*where*/) {
    if (!line.empty()) lines.emplace_back(line);
  });
  if (lines.empty()) throw Error(name + ": expected at least one line of text, got none");
  return lines;
}

}  // namespace memlayers::io
