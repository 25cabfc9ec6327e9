// SPDX-License-Identifier: Apache-2.0
#include "http/request_parser.h"

#include <algorithm>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <cctype>
#include <limits>
#include <utility>

#include "io/shown.h"

namespace memlayers::http {
namespace {

namespace beast = boost::beast;
using beast::error_code;

// Beast wants no fewer bytes of a chunk's head: "0\r\n\r\n" ends every body, so they come.
constexpr std::size_t kLeastOfChunks = 5;

bool is_same(std::string_view text, std::string_view word) {
  return beast::iequals({text.data(), text.size()}, {word.data(), word.size()});
}

[[noreturn]] void refuse(int status, const std::string& sentence) {
  throw BadRequest(status, sentence);
}

std::string sentence_of(const error_code& code) {
  using Code = beast::http::error;
  if (code == Code::bad_method) return "expected a method of letters, got another character";
  if (code == Code::bad_target) return "expected a path without spaces after the method";
  if (code == Code::bad_field) return "expected \"name: value\" in each header field";
  if (code == Code::bad_value) return "expected values without control characters in the header";
  if (code == Code::bad_content_length || code == Code::multiple_content_length ||
      code == Code::bad_transfer_encoding) {
    return "expected one content-length or transfer-encoding: chunked, got a conflict";
  }
  return "expected a body of well-formed chunks";
}

// The path begins with / or is "*"; a proxy's whole address is cut to it.
std::string_view path_of(std::string_view method, std::string_view target) {
  if (target.starts_with('/') || (target == "*" && method == "OPTIONS")) return target;
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (target.size() <= scheme.size() || !is_same(target.substr(0, scheme.size()), scheme))
      continue;
    const std::size_t path = target.find_first_of("/?", scheme.size());
    if (path == scheme.size()) break;
    return path == std::string_view::npos ? "/" : target.substr(path);
  }
  refuse(400, "expected a path that begins with / after the method, got " + io::quote(target));
}

}  // namespace

class RequestParser::Parts final : public beast::http::basic_parser<true> {
 public:
  Parts() {
    eager(true);
    body_limit(boost::none);  // ours is counted as it comes
    header_limit(std::numeric_limits<std::uint32_t>::max());
  }
  // Of the body, into `body`; no more than `most` in all.
  std::size_t put_body(std::string_view bytes, std::uint64_t most, std::string& body) {
    most_ = most;
    body_ = &body;
    return put_some(bytes);
  }
  std::size_t put_some(std::string_view bytes) {
    error_code error;
    const std::size_t taken = put(boost::asio::const_buffer(bytes.data(), bytes.size()), error);
    if (error && error != beast::http::error::need_more) refuse(400, sentence_of(error));
    return taken;
  }
  void check_header() {
    if (!is_http10 && hosts_ != 1) refuse(400, "expected one header field host");
    if (is_compressed_) refuse(415, "expected a body without content-encoding");
    eager(true);
  }

  Request request;
  bool is_http10 = false, expects_continue = false;

 private:
  void on_request_impl(beast::http::verb, beast::string_view method, beast::string_view target,
                       int version, error_code&) override {
    eager(false);  // to the header's end and no further
    is_http10 = version == 10;
    request.method = method;
    const std::string_view whole = path_of(request.method, {target.data(), target.size()});
    const std::size_t mark = std::min(whole.find('?'), whole.size());
    for (const char c : whole.substr(0, mark)) {
      if (c != '/' || !request.path.ends_with('/')) request.path += c;
    }
    if (request.path.empty()) request.path = "/";
    if (mark < whole.size()) request.query = whole.substr(mark + 1);
  }
  void on_response_impl(int, beast::string_view, int, error_code&) override {}

