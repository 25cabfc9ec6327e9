// SPDX-License-Identifier: Apache-2.0
#include "io/gguf/tokenizer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "io/gguf/merges.h"
#include "io/gguf/vocabulary.h"
#include "io/shown.h"
#include "memlayers/error.h"

namespace memlayers::io::gguf {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kGpt2Words =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char* kLlama3Words =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2Words =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr const char* kSpace = "\xE2\x96\x81";  // as SentencePiece spells a space

Json split(const char* regex) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", regex}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

Json byte_level(bool has_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", has_regex}};
}

Json sequence(const char* of, Json parts) { return {{"type", "Sequence"}, {of, std::move(parts)}}; }

// How text is cut into words, by tokenizer.ggml.pre.
struct PreTokenizer {
  const char* name;
  Json (*make)();
  bool ignores_merges, adds_bos;  // unless the file says otherwise
};

const std::array<PreTokenizer, 5>& pre_tokenizers() {
  static const std::array<PreTokenizer, 5> all{{
      // What llama.cpp does where a file does not say what its words are.
      {"default",
       [] {
         return sequence(
             "pretokenizers",
             Json::array({split(R"([\p{P}$+<=>^~|]+)"), split(kGpt2Words), split(R"(\p{N}+)"),
                          split("[0-9][0-9][0-9]"), byte_level(false)}));
       },
       false, false},
      {"gpt-2", [] { return byte_level(true); }, false, false},
      {"llama-bpe",
       [] {
         return sequence("pretokenizers", Json::array({split(kLlama3Words), byte_level(false)}));
       },
       true, true},
      {"qwen2",
       [] {
         return sequence("pretokenizers", Json::array({split(kQwen2Words), byte_level(false)}));
       },
       false, false},
      {"smollm",
       [] {
         const Json digits = {{"type", "Digits"}, {"individual_digits", true}};
         return sequence("pretokenizers", Json::array({digits, byte_level(true)}));
       },
       false, false},
  }};
  return all;
}

const PreTokenizer& read_pre_tokenizer(const Metadata& metadata) {
  const auto field = metadata.find("tokenizer.ggml.pre");
  if (!field) return pre_tokenizers().front();
  const std::string name = field->string();
  std::string known;
  for (const PreTokenizer& each : pre_tokenizers()) {
    if (name == each.name) return each;
    known += (known.empty() ? "\"" : ", \"") + std::string(each.name) + "\"";
  }
  field->fail("one of " + known);
}

bool flag(const Metadata& metadata, const std::string& name, bool absent) {
  const auto field = metadata.find("tokenizer.ggml." + name);
  return field ? field->boolean() : absent;
}

// What would change ids, or choose tokens, in a way that is not ours.
void refuse_others(const Metadata& metadata) {
  for (const char* name : {"add_sep_token", "remove_extra_whitespaces", "normalizer.lowercase",
                           "normalizer.strip_accents"}) {
    if (flag(metadata, name, false))
      metadata.at(std::string("tokenizer.ggml.") + name).fail("false");
  }
  for (const char* name : {"precompiled_charsmap", "suppress_tokens"}) {
    const auto field = metadata.find(std::string("tokenizer.ggml.") + name);
    if (field && field->count() > 0) field->fail("none");
  }
}

struct Settings {
  const PreTokenizer* pre;  // null: SentencePiece
  SpecialTokens special;
  bool adds_bos, adds_eos, adds_space;
};

Settings read_settings(const Metadata& metadata) {
  const Field model = metadata.at("tokenizer.ggml.model");
  const std::string name = model.string();
  if (name != "gpt2" && name != "llama") model.fail("\"gpt2\" or \"llama\"");
  refuse_others(metadata);
  Settings settings{};
  settings.special = read_special_tokens(metadata);
  if (name == "gpt2") settings.pre = &read_pre_tokenizer(metadata);
  const bool is_sentencepiece = settings.pre == nullptr;
  settings.adds_bos = flag(metadata, "add_bos_token", is_sentencepiece || settings.pre->adds_bos);
  settings.adds_eos = flag(metadata, "add_eos_token", false);
  settings.adds_space = is_sentencepiece && flag(metadata, "add_space_prefix", true);
  if (settings.adds_bos && !settings.special.bos) {
    throw Error(metadata.path() +
                ": expected a key \"tokenizer.ggml.bos_token_id\" of what is put "
                "before a text, found none");
  }
  if (settings.adds_eos && !settings.special.eos) {
    throw Error(metadata.path() +
                ": expected a key \"tokenizer.ggml.eos_token_id\" of what is put "
                "behind a text, found none");
  }
  return settings;
}

std::string quoted(const std::string& text) { return Json(text).dump(); }

Json added_token(std::size_t id, const std::string& content, bool is_special) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", is_special}};
}

