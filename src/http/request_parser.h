// SPDX-License-Identifier: Apache-2.0
// From bytes to a request. A scan of the header's bytes as they come holds it to Limits and to the
// one strict form; Beast's parser then takes it apart, and the body.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "http/server.h"
#include "memlayers/error.h"

namespace memlayers::http {

// Why a request is not read on: the answer's status, and a sentence.
class BadRequest : public Error {
 public:
  BadRequest(int status, const std::string& sentence) : Error(sentence), status_(status) {}
  int status() const { return status_; }

 private:
  int status_;
};

// Where a header ends.
class HeaderScan {
 public:
  explicit HeaderScan(const Limits& limits) : limits_(limits) {}
  // `bytes`: the header's from its first one on, each time more of them. Its length with the empty
  // line, once that is there. Throws BadRequest as soon as it cannot become a good one.
  std::optional<std::size_t> look(std::string_view bytes);

 private:
  void end_line(std::string_view line);

  const Limits& limits_;
  std::size_t seen_ = 0, line_ = 0;         // where the next byte, and its line, begin
  std::optional<std::size_t> fields_ = {};  // where they begin
  std::size_t count_ = 0;                   // of fields
};

// One request. What a function did not take of its bytes it is given again, with what came after.
class RequestParser {
 public:
  explicit RequestParser(const Limits& limits);
  ~RequestParser();
  RequestParser(const RequestParser&) = delete;
  RequestParser& operator=(const RequestParser&) = delete;

  // Both return how many bytes they took, and throw BadRequest.
  std::size_t put_header(std::string_view bytes);
  std::size_t put_body(std::string_view bytes, std::uint64_t most, std::string& body);

  Request& request();  // what is known of it
  bool has_header() const;
  bool is_done() const;  // the body too

  // Once the header is there.
  bool is_http10() const;
  bool keeps_alive() const;
  bool expects_continue() const;
  bool has_body() const;
  std::optional<std::uint64_t> body_bytes() const;  // none: chunked

 private:
  class Parts;
  const Limits& limits_;
  HeaderScan scan_;
  std::unique_ptr<Parts> parts_;
};

}  // namespace memlayers::http
