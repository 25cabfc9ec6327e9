// SPDX-License-Identifier: Apache-2.0
// Answers with the headers that all of ours have.
#pragma once

#include "api/json.h"
#include "http/server.h"

namespace memlayers::api {

// Any page may read answers: what may be asked is a matter of keys.
http::Fields with_cross_origin(http::Fields fields);
void respond(http::Exchange& exchange, http::Response response);
void respond(http::Exchange& exchange, int status, const Json& body, http::Fields headers = {});
void begin(http::Exchange& exchange, int status, http::Fields headers);  // then pieces

}  // namespace memlayers::api