Json added_tokens(const Vocabulary& vocabulary, const SpecialTokens& special) {
  std::vector<bool> stands_for_something(vocabulary.tokens.size());
  for (const auto& token : {special.bos, special.eos, special.unknown, special.pad,
                            special.end_of_turn, special.end_of_message}) {
    if (token) stands_for_something[static_cast<std::size_t>(*token)] = true;
  }
  Json list = Json::array();
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const TokenKind kind = vocabulary.kinds[id];
    const bool is_special =
        stands_for_something[id] || kind == TokenKind::kControl || kind == TokenKind::kUnknown;
    if (is_special || kind == TokenKind::kUserDefined) {
      list.push_back(added_token(id, vocabulary.tokens[id], is_special));
    }
  }
  return list;
}

// The text between BOS and EOS, as far as these are put there.
Json post_processor(const Vocabulary& vocabulary, const Settings& settings) {
  Json tokens = Json::object();
  const auto frame = [&](const char* text, int type) {
    Json pieces = Json::array();
    const auto add = [&](std::int64_t id) {
      const std::string& token = vocabulary.tokens[static_cast<std::size_t>(id)];
      pieces.push_back({{"SpecialToken", {{"id", token}, {"type_id", type}}}});
      tokens[token] = {{"id", token}, {"ids", Json::array({id})}, {"tokens", Json::array({token})}};
    };
    if (settings.adds_bos) add(*settings.special.bos);
    pieces.push_back({{"Sequence", {{"id", text}, {"type_id", type}}}});
    if (settings.adds_eos) add(*settings.special.eos);
    return pieces;
  };
  const Json single = frame("A", 0);
  Json pair = single;
  for (const Json& piece : frame("B", 1)) pair.push_back(piece);
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", tokens}};
}

// LLaMA 2's and Mistral's: a space is put before each text, also before one that begins with one.
Json space_normalizer(bool adds_space) {
  const Json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpace}};
  const Json prepend = {{"type", "Prepend"}, {"prepend", kSpace}};
  return sequence("normalizers",
                  adds_space ? Json::array({prepend, replace}) : Json::array({replace}));
}

Json space_decoder(bool strips_space) {
  const Json replace = {{"type", "Replace"}, {"pattern", {{"String", kSpace}}}, {"content", " "}};
  Json parts = Json::array({replace, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}});
  if (strips_space) {
    parts.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  return sequence("decoders", parts);
}

// A token and its id, in the order of ids.
std::string vocabulary_json(const Vocabulary& vocabulary) {
  std::string text = "{";
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (id > 0) text += ",";
    text += quoted(vocabulary.tokens[id]) + ":" + std::to_string(id);
  }
  return text + "}";
}

// "a b" for each merge, of which "a", "b" and "ab" are tokens.
std::string written_merges(const Metadata& metadata, const Vocabulary& vocabulary) {
  const Field field = metadata.at("tokenizer.ggml.merges");
  std::unordered_map<std::string_view, std::size_t> ids;
  ids.reserve(vocabulary.tokens.size());
  for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) ids.emplace(vocabulary.tokens[i], i);
  std::string text = "[", joined;
  std::size_t number = 0;
  for (const std::string& merge : field.strings()) {
    const std::size_t space = merge.find(' ');
    const std::string left = merge.substr(0, space);
    const std::string right = space == std::string::npos ? "" : merge.substr(space + 1);
    joined.assign(left).append(right);
    if (!ids.contains(left) || !ids.contains(right) || !ids.contains(joined)) {
      throw Error(metadata.path() + ": tokenizer.ggml.merges[" + std::to_string(number) +
                  "]: expected two tokens with a space between, which together are one, got " +
                  quote(merge));
    }
    text += (number++ > 0 ? ",[" : "[") + quoted(left) + "," + quoted(right) + "]";
  }
  return text + "]";
}

