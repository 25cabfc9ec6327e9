// SPDX-License-Identifier: Apache-2.0
#include "text/tokenizer_settings.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

#include "io/json.h"
#include "memlayers/error.h"
#include "text/vocabulary.h"

namespace memlayers::text {
namespace {

constexpr std::array kNames = {"bos_token", "eos_token", "unk_token", "sep_token",
                               "pad_token", "cls_token", "mask_token"};
constexpr std::array kLists = {"additional_special_tokens", "extra_special_tokens"};

// A string, or an object with a "content".
std::string piece_of(const JsonField& field) {
  if (field.is_object()) return field.at("content").string();
  if (!field.is_string()) field.fail("a string, or an object with a \"content\"");
  return field.string();
}

void read_names(const nlohmann::json& json, const std::string& path, TokenizerSettings& settings) {
  const JsonField root(json, path);
  for (const char* name : kNames) {
    if (!json.contains(name)) continue;
    TokenizerSettings::Name found{.given = true, .field = path + ": " + name};
    if (const auto field = root.find(name)) {
      found.piece = piece_of(*field);
      settings.special.push_back(*found.piece);
    }
    if (name == std::string_view("bos_token")) settings.bos = found;
    if (name == std::string_view("eos_token")) settings.eos = found;
    if (name == std::string_view("pad_token")) settings.pad = found;
  }
  for (const char* name : kLists) {
    const auto list = root.find(name);
    if (!list || !list->is_array()) continue;  // an object names tokens of other modalities
    for (const JsonField& field : list->elements()) settings.special.push_back(piece_of(field));
  }
}

// Absent: no choice. A null is there and means false.
std::optional<bool> flag(const nlohmann::json& json, const JsonField& root, const char* name) {
  if (!json.contains(name)) return std::nullopt;
  return root.boolean_or(name, false);
}

void read_added(const JsonField& decoder, TokenizerSettings& settings) {
  for (const auto& [name, field] : decoder.members()) {
    std::int32_t id = -1;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), id);
    if (error != std::errc() || end != name.data() + name.size() || id < 0 || id > kMaxTokenId) {
      field.fail("a token under its id");
    }
    settings.added.push_back(read_added_token(field, id));
  }
  std::sort(settings.added.begin(), settings.added.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
}

// What would change ids or text in a way that is not ours.
void refuse_others(const JsonField& root) {
  if (root.boolean_or("fix_mistral_regex", false)) {
    root.at("fix_mistral_regex").fail("false: another regular expression than tokenizer.json's");
  }
  constexpr const char* kForced =
      "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output";
  if (root.boolean_or(kForced, false)) root.at(kForced).fail("false");
  if (const auto sampling = root.find("sp_model_kwargs")) {
    if (sampling->is_object() && sampling->boolean_or("enable_sampling", false)) {
      sampling->at("enable_sampling").fail("false");
    }
  }
}

bool is_generic(const std::string& tokenizer_class) {
  return tokenizer_class.empty() || tokenizer_class == "PreTrainedTokenizerFast" ||
         tokenizer_class == "PreTrainedTokenizer" || tokenizer_class == "TokenizersBackend";
}

}  // namespace

TokenizerSettings read_tokenizer_settings(const std::string& config_path,
                                          const std::optional<std::string>& config,
                                          const std::string& map_path,
                                          const std::optional<std::string>& map) {
  TokenizerSettings settings;
  settings.path = config_path;
  bool has_added = false;
  if (config) {
    const nlohmann::json json = io::parse_json(*config, config_path);
    const JsonField root(json, config_path);
    if (!root.is_object()) root.fail("an object");
    refuse_others(root);
    read_names(json, config_path, settings);
    settings.add_bos = flag(json, root, "add_bos_token");
    settings.add_eos = flag(json, root, "add_eos_token");
    settings.cleans_up = root.boolean_or("clean_up_tokenization_spaces", false);
    if (root.find("add_prefix_space") && !is_generic(root.string_or("tokenizer_class", ""))) {
      settings.add_prefix = root.at("add_prefix_space").boolean();
    }
    if (const auto added = root.find("added_tokens_decoder")) {
      has_added = true;
      read_added(*added, settings);
    }
  }
  // As in transformers, a config that lists its tokens says all that the older file could.
  if (map && !has_added) {
    const nlohmann::json json = io::parse_json(*map, map_path);
    const JsonField root(json, map_path);
    if (!root.is_object()) root.fail("an object");
    read_names(json, map_path, settings);
  }
  return settings;
}

}  // namespace memlayers::text
