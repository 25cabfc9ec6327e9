// SPDX-License-Identifier: Apache-2.0
#include "api/hosts.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>

namespace memlayers::api {
namespace {

// Of 127.a.b.c, each up to 255: a name such as 127.evil.example is somebody's.
bool is_loopback_v4(std::string_view name) {
  constexpr int kParts = 4, kMost = 255;
  for (int part = 0; part < kParts; ++part) {
    const std::size_t end = part + 1 < kParts ? name.find('.') : name.size();
    if (end == std::string_view::npos || end == 0) return false;
    int number = -1;
    const std::string_view digits = name.substr(0, end);
    const auto [stop, error] = std::from_chars(digits.begin(), digits.end(), number);
    if (error != std::errc() || stop != digits.end() || number < 0 || number > kMost) {
      return false;
    }
    if (part == 0 && number != 127) return false;
    name.remove_prefix(std::min(end + 1, name.size()));
  }
  return name.empty();
}

}  // namespace

std::string host_of(std::string_view header) {
  const std::size_t colon = header.rfind(':');
  const bool is_port = colon != std::string_view::npos && header.find(']', colon) == header.npos;
  std::string name(is_port ? header.substr(0, colon) : header);
  std::ranges::transform(name, name.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (name.ends_with('.')) name.pop_back();
  return name;
}

bool is_loopback_host(std::string_view name) {
  return name == "localhost" || name == "[::1]" || is_loopback_v4(name);
}

bool is_for_us(const http::Request& header, const std::vector<std::string>& known) {
  const std::string* field = header.header("host");
  if (field == nullptr || field->empty()) return true;
  const std::string name = host_of(*field);
  return is_loopback_host(name) ||
         std::ranges::any_of(known, [&](const std::string& each) { return host_of(each) == name; });
}

}  // namespace memlayers::api
