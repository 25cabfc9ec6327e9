// SPDX-License-Identifier: Apache-2.0
#include "api/log.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <ctime>

namespace memlayers::api {
namespace {

// In ASCII: every other character is escaped.
std::string ascii(const Json& json) {
  return json.dump(-1, ' ', true, Json::error_handler_t::replace);
}

std::string utc_now() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  constexpr std::int64_t kMs = 1000;
  const std::time_t seconds = ms / kMs;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  std::array<char, 32> text{};
  const std::size_t size = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &parts);
  std::array<char, 8> fraction{};
  std::snprintf(fraction.data(), fraction.size(), ".%03dZ", static_cast<int>(ms % kMs));
  return std::string(text.data(), size) + fraction.data();
}

// A value as one word; in quotation marks where it is none.
std::string word(const Json& value) {
  if (!value.is_string()) return ascii(value);
  const auto& text = value.get_ref<const std::string&>();
  const bool is_word = !text.empty() && std::ranges::all_of(text, [](char c) {
    return c > ' ' && c <= '~' && c != '"' && c != '=' && c != '\\';
  });
  return is_word ? text : ascii(value);
}

}  // namespace

void Log::write(std::string_view event, const Json& fields) {
  if (!sink_) return;
  std::string line;
  if (format_ == LogFormat::kJson) {
    Json all{{"time", utc_now()}, {"event", event}};
    all.update(fields);
    line = ascii(all);
  } else {
    line = utc_now() + " " + std::string(event);
    for (const auto& [name, value] : fields.items()) line += " " + name + "=" + word(value);
  }
  const std::lock_guard lock(mutex_);
  sink_(line);
}

}  // namespace memlayers::api
