// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "api/routes.h"
#include "api/status.h"
#include "io/shown.h"

namespace memlayers::api {
namespace {

std::vector<std::string_view> segments_of(std::string_view path) {
  std::vector<std::string_view> segments;
  while (!path.empty()) {
    const std::size_t end = std::min(path.find('/'), path.size());
    if (end > 0) segments.push_back(path.substr(0, end));
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return segments;
}

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Bytes for %xx; what is no such escape stays.
std::string unescaped(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      const int high = digit(text[i + 1]), low = digit(text[i + 2]);
      if (high >= 0 && low >= 0) {
        plain += static_cast<char>(high * 16 + low);
        i += 2;
        continue;
      }
    }
    plain += text[i];
  }
  return plain;
}

struct Template {
  const Route* route;
  std::vector<std::string_view> segments;
};

const std::vector<Template>& templates() {
  static const std::vector<Template> all = [] {
    std::vector<Template> list;
    for (const Route& route : all_routes()) list.push_back({&route, segments_of(route.path)});
    return list;
  }();
  return all;
}

std::optional<std::vector<std::string>> match(const Template& one,
                                              const std::vector<std::string_view>& path) {
  const bool takes_rest = !one.segments.empty() && one.segments.back() == "{id*}";
  if (one.segments.size() != path.size() && !(takes_rest && path.size() > one.segments.size())) {
    return std::nullopt;
  }
  std::vector<std::string> arguments;
  for (std::size_t i = 0; i < path.size(); ++i) {
    if (i >= one.segments.size()) {  // a name with slashes
      arguments.back() += "/" + unescaped(path[i]);
      continue;
    }
    if (one.segments[i].starts_with('{')) {
      arguments.push_back(unescaped(path[i]));
    } else if (one.segments[i] != path[i]) {
      return std::nullopt;
    }
  }
  return arguments;
}

}  // namespace

const std::vector<Route>& all_routes() {
  static const std::vector<Route> routes = [] {
    std::vector<Route> all;
    for (const auto& some : {status_routes(), completion_routes(), token_routes(), memory_routes(),
                             teach_routes(), question_routes()}) {
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }();
  return routes;
}

Found find_route(std::string_view method, std::string_view path) {
  const auto segments = segments_of(path);
  bool is_known = false;
  for (const Template& one : templates()) {
    auto arguments = match(one, segments);
    if (!arguments) continue;
    if (one.route->method == method) return {one.route, *std::move(arguments)};
    is_known = true;
  }
  if (!is_known) {
    throw Refusal(kNotFound, "unknown_url",
                  "there is nothing at " + io::quote(path) + "; /openapi.json lists what there is");
  }
  throw Refusal(kNotAllowed, "method_not_allowed",
                io::quote(path) + ": expected " + methods_of(path) + ", got " + io::quote(method));
}

std::string methods_of(std::string_view path) {
  const auto segments = segments_of(path);
  std::string methods;
  for (const Template& one : templates()) {
    if (!match(one, segments)) continue;
    methods += (methods.empty() ? "" : ", ") + std::string(one.route->method);
  }
  return methods;
}

}  // namespace memlayers::api
