// SPDX-License-Identifier: Apache-2.0
#include "api/keys.h"

#include <algorithm>
#include <cctype>

#include "api/hosts.h"
#include "api/status.h"
#include "io/file_system.h"
#include "io/lines.h"

namespace memlayers::api {
namespace {

// The time goes with the given key alone.
bool equal(std::string_view given, std::string_view key) {
  unsigned different = given.size() == key.size() ? 0 : 1;
  for (std::size_t i = 0; i < given.size(); ++i) {
    different |= static_cast<unsigned char>(given[i]) ^
                 static_cast<unsigned char>(key.empty() ? '\0' : key[i % key.size()]);
  }
  return different == 0;
}

bool any_equal(std::string_view given, const std::vector<std::string>& keys) {
  bool found = false;
  for (const std::string& key : keys) found |= equal(given, key);
  return found;
}

// "" where there is none.
std::string_view bearer(const http::Request& header) {
  constexpr std::string_view kScheme = "bearer ";
  const std::string* field = header.header("authorization");
  if (field == nullptr || field->size() < kScheme.size()) return {};
  const bool is_bearer =
      std::equal(kScheme.begin(), kScheme.end(), field->begin(), [](char scheme, char given) {
        return scheme == std::tolower(static_cast<unsigned char>(given));
      });
  std::string_view key = *field;
  if (!is_bearer) return {};
  key.remove_prefix(kScheme.size());
  return key;
}

// A page of another site, open in a browser on this machine, reaches a server without keys: it may
// ask, as it may with every server of models, but not edit.
bool is_foreign_page(const http::Request& header) {
  const std::string* origin = header.header("origin");
  if (origin == nullptr) return false;
  constexpr std::string_view kScheme = "http://";
  const std::string* host = header.header("host");
  return !origin->starts_with(kScheme) || host == nullptr ||
         origin->substr(kScheme.size()) != *host || !is_loopback_host(host_of(*host));
}

}  // namespace

std::vector<std::string> read_keys(const std::string& path) {
  std::vector<std::string> keys = io::lines_of(io::read_text(io::posix(), path), path);
  for (const std::string& key : keys) {  // which the message does not tell
    if (std::ranges::all_of(key, [](char c) { return c > ' ' && c <= '~'; })) continue;
    throw Error(path + ": expected one key a line, of visible ASCII characters, got another one");
  }
  return keys;
}

std::optional<Refusal> refusal_of(const Keys& keys, Right right, const http::Request& header) {
  if (right == Right::kNone) return std::nullopt;
  const std::string_view given = bearer(header);
  const bool is_admin = any_equal(given, keys.admin), may_ask = any_equal(given, keys.ask);
  if (is_admin) return std::nullopt;
  if (right == Right::kAsk && (may_ask || keys.ask.empty())) return std::nullopt;
  if (right == Right::kAdmin && keys.admin.empty()) {
    if (!keys.ask.empty()) {
      return Refusal(kForbidden, "no_admin_key",
                     "this server was started without an admin key: its memory is not edited");
    }
    if (!is_foreign_page(header)) return std::nullopt;
    return Refusal(kForbidden, "foreign_origin",
                   "a page of another site edits the memory only with an admin key, which this "
                   "server was started without");
  }
  if (may_ask) {
    return Refusal(kForbidden, "admin_key_required",
                   "expected the admin key, got one that may only ask");
  }
  return Refusal(kUnauthorized, "invalid_api_key",
                 given.empty() ? "expected a key in the header Authorization: Bearer, got none"
                               : "expected one of this server's keys, got another one");
}

}  // namespace memlayers::api
