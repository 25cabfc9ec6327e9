// SPDX-License-Identifier: Apache-2.0
#include "text/metaspace.h"

#include "text/utf8.h"

namespace memlayers::text {

Metaspace read_metaspace(const JsonField& field) {
  Metaspace metaspace{field.string_or("replacement", "\xE2\x96\x81"), Metaspace::Prefix::kAlways};
  const std::string& sign = metaspace.replacement;
  if (sign.empty() || decode_utf8(sign).bytes != sign.size()) {
    field.at("replacement").fail("one character");
  }
  const bool adds_prefix = field.boolean_or("add_prefix_space", true);
  const std::string scheme = field.string_or("prepend_scheme", adds_prefix ? "always" : "never");
  if (scheme == "never") {
    metaspace.prefix = Metaspace::Prefix::kNever;
  } else if (scheme == "first") {
    metaspace.prefix = Metaspace::Prefix::kFirst;
  } else if (scheme != "always") {
    field.fail("a prepend_scheme always, first or never");
  }
  if (!adds_prefix && metaspace.prefix != Metaspace::Prefix::kNever) {
    field.fail("the prepend_scheme never where add_prefix_space is false");
  }
  return metaspace;
}

}  // namespace memlayers::text
