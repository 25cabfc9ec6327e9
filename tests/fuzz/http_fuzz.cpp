// SPDX-License-Identifier: Apache-2.0
// Bytes of HTTP clients: the first says how they are cut, which makes no difference.
#include "fuzz/fuzz.h"
#include "http/request_parser.h"

namespace {

using memlayers::http::BadRequest;
using memlayers::http::Limits;
using memlayers::http::Request;
using memlayers::http::RequestParser;

struct Parsed {
  Request request;
  int status = 0;  // of a BadRequest
  bool is_done = false;
  std::size_t taken = 0;
};

Parsed parse(std::string_view bytes, std::size_t step) {
  const Limits limits{.request_line_bytes = 200, .header_bytes = 400, .headers = 10};
  RequestParser parser(limits);
  Parsed result;
  std::string input;
  try {
    while (!bytes.empty() && !parser.is_done()) {
      input += bytes.substr(0, step);
      bytes.remove_prefix(std::min(step, bytes.size()));
      for (bool is_more = true; is_more && !parser.is_done();) {
        const bool had_header = parser.has_header();
        const std::size_t taken = had_header ? parser.put_body(input, 1000, parser.request().body)
                                             : parser.put_header(input);
        memlayers::fuzz::require(taken <= input.size());
        input.erase(0, taken);
        result.taken += taken;
        is_more = taken > 0 || parser.has_header() != had_header;
      }
    }
    result.is_done = parser.is_done();
  } catch (const BadRequest& bad) {
    result.status = bad.status();
  }
  result.request = parser.request();
  return result;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using memlayers::fuzz::require;
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const Parsed whole = parse(bytes, bytes.size()), cut = parse(bytes, 1 + std::size_t{data[0]});
  require(whole.status == cut.status && whole.is_done == cut.is_done);
  require(whole.request.body.size() <= 1000 && whole.request.headers.size() <= 10);
  if (whole.status != 0) return 0;
  require(!whole.is_done || whole.taken == cut.taken);
  require(whole.request.method == cut.request.method && whole.request.path == cut.request.path &&
          whole.request.query == cut.request.query && whole.request.body == cut.request.body &&
          whole.request.headers == cut.request.headers);
  return 0;
}
