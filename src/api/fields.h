// SPDX-License-Identifier: Apache-2.0
// The members of a request's JSON object: one table says which there are, what they take and what
// they mean. Requests are checked by it, and the OpenAPI document is made of it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/json_field.h"

namespace memlayers::api {

struct FieldRule {
  std::string_view name;
  std::string_view schema;        // JSON Schema of what it takes, as text
  std::string_view about;         // what it means; of one that is not supported: why
  std::string_view neutral = "";  // not supported, but for the values of this JSON list, which
                                  // change nothing; "*": any value changes nothing
};
using FieldRules = std::span<const FieldRule>;

// A request's body as JSON. Throws Refusal 400 "invalid_json".
nlohmann::json parse_body(std::string_view body);

// Throws FieldError for a name that is none of these, with the nearest; Refusal 400
// "unsupported_parameter" for a value of a field that is not supported. A field of null is absent.
void check_fields(const io::JsonField& object, FieldRules rules);

// Throw FieldError saying which numbers are wanted.
double number_in(const io::JsonField& field, double least, double most);
double number_above(const io::JsonField& field, double bound, double most);  // bound excluded
std::int64_t integer_or(const io::JsonField& object, const std::string& name,
                        std::int64_t otherwise, std::int64_t least, std::int64_t most);
// Token ids of a list, each of [0, vocab_size).
std::vector<std::int32_t> token_ids(const io::JsonField& list, std::int64_t vocab_size);
// A text that is not empty.
const std::string& some_text(const io::JsonField& field);

}  // namespace memlayers::api
