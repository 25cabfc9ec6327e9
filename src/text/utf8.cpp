// SPDX-License-Identifier: Apache-2.0
#include "text/utf8.h"

namespace memlayers::text {

std::string replace_invalid_utf8(std::string_view bytes, Replace replace) {
  std::string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    const std::size_t valid = valid_utf8_bytes(bytes);
    text.append(bytes.substr(0, valid));
    bytes.remove_prefix(valid);
    if (bytes.empty()) break;
    text.append(kReplacement);
    bytes.remove_prefix(replace == Replace::kEachByte ? 1 : decode_utf8(bytes).bytes);
  }
  return text;
}

}  // namespace memlayers::text
