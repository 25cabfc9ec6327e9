// SPDX-License-Identifier: Apache-2.0
#include "memlayers/tokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "io/file_system.h"
#include "memlayers/error.h"
#include "text/tokenizer_file.h"
#include "text/utf8.h"

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

// The text of tokens_ is compared with what was given of it. tokens_ is cut to its last token
// whenever that cannot change what follows, so that a push costs the same however long the stream.
StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer,
                             std::vector<std::int32_t> prompt)
    : tokenizer_(std::move(tokenizer)), tokens_(std::move(prompt)) {
  given_ = tokenizer_->decode(tokens_);
  shorten();
}

std::string StreamDecoder::push(std::int32_t token) {
  tokens_.push_back(token);
  const std::string text = tokenizer_->decode(tokens_);
  // Up to three bytes at the end may be the beginning of a character: up to three U+FFFD.
  std::string_view whole = text;
  for (int i = 0; i < 3 && whole.ends_with(text::kReplacement); ++i) {
    whole.remove_suffix(text::kReplacement.size());
  }
  std::string fresh = take(whole);
  if (whole.size() == text.size()) shorten();
  return fresh;
}

std::string StreamDecoder::finish() { return take(tokenizer_->decode(tokens_)); }

std::string StreamDecoder::take(std::string_view text) {
  // Held-back bytes make `text` shorter than what was given only behind a prompt that ends in
  // U+FFFD.
  if (text.size() <= given_.size() && std::string_view(given_).starts_with(text)) return {};
  std::size_t same = static_cast<std::size_t>(
      std::mismatch(text.begin(), text.end(), given_.begin(), given_.end()).first - text.begin());
  while (same > 0 && same < text.size() &&
         (static_cast<unsigned char>(text[same]) & 0xC0) == 0x80) {
    --same;
  }
  given_ = text;
  return std::string(text.substr(same));
}

void StreamDecoder::shorten() {
  if (tokens_.empty()) return;
  // A token that has text of its own: what comes behind it is not at the start of a text.
  const std::int32_t last = tokens_.back();
  std::string alone = tokenizer_->decode(std::span(&last, 1));
  if (alone.empty() || alone.ends_with(text::kReplacement)) return;
  tokens_ = {last};
  given_ = std::move(alone);
}

}  // namespace memlayers
