// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "http/request_parser.h"

namespace memlayers::http {
namespace {

constexpr unsigned char kTlsHandshake = 0x16;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

[[noreturn]] void refuse_header(const std::string& sentence) { throw BadRequest(400, sentence); }

[[noreturn]] void refuse_byte(unsigned char byte, bool is_first) {
  if (is_first && byte == kTlsHandshake) refuse_header("expected HTTP, got TLS");
  refuse_header("expected no control character in a header, got byte " + std::to_string(byte));
}

// "METHOD target HTTP/1.1": whether it ends with a version that is spoken here. The rest is
// Beast's.
void check_version(std::string_view line) {
  const std::size_t space = line.rfind(' ');
  const std::string_view version = space == std::string_view::npos ? "" : line.substr(space + 1);
  if (version == "HTTP/1.1" || version == "HTTP/1.0") return;
  const std::string_view number = version.starts_with("HTTP/") ? version.substr(5) : "";
  if (number.size() == 3 && is_digit(number[0]) && number[1] == '.' && is_digit(number[2])) {
    throw BadRequest(505, "expected HTTP/1.1 or HTTP/1.0, got " + std::string(version));
  }
  refuse_header("expected a first line \"METHOD /path HTTP/1.1\"");
}

}  // namespace

void HeaderScan::end_line(std::string_view line) {
  if (!fields_) return check_version(line);
  if (line.front() == ' ' || line.front() == '\t') {
    refuse_header("expected a header field a line, got a folded one");
  }
  if (++count_ > limits_.headers) {
    throw BadRequest(
        431, "expected at most " + std::to_string(limits_.headers) + " header fields, got more");
  }
}

std::optional<std::size_t> HeaderScan::look(std::string_view bytes) {
  for (; seen_ < bytes.size(); ++seen_) {
    const auto byte = static_cast<unsigned char>(bytes[seen_]);
    const bool follows_return = seen_ > line_ && bytes[seen_ - 1] == '\r';
    if ((byte == '\n') != follows_return) refuse_header("expected lines that end with CR LF");
    if (byte != '\n') {
      if ((byte < 0x20 && byte != '\t' && byte != '\r') || byte == 0x7f) {
        refuse_byte(byte, seen_ == 0);
      }
      // Of the line without its end; of the fields, before the empty line's.
      if (!fields_ && byte != '\r' && seen_ - line_ >= limits_.request_line_bytes) {
        throw BadRequest(414, "expected a first line of at most " +
                                  std::to_string(limits_.request_line_bytes) + " bytes");
      }
      if (fields_ && byte != '\r' && seen_ + 3 - *fields_ > limits_.header_bytes) {
        throw BadRequest(431, "expected header fields of at most " +
                                  std::to_string(limits_.header_bytes) + " bytes");
      }
      continue;
    }
    const std::string_view line = bytes.substr(line_, seen_ - 1 - line_);
    line_ = seen_ + 1;
    if (line.empty() && fields_) {
      ++seen_;
      return seen_;
    }
    end_line(line);
    if (!fields_) fields_ = line_;
  }
  return std::nullopt;
}

}  // namespace memlayers::http
