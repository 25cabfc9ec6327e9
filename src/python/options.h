// SPDX-License-Identifier: Apache-2.0
// Options that come from Python as a JSON object: what is absent leaves its default.
#pragma once

#include <string>
#include <vector>

#include "io/json_field.h"

namespace memlayers::python {

template <class Number>  // a number, or an optional one
void read_number(const io::JsonField& options, const char* name, Number& number) {
  if (const auto field = options.find(name)) number = field->number();
}

template <class Count>
void read_count(const io::JsonField& options, const char* name, Count& count) {
  if (const auto field = options.find(name)) count = field->count();
}

inline void read_texts(const io::JsonField& options, const char* name,
                       std::vector<std::string>& texts) {
  const auto list = options.find(name);
  if (!list) return;
  for (const io::JsonField& text : list->elements()) texts.push_back(text.string());
}

}  // namespace memlayers::python
