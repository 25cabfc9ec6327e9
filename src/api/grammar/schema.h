// SPDX-License-Identifier: Apache-2.0
// A JSON schema as a Program.
#pragma once

#include <string_view>

#include "api/grammar/program.h"

namespace memlayers::api::grammar {

constexpr std::size_t kMostSchemaBytes = std::size_t{128} << 10;

// Of texts that `single` bytes can spell. Throws Refusal 400.
Program compile_schema(std::string_view schema, const ByteSet& single);

}  // namespace memlayers::api::grammar