std::string scored_merges(const Metadata& metadata, const Vocabulary& vocabulary) {
  const Field field = metadata.at("tokenizer.ggml.scores");
  const std::vector<float> scores = field.numbers();
  if (scores.size() != vocabulary.tokens.size()) {
    field.fail(std::to_string(vocabulary.tokens.size()) + " elements, as many as there are tokens");
  }
  if (!std::ranges::all_of(scores, [](float score) { return std::isfinite(score); })) {
    field.fail("finite numbers alone");
  }
  std::string text = "[";
  for (const TokenPair& pair :
       merges_of_scores(vocabulary, scores, metadata.path() + ": tokenizer.ggml.tokens")) {
    if (text.size() > 1) text += ",";
    text += "[" + quoted(vocabulary.tokens[pair.left]) + "," +
            quoted(vocabulary.tokens[pair.right]) + "]";
  }
  return text + "]";
}

}  // namespace

std::vector<KnownWords> known_words() {
  std::vector<KnownWords> all;
  for (const PreTokenizer& each : pre_tokenizers()) {
    all.push_back({each.name, each.make().dump(), each.ignores_merges});
  }
  return all;
}

std::string tokenizer_json(const Metadata& metadata) {
  const Settings settings = read_settings(metadata);
  const Vocabulary vocabulary = read_vocabulary(metadata);
  const bool is_sentencepiece = settings.pre == nullptr;
  Json head = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
  head["added_tokens"] = added_tokens(vocabulary, settings.special);
  head["normalizer"] = is_sentencepiece ? space_normalizer(settings.adds_space) : Json(nullptr);
  head["pre_tokenizer"] = is_sentencepiece ? Json(nullptr) : settings.pre->make();
  head["post_processor"] = post_processor(vocabulary, settings);
  head["decoder"] = is_sentencepiece ? space_decoder(settings.adds_space) : byte_level(true);
  Json model = {{"type", "BPE"}, {"dropout", nullptr}, {"unk_token", nullptr}};
  if (is_sentencepiece && settings.special.unknown) {
    model["unk_token"] = vocabulary.tokens[static_cast<std::size_t>(*settings.special.unknown)];
  }
  model["continuing_subword_prefix"] = nullptr;
  model["end_of_word_suffix"] = nullptr;
  model["fuse_unk"] = is_sentencepiece;
  model["byte_fallback"] = is_sentencepiece;
  model["ignore_merges"] = !is_sentencepiece && settings.pre->ignores_merges;

  // The long parts are put together as text: a tree of them takes ten times as long.
  const auto open = [](const Json& object) {
    std::string text = object.dump();
    text.back() = ',';
    return text;
  };
  return open(head) + "\"model\":" + open(model) + "\"vocab\":" + vocabulary_json(vocabulary) +
         ",\"merges\":" +
         (is_sentencepiece ? scored_merges(metadata, vocabulary)
                           : written_merges(metadata, vocabulary)) +
         "}}\n";
}

std::string tokenizer_config_json(const Metadata& metadata) {
  const Settings settings = read_settings(metadata);
  const Vocabulary vocabulary = read_vocabulary(metadata);
  Json json = {{"add_bos_token", settings.adds_bos}, {"add_eos_token", settings.adds_eos}};
  const auto name = [&](const char* field, const std::optional<std::int64_t>& token) {
    json[field] = token ? Json(vocabulary.tokens[static_cast<std::size_t>(*token)]) : Json(nullptr);
  };
  name("bos_token", settings.special.bos);
  name("eos_token", settings.special.eos);
  name("pad_token", settings.special.pad);
  name("unk_token", settings.special.unknown);
  json["clean_up_tokenization_spaces"] = false;
  json["tokenizer_class"] = "PreTrainedTokenizerFast";
  return json.dump(2) + "\n";
}

std::optional<std::string> chat_template(const Metadata& metadata) {
  const auto field = metadata.find("tokenizer.chat_template");
  if (!field) return std::nullopt;
  return field->string();
}

}  // namespace memlayers::io::gguf
