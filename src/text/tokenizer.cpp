// SPDX-License-Identifier: Apache-2.0
#include "memlayers/tokenizer.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "io/file_system.h"
#include "memlayers/error.h"
#include "text/tokenizer_file.h"

namespace memlayers {
namespace {

using text::SpecialNames;

SpecialNames::Name special_name(const nlohmann::json& config, const std::string& field,
                                const std::string& path) {
  const auto found = config.find(field);
  if (found == config.end()) return {};
  if (found->is_null()) return {.given = true};
  if (found->is_string()) return {.given = true, .piece = found->get<std::string>()};
  if (found->is_object() && found->contains("content") && found->at("content").is_string()) {
    return {.given = true, .piece = found->at("content").get<std::string>()};
  }
  throw Error(path + ": " + field + ": expected a string, or an object with a \"content\", got " +
              found->type_name());
}

SpecialNames read_tokenizer_config(const std::string& path) {
  nlohmann::json config;
  try {
    config = nlohmann::json::parse(io::read_text(io::posix(), path));
  } catch (const nlohmann::json::exception& error) {
    throw Error(path + ": expected JSON, got " + error.what());
  }
  if (!config.is_object()) throw Error(path + ": expected an object, got " + config.type_name());
  return {.path = path,
          .bos = special_name(config, "bos_token", path),
          .eos = special_name(config, "eos_token", path),
          .pad = special_name(config, "pad_token", path)};
}

}  // namespace

std::shared_ptr<const Tokenizer> load_tokenizer(const std::string& path) {
  io::FileSystem& fs = io::posix();
  std::string file = path;
  SpecialNames names;
  if (fs.is_folder(path)) {
    file = io::join(path, "tokenizer.json");
    if (!fs.exists(file)) file = io::join(path, "tokenizer.model");
    if (!fs.exists(file)) {
      throw Error(path +
                  ": expected tokenizer.json or tokenizer.model in this folder, got neither");
    }
    const std::string config = io::join(path, "tokenizer_config.json");
    if (fs.exists(config)) names = read_tokenizer_config(config);
  }
  std::string bytes = io::read_text(fs, file);
  const bool is_json = file.ends_with(".json") || bytes.starts_with('{');
  return is_json ? text::parse_json_tokenizer(file, std::move(bytes), names)
                 : text::parse_sentencepiece(file, std::move(bytes), names);
}

}  // namespace memlayers
