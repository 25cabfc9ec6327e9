// SPDX-License-Identifier: Apache-2.0
// Errors as OpenAI's clients read them: {"error": {message, type, param, code}}.
#pragma once

#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include "api/engine.h"
#include "api/json.h"
#include "http/server.h"

namespace memlayers::api {

Json error_json(const Refusal& refusal);
// With the headers that tell when to try again, and whether to.
http::Response answer_of(const Refusal& refusal);
// What an exception of a request's own means for it: a Refusal is itself, a wrong field or other
// text from outside a 400. What nobody expected is a 500 without its words, which may be anything.
Refusal refusal_of(const std::exception_ptr& error);

// http::Handler::error.
std::pair<std::string, std::string> error_body(int status, const std::string& sentence);

}  // namespace memlayers::api
