// SPDX-License-Identifier: Apache-2.0
#include "memlayers/tokenizer.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "io/file_system.h"
#include "io/gguf/file.h"
#include "io/gguf/source.h"
#include "memlayers/error.h"
#include "text/chat_files.h"
#include "text/foreign_file.h"
#include "text/tokenizer_file.h"

namespace memlayers {
namespace {

using text::TokenizerSettings;

void append(std::vector<std::int32_t>& tokens, const std::vector<std::int32_t>& more) {
  tokens.insert(tokens.end(), more.begin(), more.end());
}

// The tokenizer in the head of a GGUF file.
std::shared_ptr<const Tokenizer> load_from_gguf(io::FileSystem& fs, const std::string& path) {
  const io::gguf::File file = io::gguf::File::open(fs, path);
  constexpr const char* kConfig = "tokenizer_config.json";
  const auto tokenizer = io::gguf::text_of(file, "tokenizer.json");
  const auto config = io::gguf::text_of(file, kConfig);
  if (!tokenizer || !config) {
    throw Error(path + ": expected a file with a tokenizer, got one without tokens");
  }
  const auto settings = text::read_tokenizer_settings(path + ": " + kConfig, config, "", {});
  TokenizerFiles beside{{kConfig, *config}};
  const char* const chat = text::kChatTemplateFiles[0];
  if (auto source = io::gguf::text_of(file, chat)) beside.emplace_back(chat, std::move(*source));
  return text::parse_json_tokenizer(path + ": tokenizer.json", *tokenizer, settings,
                                    std::move(beside));
}

}  // namespace

std::vector<std::int32_t> Tokenizer::encode_prompt(std::string_view text) const {
  std::vector<std::int32_t> tokens = prefix();
  append(tokens, encode(text));
  return tokens;
}

std::vector<std::int32_t> Tokenizer::encode_pieces(std::span<const PromptPiece> pieces) const {
  std::string text;
  for (const PromptPiece& piece : pieces) text += piece.text;
  const auto is_strangers = [](const PromptPiece& piece) { return !piece.is_template; };
  return std::ranges::all_of(pieces, is_strangers) ? encode(text) : encode_special(text);
}

std::vector<std::int32_t> Tokenizer::encode_document(std::string_view text) const {
  std::vector<std::int32_t> tokens = encode_prompt(text);
  append(tokens, end_of_document());
  return tokens;
}

std::vector<std::int32_t> Tokenizer::end_of_document() const {
  std::vector<std::int32_t> tokens = suffix();
  const auto last = eos();
  if (last && (tokens.empty() || tokens.back() != *last)) tokens.push_back(*last);
  return tokens;
}

namespace {

constexpr const char* kConfig = "tokenizer_config.json";

// What we write beside a tokenizer that had no such file: it says nothing but how to open it.
constexpr std::string_view kOfModel = R"({
  "auto_map": {"AutoTokenizer": ["modeling_memlayers.MemlayersTokenizer", null]},
  "tokenizer_class": "MemlayersTokenizer"
}
)";
constexpr std::string_view kOfJson = R"({"tokenizer_class": "PreTrainedTokenizerFast"}
)";

}  // namespace

TokenizerFiles text::files_for_folder(const Tokenizer& tokenizer, bool has_memory) {
  TokenizerFiles files = tokenizer.files();
  if (!has_memory) return files;
  for (const auto& [name, bytes] : files) {
    if (name == kConfig) return files;
  }
  files.emplace_back(kConfig, tokenizer.file_name().ends_with(".json") ? kOfJson : kOfModel);
  return files;
}

std::shared_ptr<const Tokenizer> load_tokenizer(const std::string& path) {
  io::FileSystem& fs = io::posix();
  if (io::gguf::is_gguf(fs, path)) return load_from_gguf(fs, path);
  std::string file = path;
  TokenizerSettings settings;
  TokenizerFiles beside;
  if (fs.is_folder(path)) {
    file = io::join(path, "tokenizer.json");
    if (!fs.exists(file)) file = io::join(path, "tokenizer.model");
    if (!fs.exists(file)) {
      throw Error(path +
                  ": expected tokenizer.json or tokenizer.model in this folder, got neither");
    }
    const auto read = [&](const char* name) -> std::optional<std::string> {
      const std::string other = io::join(path, name);
      if (!fs.exists(other)) return std::nullopt;
      std::string text = io::read_text(fs, other);
      if (text == kOfModel || text == kOfJson) return std::nullopt;
      beside.emplace_back(name, std::move(text));
      return beside.back().second;
    };
    constexpr const char* kMap = "special_tokens_map.json";
    const auto config = read(kConfig), map = read(kMap);
    for (const char* name : text::kChatTemplateFiles) read(name);
    settings =
        text::read_tokenizer_settings(io::join(path, kConfig), config, io::join(path, kMap), map);
  }
  std::string bytes = io::read_text(fs, file);
  if (const std::string_view kind = text::foreign_kind(bytes); !kind.empty()) {
    throw Error(file + ": expected a tokenizer.json or a SentencePiece model, got " +
                std::string(kind));
  }
  const bool is_json = file.ends_with(".json") || bytes.starts_with('{');
  return is_json ? text::parse_json_tokenizer(file, std::move(bytes), settings, std::move(beside))
                 : text::parse_sentencepiece(file, std::move(bytes), settings, std::move(beside));
}

}  // namespace memlayers
