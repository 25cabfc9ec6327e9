// SPDX-License-Identifier: Apache-2.0
// "Metaspace", which is a pre-tokenizer and a decoder: a sign that stands for a space.
#pragma once

#include <string>

#include "text/json_field.h"

namespace memlayers::text {

struct Metaspace {
  enum class Prefix { kAlways, kFirst, kNever };
  std::string replacement;  // one character
  Prefix prefix;            // where a space is put before a text
};

Metaspace read_metaspace(const JsonField& field);

}  // namespace memlayers::text