  void on_field_impl(beast::http::field, beast::string_view name, beast::string_view value,
                     error_code&) override {
    if (is_header_done()) return;  // a trailer tells nothing
    std::string lower(name);
    std::transform(lower.begin(), lower.end(), lower.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    check_field(lower, {value.data(), value.size()});
    request.headers.emplace_back(std::move(lower), value);
  }

  // Beast is content with lists of equal lengths, and takes unknown encodings for no body.
  void check_field(std::string_view name, std::string_view value) {
    if (name == "content-length") {
      if (++lengths_ > 1 ||
          !std::ranges::all_of(value, [](unsigned char c) { return std::isdigit(c) != 0; })) {
        refuse(400, "expected one content-length of digits");
      }
    } else if (name == "transfer-encoding") {
      if (is_http10 || ++encodings_ > 1) refuse(400, "expected no such transfer-encoding");
      if (!is_same(value, "chunked")) {
        refuse(501, "expected transfer-encoding: chunked, got " + io::quote(value));
      }
    } else if (name == "host") {
      ++hosts_;
    } else if (name == "expect") {
      if (!is_same(value, "100-continue")) {
        refuse(417, "expected expect: 100-continue, got " + io::quote(value));
      }
      expects_continue = !is_http10;
    } else if (name == "content-encoding") {
      is_compressed_ = is_compressed_ || !(value.empty() || is_same(value, "identity"));
    }
  }

  void on_header_impl(error_code&) override {}
  void on_body_init_impl(const boost::optional<std::uint64_t>&, error_code&) override {}
  std::size_t on_body_impl(beast::string_view piece, error_code&) override {
    if (piece.size() > most_ - body_bytes_) {
      refuse(413, "expected a body of at most " + std::to_string(most_) + " bytes");
    }
    body_bytes_ += piece.size();
    body_->append(piece.data(), piece.size());
    return piece.size();
  }
  void on_chunk_header_impl(std::uint64_t, beast::string_view extension, error_code&) override {
    const auto is_control = [](unsigned char c) { return (c < 0x20 && c != '\t') || c == 0x7f; };
    if (std::ranges::any_of(extension, is_control)) refuse(400, sentence_of({}));
  }
  std::size_t on_chunk_body_impl(std::uint64_t, beast::string_view piece,
                                 error_code& error) override {
    return on_body_impl(piece, error);
  }
  void on_finish_impl(error_code&) override {}

  int hosts_ = 0, lengths_ = 0, encodings_ = 0;
  bool is_compressed_ = false;
  std::uint64_t most_ = 0, body_bytes_ = 0;
  std::string* body_ = nullptr;
};

RequestParser::RequestParser(const Limits& limits)
    : limits_(limits), scan_(limits), parts_(std::make_unique<Parts>()) {}
RequestParser::~RequestParser() = default;

std::size_t RequestParser::put_header(std::string_view bytes) {
  std::size_t skipped = 0;  // empty lines before a request
  while (bytes.substr(skipped).starts_with("\r\n")) skipped += 2;
  bytes.remove_prefix(skipped);
  if (bytes == "\r") return skipped;
  const auto size = scan_.look(bytes);
  if (!size) return skipped;
  const std::size_t taken = parts_->put_some(bytes.substr(0, *size));
  if (taken != *size || !parts_->is_header_done()) refuse(400, "expected a whole header");
  parts_->check_header();
  return skipped + taken;
}

std::size_t RequestParser::put_body(std::string_view bytes, std::uint64_t most, std::string& body) {
  std::size_t taken = 0;
  while (!parts_->is_done() && taken < bytes.size()) {
    const std::string_view left = bytes.substr(taken);
    if (parts_->chunked() && left.size() < kLeastOfChunks) break;
    const std::size_t step = parts_->put_body(left, most, body);
    taken += step;
    if (step == 0) break;
  }
  // A chunk's head, or the trailer, that does not end.
  if (!parts_->is_done() && bytes.size() - taken > limits_.header_bytes) {
    refuse(400, sentence_of({}));
  }
  return taken;
}

Request& RequestParser::request() { return parts_->request; }
bool RequestParser::has_header() const { return parts_->is_header_done(); }
bool RequestParser::is_done() const { return parts_->is_done(); }
bool RequestParser::is_http10() const { return parts_->is_http10; }
bool RequestParser::keeps_alive() const { return !is_http10() && parts_->keep_alive(); }
bool RequestParser::expects_continue() const { return parts_->expects_continue; }
bool RequestParser::has_body() const { return !parts_->is_done(); }

std::optional<std::uint64_t> RequestParser::body_bytes() const {
  if (parts_->chunked()) return std::nullopt;
  const auto length = parts_->content_length();
  return length ? *length : std::uint64_t{0};
}

}  // namespace memlayers::http
