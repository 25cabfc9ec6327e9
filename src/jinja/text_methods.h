// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string_view>

#include "jinja/callable.h"
#include "jinja/run.h"
#include "jinja/value.h"

namespace memlayers::jinja {

struct Method {
  std::string_view name;
  Value (*run)(Run& run, const Value& self, const Arguments& arguments);
};

std::span<const Method> text_methods();

}  // namespace memlayers::jinja
