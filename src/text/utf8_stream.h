// SPDX-License-Identifier: Apache-2.0
// Bytes that come in pieces, as text.
#pragma once

#include <string>
#include <string_view>

#include "text/utf8.h"

namespace memlayers::text {

// All that push() and finish() give is replace_invalid_utf8() of all bytes; at most three bytes, of
// a character that may yet be finished, are held back.
class Utf8Stream {
 public:
  explicit Utf8Stream(Replace replace) : replace_(replace) {}
  std::string push(std::string_view bytes);
  std::string finish();

 private:
  Replace replace_;
  std::string held_;
};

}  // namespace memlayers::text
