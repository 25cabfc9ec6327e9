// SPDX-License-Identifier: Apache-2.0
// The head of an answer: its first line and header fields.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "http/server.h"

namespace memlayers::http {

// How a client knows where an answer's body ends.
enum class BodyEnd { kLength, kChunks, kConnection };

struct Head {
  int status = 200;
  Fields headers = {};
  BodyEnd end = BodyEnd::kLength;
  std::uint64_t length = 0;  // of kLength
};

// A status that ends an exchange; 500 for what is none.
int final_status(int status);

// Whether an answer of that status has a body at all.
bool has_body(int status);

// With the empty line. `closes`: the connection does after it.
std::string head_text(const Head& head, bool closes, std::string_view id, std::string_view date);

// As a header has it: "Sun, 06 Nov 1994 08:49:37 GMT".
std::string date_text(std::int64_t seconds_since_1970);

}  // namespace memlayers::http
