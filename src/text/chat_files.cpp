// SPDX-License-Identifier: Apache-2.0
#include "text/chat_files.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "io/json.h"
#include "text/json_field.h"

namespace memlayers::text {
namespace {

const std::string* bytes_of(const TokenizerFiles& files, std::string_view name) {
  const auto found = std::ranges::find(
      files, name, [](const auto& file) -> std::string_view { return file.first; });
  return found == files.end() ? nullptr : &found->second;
}

// "chat_template" of a JSON file: a text, or a list of objects with a name and a template.
void add_sources(const TokenizerFiles& files, const std::string& name,
                 std::vector<ChatSource>& sources) {
  const std::string* bytes = bytes_of(files, name);
  if (bytes == nullptr) return;
  const nlohmann::json json = io::parse_json(*bytes, name);
  const JsonField root(json, name);
  if (!root.is_object()) root.fail("an object");
  const auto field = root.find("chat_template");
  if (!field) return;
  const std::string place = name + ": chat_template";
  if (field->is_string()) {
    sources.push_back({"default", place, field->string()});
    return;
  }
  if (!field->is_array()) field->fail("a template, or a list of templates with names");
  for (const JsonField& one : field->elements()) {
    const std::string& own = one.at("name").string();
    sources.push_back({own, place + " \"" + own + "\"", one.at("template").string()});
  }
}

constexpr std::array kTokenNames = {"bos_token", "eos_token", "unk_token", "sep_token",
                                    "pad_token", "cls_token", "mask_token"};

std::optional<std::string> content_of(const JsonField& field) {
  if (field.is_string()) return field.string();
  if (!field.is_object()) return std::nullopt;
  const auto content = field.find("content");
  return content && content->is_string() ? std::optional(content->string()) : std::nullopt;
}

}  // namespace

std::vector<ChatSource> chat_sources(const TokenizerFiles& files) {
  std::vector<ChatSource> sources;
  if (const std::string* own = bytes_of(files, kChatTemplateFiles[0])) {
    sources.push_back({"default", kChatTemplateFiles[0], *own});
  }
  add_sources(files, "tokenizer_config.json", sources);
  add_sources(files, kChatTemplateFiles[1], sources);
  return sources;
}

std::vector<std::pair<std::string, std::string>> token_names(const Tokenizer& tokenizer) {
  std::vector<std::pair<std::string, std::string>> names;
  const auto put = [&](const std::string& name, const std::string& content) {
    const auto known =
        std::ranges::find(names, name, [](const auto& entry) { return entry.first; });
    if (known == names.end()) names.emplace_back(name, content);
  };
  for (const char* file : {"tokenizer_config.json", "special_tokens_map.json"}) {
    const std::string* bytes = bytes_of(tokenizer.files(), file);
    if (bytes == nullptr) continue;
    const nlohmann::json json = io::parse_json(*bytes, file);
    const JsonField root(json, file);
    for (const char* name : kTokenNames) {
      const auto field = root.find(name);
      if (const auto content = field ? content_of(*field) : std::nullopt) put(name, *content);
    }
    // Tokens of images and the like, by their names.
    const auto more = root.find("extra_special_tokens");
    if (!more || !more->is_object()) continue;
    for (const auto& [name, field] : more->members()) {
      if (const auto content = content_of(field)) put(name, *content);
    }
  }
  const auto put_id = [&](const char* name, std::optional<std::int32_t> id) {
    if (id) put(name, tokenizer.token(*id));
  };
  put_id("bos_token", tokenizer.bos());
  put_id("eos_token", tokenizer.eos());
  put_id("pad_token", tokenizer.pad());
  return names;
}

}  // namespace memlayers::text
