// SPDX-License-Identifier: Apache-2.0
#include "api/respond.h"

#include <utility>

namespace memlayers::api {

http::Fields with_cross_origin(http::Fields fields) {
  fields.emplace_back("access-control-allow-origin", "*");
  fields.emplace_back("access-control-expose-headers",
                      "x-request-id, x-memlayers-pool-version, etag, location, retry-after, "
                      "retry-after-ms");
  return fields;
}

void respond(http::Exchange& exchange, http::Response response) {
  response.headers = with_cross_origin(std::move(response.headers));
  exchange.answer(std::move(response));
}

void respond(http::Exchange& exchange, int status, const Json& body, http::Fields headers) {
  headers.emplace_back("content-type", "application/json");
  respond(exchange, {.status = status, .headers = std::move(headers), .body = text_of(body)});
}

void begin(http::Exchange& exchange, int status, http::Fields headers) {
  exchange.begin(status, with_cross_origin(std::move(headers)));
}

}  // namespace memlayers::api
