// SPDX-License-Identifier: Apache-2.0
#include "io/json.h"

#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "memlayers/error.h"

namespace memlayers::io {
namespace {

using Event = nlohmann::json::parse_event_t;

// Printing a tree recurses; no file of ours nests deeper than a few levels.
constexpr int kMaxDepth = 64;

}  // namespace

nlohmann::json parse_json(std::string_view text, const std::string& where) {
  std::vector<std::set<std::string>> names;  // of the objects that are open
  const auto check = [&](int depth, Event event, const nlohmann::json& value) {
    if (event != Event::object_start && event != Event::array_start && event != Event::key) {
      return true;
    }
    if (depth > kMaxDepth) {
      throw Error(where + ": expected JSON nested at most " + std::to_string(kMaxDepth) +
                  " deep, got more");
    }
    names.resize(static_cast<std::size_t>(depth) + 1);
    if (event == Event::object_start) {  // its names come at depth + 1
      names.emplace_back();
    } else if (event == Event::key) {
      if (!names.back().insert(value.get<std::string>()).second) {
        throw Error(where + ": expected each name once, got " + brief(value) + " twice");
      }
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text, check);
  } catch (const nlohmann::json::exception& error) {
    throw Error(where + ": expected JSON, got: " + error.what());
  }
}

std::string brief(const nlohmann::json& value) {
  constexpr std::size_t kMost = 80;
  std::string text = value.dump(-1, ' ', true);
  if (text.size() > kMost) text.replace(kMost, std::string::npos, "...");
  return text;
}

}  // namespace memlayers::io
