// SPDX-License-Identifier: Apache-2.0
#include "serve/canary_file.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "io/json.h"
#include "io/json_field.h"
#include "io/shown.h"

namespace memlayers::serve {
namespace {

constexpr const char* kFormat = "memlayers-canaries";
constexpr std::int64_t kVersion = 1;

}  // namespace

CanariesById read_canaries(io::FileSystem& files, const std::string& path) {
  if (!files.exists(path)) return {};
  const nlohmann::json json = io::parse_json(io::read_text(files, path), path);
  const io::JsonField file(json, path);
  file.expect_only({"format", "version", "canaries"});
  if (file.at("format").string() != kFormat) file.at("format").fail(io::quote(kFormat));
  file.at("version").integer(kVersion, kVersion);
  CanariesById canaries;
  for (const io::JsonField& each : file.at("canaries").elements()) {
    each.expect_only({"id", "prompt", "answer", "rolls_back"});
    api::Canary canary{.id = each.at("id").string(),
                       .prompt = each.at("prompt").string(),
                       .answer = each.at("answer").string(),
                       .rolls_back = each.at("rolls_back").boolean()};
    std::string id = canary.id;
    if (!canaries.emplace(std::move(id), std::move(canary)).second) {
      each.at("id").fail("each id once");
    }
  }
  return canaries;
}

void write_canaries(io::FileSystem& files, const std::string& path, const CanariesById& canaries) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const auto& [id, canary] : canaries) {
    list.push_back({{"id", id},
                    {"prompt", canary.prompt},
                    {"answer", canary.answer},
                    {"rolls_back", canary.rolls_back}});
  }
  const nlohmann::ordered_json file{
      {"format", kFormat}, {"version", kVersion}, {"canaries", std::move(list)}};
  io::write_atomic(files, path, file.dump(1) + "\n");
}

}  // namespace memlayers::serve
