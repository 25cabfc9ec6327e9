// SPDX-License-Identifier: Apache-2.0
#include "http/head_text.h"

#include <algorithm>
#include <array>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/status.hpp>
#include <ctime>

namespace memlayers::http {
namespace {

constexpr std::array<std::string_view, 5> kOurs = {"date", "x-request-id", "connection",
                                                   "content-length", "transfer-encoding"};

bool is_ours(std::string_view name) {
  return std::ranges::any_of(kOurs, [&](std::string_view ours) {
    return boost::beast::iequals({ours.data(), ours.size()}, {name.data(), name.size()});
  });
}

// No text of a handler ends a line and begins a field of its own.
void append_clean(std::string& text, std::string_view part) {
  for (const char c : part) {
    const auto byte = static_cast<unsigned char>(c);
    text += byte < 0x20 || byte == 0x7f ? ' ' : c;
  }
}

void append_field(std::string& text, std::string_view name, std::string_view value) {
  append_clean(text, name);
  text += ": ";
  append_clean(text, value);
  text += "\r\n";
}

std::string_view reason(int status) {
  const auto known = boost::beast::http::int_to_status(static_cast<unsigned>(status));
  if (known == boost::beast::http::status::unknown) return "";
  const auto text = boost::beast::http::obsolete_reason(known);
  return {text.data(), text.size()};
}

}  // namespace

int final_status(int status) { return status >= 200 && status <= 599 ? status : 500; }

bool has_body(int status) { return status != 204 && status != 304; }

std::string head_text(const Head& head, bool closes, std::string_view id, std::string_view date) {
  std::string text = "HTTP/1.1 " + std::to_string(head.status) + " ";
  text += reason(head.status);
  text += "\r\n";
  append_field(text, "date", date);
  for (const auto& [name, value] : head.headers) {
    if (!name.empty() && !is_ours(name)) append_field(text, name, value);
  }
  append_field(text, "x-request-id", id);
  if (head.end == BodyEnd::kChunks) {
    text += "transfer-encoding: chunked\r\n";
  } else if (head.end == BodyEnd::kLength && has_body(head.status)) {
    text += "content-length: " + std::to_string(head.length) + "\r\n";
  }
  if (closes) text += "connection: close\r\n";
  return text += "\r\n";
}

std::string date_text(std::int64_t seconds_since_1970) {
  constexpr std::array kDays = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  constexpr std::array kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                  "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const std::time_t time = seconds_since_1970;
  std::tm parts{};
  ::gmtime_r(&time, &parts);
  std::array<char, 64> text{};  // not of strftime(): its names are those of the locale
  const int size = std::snprintf(text.data(), text.size(), "%s, %02d %s %04d %02d:%02d:%02d GMT",
                                 kDays[static_cast<std::size_t>(parts.tm_wday)], parts.tm_mday,
                                 kMonths[static_cast<std::size_t>(parts.tm_mon)],
                                 parts.tm_year + 1900, parts.tm_hour, parts.tm_min, parts.tm_sec);
  return {text.data(), static_cast<std::size_t>(size)};
}

}  // namespace memlayers::http
