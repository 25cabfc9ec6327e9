// SPDX-License-Identifier: Apache-2.0
// Hugging Face's tokenizer.json for the BPE families that LLaMA-like models use: text is cut at
// added tokens, normalized, split into words, and each word is merged. What would not be exact is
// refused when the file is read.
#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "memlayers/error.h"
#include "text/bpe.h"
#include "text/json_field.h"
#include "text/regex.h"
#include "text/tokenizer_file.h"
#include "text/utf8.h"

namespace memlayers::text {
namespace {

// GPT-2's, which a ByteLevel pre-tokenizer with use_regex stands for.
constexpr const char* kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

void replace_all(std::string& text, const std::string& from, const std::string& to) {
  for (std::size_t at = text.find(from); at != std::string::npos;
       at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

// The printable character that stands for each byte in byte-level vocabularies.
const std::array<std::string, 256>& byte_characters() {
  static const std::array<std::string, 256> characters = [] {
    std::array<std::string, 256> made;
    char32_t next = 256;
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const bool is_printable =
          (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      append_utf8(made[byte], is_printable ? static_cast<char32_t>(byte) : next++);
    }
    return made;
  }();
  return characters;
}

using Words = std::vector<std::string>;

// One step of normalizer or pre_tokenizer. `prefix` says whether a space may be put before the
// text.
struct Step {
  enum class Kind { kPrepend, kReplace, kSplit, kByteLevel, kMetaspace } kind;
  std::string from, to;
  std::optional<Regex> regex;
  bool adds_prefix = false, only_first = false, splits = true;
};

std::string string_pattern(const JsonField& step) {
  const JsonField pattern = step.at("pattern");
  const auto text = pattern.find("String");
  if (!text || text->string().empty()) pattern.fail("a \"String\" that is not empty");
  return text->string();
}

void read_normalizer(const JsonField& field, std::vector<Step>& steps) {
  const std::string type = field.type();
  if (type == "Sequence") {
    for (const JsonField& part : field.at("normalizers").elements()) read_normalizer(part, steps);
  } else if (type == "Prepend") {
    steps.push_back(
        {Step::Kind::kPrepend, "", field.at("prepend").string(), {}, true, false, true});
  } else if (type == "Replace") {
    steps.push_back({Step::Kind::kReplace,
                     string_pattern(field),
                     field.at("content").string(),
                     {},
                     false,
                     false,
                     true});
  } else {
    field.fail("a normalizer of type Sequence, Prepend or Replace");
  }
}

void read_pre_tokenizer(const JsonField& field, std::vector<Step>& steps) {
  const std::string type = field.type();
  if (type == "Sequence") {
    for (const JsonField& part : field.at("pretokenizers").elements())
      read_pre_tokenizer(part, steps);
  } else if (type == "Split") {
    if (field.string_or("behavior", "") != "Isolated" || field.boolean_or("invert", false)) {
      field.fail("a Split with behavior Isolated, not inverted");
    }
    const JsonField pattern = field.at("pattern");
    const auto regex = pattern.find("Regex");
    if (!regex) pattern.fail("a \"Regex\"");
    steps.push_back({Step::Kind::kSplit, "", "", Regex(*regex), false, false, true});
  } else if (type == "ByteLevel") {
    Step step{Step::Kind::kByteLevel,
              "",
              "",
              {},
              field.boolean_or("add_prefix_space", true),
              false,
              true};
    if (field.boolean_or("use_regex", true)) step.regex = Regex::trusted(kByteLevelPattern);
    steps.push_back(std::move(step));
  } else if (type == "Metaspace") {
    const bool old_spelling = field.boolean_or("add_prefix_space", true);
    const std::string scheme = field.string_or("prepend_scheme", old_spelling ? "always" : "never");
    if (scheme != "always" && scheme != "first" && scheme != "never") {
      field.fail("a prepend_scheme always, first or never");
    }
    steps.push_back({Step::Kind::kMetaspace,
                     " ",
                     field.string_or("replacement", "\xE2\x96\x81"),
                     {},
                     scheme != "never",
                     scheme == "first",
                     field.boolean_or("split", true)});
  } else {
    field.fail("a pre-tokenizer of type Sequence, Split, ByteLevel or Metaspace");
  }
}

enum class Decoding { kByteLevel, kMetaspace, kByteFallback, kFuse, kReplace, kStrip };
struct DecodeStep {
  Decoding kind;
  std::string from, to;  // Strip: the character; Metaspace: its replacement
  std::int64_t count = 0;
  bool drops_first = false;
};

void read_decoder(const JsonField& field, std::vector<DecodeStep>& steps) {
  const std::string type = field.type();
  if (type == "Sequence") {
    for (const JsonField& part : field.at("decoders").elements()) read_decoder(part, steps);
  } else if (type == "ByteLevel") {
    steps.push_back({Decoding::kByteLevel, "", "", 0, false});
  } else if (type == "Metaspace") {
    const bool old_spelling = field.boolean_or("add_prefix_space", true);
    const std::string scheme = field.string_or("prepend_scheme", old_spelling ? "always" : "never");
    steps.push_back({Decoding::kMetaspace, field.string_or("replacement", "\xE2\x96\x81"), " ", 0,
                     scheme != "never"});
  } else if (type == "ByteFallback") {
    steps.push_back({Decoding::kByteFallback, "", "", 0, false});
  } else if (type == "Fuse") {
    steps.push_back({Decoding::kFuse, "", "", 0, false});
  } else if (type == "Replace") {
    steps.push_back(
        {Decoding::kReplace, string_pattern(field), field.at("content").string(), 0, false});
  } else if (type == "Strip") {
    if (field.at("stop").integer(0, 0) != 0) field.fail("a Strip that stops at 0");
    steps.push_back({Decoding::kStrip, field.at("content").string(), "",
                     field.at("start").integer(0, 1000), false});
  } else {
    field.fail(
        "a decoder of type Sequence, ByteLevel, Metaspace, ByteFallback, Fuse, Replace or Strip");
  }
}

std::optional<unsigned char> spelled_byte(const std::string& token) {  // "<0x41>"
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  unsigned value = 0;
  for (const char c : token.substr(3, 2)) {
    const bool is_digit = c >= '0' && c <= '9', is_letter = c >= 'A' && c <= 'F';
    if (!is_digit && !is_letter) return std::nullopt;
    value = value * 16 + static_cast<unsigned>(is_digit ? c - '0' : c - 'A' + 10);
  }
  return static_cast<unsigned char>(value);
}

// Runs of byte tokens become their characters, or U+FFFD for each byte of a run that is not UTF-8.
Words join_bytes(const Words& tokens) {
  Words out;
  std::string run;
  const auto flush = [&] {
    if (run.empty()) return;
    if (valid_utf8_bytes(run) == run.size()) {
      out.push_back(run);
    } else {
      for (std::size_t i = 0; i < run.size(); ++i) out.emplace_back(kReplacement);
    }
    run.clear();
  };
  for (const std::string& token : tokens) {
    if (const auto byte = spelled_byte(token)) {
      run += static_cast<char>(*byte);
    } else {
      flush();
      out.push_back(token);
    }
  }
  flush();
  return out;
}

std::string byte_level_text(const Words& tokens) {
  static const std::map<std::string, char, std::less<>> bytes = [] {
    std::map<std::string, char, std::less<>> made;
    for (std::size_t byte = 0; byte < 256; ++byte)
      made[byte_characters()[byte]] = static_cast<char>(byte);
    return made;
  }();
  std::string text;
  for (const std::string& token : tokens) {
    std::string decoded;
    bool is_spelled = true;
    for (std::string_view rest = token; !rest.empty() && is_spelled;) {
      const std::size_t length = decode_utf8(rest).bytes;
      const auto found = bytes.find(rest.substr(0, length));
      is_spelled = found != bytes.end();
      if (is_spelled) decoded += found->second;
      rest.remove_prefix(length);
    }
    text += is_spelled ? decoded : token;  // an added token stands for itself
  }
  return replace_invalid_utf8(text, Replace::kEachPart);
}

class JsonTokenizer : public Tokenizer {
 public:
  JsonTokenizer(const std::string& path, std::string bytes, const nlohmann::json& json,
                const SpecialNames& names)
      : bytes_(std::move(bytes)), bpe_(JsonField(json, path).at("model")) {
    const JsonField root(json, path);
    if (const auto field = root.find("normalizer")) read_normalizer(*field, normalizer_);
    if (const auto field = root.find("pre_tokenizer")) read_pre_tokenizer(*field, pre_tokenizer_);
    read_decoder(root.at("decoder"), decoder_);
    tokens_ = bpe_.tokens();
    if (const auto field = root.find("added_tokens")) read_added_tokens(*field);
    const auto [first, last] = template_tokens(root);
    bos_ = special(names, names.bos, "bos_token", first);
    eos_ = special(names, names.eos, "eos_token", last ? last : conventional_eos());
    pad_ = special(names, names.pad, "pad_token", std::nullopt);
  }

  std::vector<std::int32_t> encode(std::string_view text) const override { return run(text, true); }
  std::vector<std::int32_t> encode_continuation(std::string_view text) const override {
    return run(" " + std::string(text), false);
  }

  std::string decode(std::span<const std::int32_t> tokens) const override {
    Words words;
    for (const std::int32_t token : tokens) {
      const auto at = static_cast<std::size_t>(token);
      if (token < 0 || at >= tokens_.size()) {
        throw Error(file_name() + ": expected token ids in [0, " + std::to_string(tokens_.size()) +
                    "), got " + std::to_string(token));
      }
      if (!special_.contains(token)) words.push_back(tokens_[at]);
    }
    for (const DecodeStep& step : decoder_) words = apply(step, std::move(words));
    std::string text;
    for (const std::string& word : words) text += word;
    return text;
  }

  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(tokens_.size()); }
  std::optional<std::int32_t> bos() const override { return bos_; }
  std::optional<std::int32_t> eos() const override { return eos_; }
  std::optional<std::int32_t> pad() const override { return pad_; }
  std::string file_name() const override { return "tokenizer.json"; }
  const std::string& file_bytes() const override { return bytes_; }

 private:
  void read_added_tokens(const JsonField& list) {
    for (const JsonField& field : list.elements()) {
      const auto id = static_cast<std::int32_t>(field.at("id").integer(0, (1 << 24) - 1));
      const std::string& content = field.at("content").string();
      if (content.empty()) field.fail("a content that is not empty");
      const auto at = static_cast<std::size_t>(id);
      if (at >= tokens_.size()) tokens_.resize(at + 1);
      if (!tokens_[at].empty() && tokens_[at] != content)
        field.fail("the content that model.vocab gives this id");
      tokens_[at] = content;
      added_[content] = id;
      if (field.boolean_or("special", false)) {
        special_.insert(id);
        continue;
      }
      for (const char* name : {"single_word", "lstrip", "rstrip"}) {
        if (field.boolean_or(name, false))
          field.fail(std::string(name) + " false in a token that is not special");
      }
      if (field.boolean_or("normalized", true) && !normalizer_.empty()) {
        field.fail("normalized false in a token that is not special, where there is a normalizer");
      }
      matched_.emplace_back(content, id);
    }
    // Of several that match at one place the longest wins.
    std::stable_sort(matched_.begin(), matched_.end(),
                     [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
  }

  std::optional<std::int32_t> find(const std::string& token) const {
    const auto found = added_.find(token);
    return found != added_.end() ? std::optional(found->second) : bpe_.find(token);
  }

  std::optional<std::int32_t> special(const SpecialNames& names, const SpecialNames::Name& name,
                                      const char* field,
                                      std::optional<std::int32_t> otherwise) const {
    if (!name.given) return otherwise;
    if (!name.piece) return std::nullopt;
    const auto found = find(*name.piece);
    if (!found) {
      throw Error(names.path + ": " + field + ": expected a token of tokenizer.json, got \"" +
                  *name.piece + "\"");
    }
    return found;
  }

  // The special tokens that a TemplateProcessing puts before and behind a single text.
  std::pair<std::optional<std::int32_t>, std::optional<std::int32_t>> template_tokens(
      const JsonField& root) const {
    std::vector<JsonField> processors;
    if (const auto field = root.find("post_processor")) {
      if (field->type() == "Sequence") {
        processors = field->at("processors").elements();
      } else {
        processors.push_back(*field);
      }
    }
    std::optional<std::int32_t> first, last;
    for (const JsonField& processor : processors) {
      if (processor.type() != "TemplateProcessing") continue;
      bool is_behind = false;
      for (const JsonField& piece : processor.at("single").elements()) {
        if (piece.find("Sequence")) is_behind = true;
        if (const auto token = piece.find("SpecialToken")) {
          (is_behind ? last : first) = find(token->at("id").string());
        }
      }
    }
    return {first, last};
  }

  std::optional<std::int32_t> conventional_eos() const {
    for (const char* name : {"</s>", "<|end_of_text|>", "<|endoftext|>"}) {
      const auto found = added_.find(name);
      if (found != added_.end() && special_.contains(found->second)) return found->second;
    }
    return std::nullopt;
  }

  std::vector<std::int32_t> run(std::string_view text, bool takes_prefix) const {
    check_utf8(text, "text to encode");
    std::vector<std::int32_t> tokens;
    bool is_first = true;
    const auto plain = [&](std::string_view part) {
      if (part.empty()) return;
      for (const std::string& word :
           split(std::string(part), takes_prefix || !is_first, is_first)) {
        bpe_.encode(word, tokens);
      }
      is_first = false;
    };
    std::size_t begin = 0;
    for (std::size_t at = 0; at < text.size() && !matched_.empty();) {
      const auto found = std::find_if(matched_.begin(), matched_.end(), [&](const auto& token) {
        return text.substr(at).starts_with(token.first);
      });
      if (found == matched_.end()) {
        ++at;
        continue;
      }
      plain(text.substr(begin, at - begin));
      tokens.push_back(found->second);
      is_first = false;
      at += found->first.size();
      begin = at;
    }
    plain(text.substr(begin));
    return tokens;
  }

  Words split(std::string text, bool takes_prefix, bool is_first) const {
    for (const Step& step : normalizer_) {
      if (step.kind == Step::Kind::kReplace) {
        replace_all(text, step.from, step.to);
      } else if (takes_prefix) {
        text.insert(0, step.to);
      }
    }
    Words words{std::move(text)};
    for (const Step& step : pre_tokenizer_) {
      Words next;
      for (std::size_t i = 0; i < words.size(); ++i) {
        const bool is_start = is_first && i == 0;
        split_word(step, std::move(words[i]), takes_prefix, is_start, next);
      }
      words = std::move(next);
    }
    return words;
  }

  static void split_word(const Step& step, std::string word, bool takes_prefix, bool is_start,
                         Words& out) {
    if (step.kind == Step::Kind::kMetaspace) {
      replace_all(word, " ", step.to);
      const bool wants = step.adds_prefix && takes_prefix && (!step.only_first || is_start);
      if (wants && !word.starts_with(step.to)) word.insert(0, step.to);
      std::size_t begin = 0;
      for (std::size_t at = word.find(step.to, 1); step.splits && at != std::string::npos;
           at = word.find(step.to, at + 1)) {
        out.push_back(word.substr(begin, at - begin));
        begin = at;
      }
      out.push_back(word.substr(begin));
      return;
    }
    if (step.kind == Step::Kind::kByteLevel && step.adds_prefix && takes_prefix &&
        !word.starts_with(' ')) {
      word.insert(0, 1, ' ');
    }
    Words parts;
    if (step.regex) {
      std::size_t end = 0;
      step.regex->for_each_match(word, [&](std::size_t begin, std::size_t stop) {
        if (begin > end) parts.push_back(word.substr(end, begin - end));
        parts.push_back(word.substr(begin, stop - begin));
        end = stop;
      });
      if (end < word.size()) parts.push_back(word.substr(end));
    } else {
      parts.push_back(std::move(word));
    }
    for (std::string& part : parts) {
      if (step.kind == Step::Kind::kByteLevel) {
        std::string spelled;
        for (const char c : part) spelled += byte_characters()[static_cast<unsigned char>(c)];
        part = std::move(spelled);
      }
      out.push_back(std::move(part));
    }
  }

  static Words apply(const DecodeStep& step, Words words) {
    switch (step.kind) {
      case Decoding::kByteLevel:
        return {byte_level_text(words)};
      case Decoding::kByteFallback:
        return join_bytes(words);
      case Decoding::kFuse: {
        std::string all;
        for (const std::string& word : words) all += word;
        return {all};
      }
      case Decoding::kReplace:
        for (std::string& word : words) replace_all(word, step.from, step.to);
        return words;
      case Decoding::kMetaspace:
        for (std::size_t i = 0; i < words.size(); ++i) {
          replace_all(words[i], step.from, i == 0 && step.drops_first ? "" : step.to);
        }
        return words;
      case Decoding::kStrip:
        for (std::string& word : words) {
          for (std::int64_t i = 0; i < step.count && word.starts_with(step.from); ++i) {
            word.erase(0, step.from.size());
          }
        }
        return words;
    }
    return words;
  }

  std::string bytes_;
  Bpe bpe_;
  std::vector<Step> normalizer_, pre_tokenizer_;
  std::vector<DecodeStep> decoder_;
  std::vector<std::string> tokens_;  // by id, added ones too
  std::map<std::string, std::int32_t> added_;
  std::vector<std::pair<std::string, std::int32_t>> matched_;  // in plain text, longest first
  std::set<std::int32_t> special_;
  std::optional<std::int32_t> bos_, eos_, pad_;
};

}  // namespace

std::shared_ptr<const Tokenizer> parse_json_tokenizer(const std::string& path, std::string bytes,
                                                      const SpecialNames& names) {
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(bytes);
  } catch (const nlohmann::json::exception& error) {
    throw Error(path + ": expected JSON, got: " + error.what());
  }
  if (!json.is_object()) throw Error(path + ": expected an object, got " + json.type_name());
  return std::make_shared<JsonTokenizer>(path, std::move(bytes), json, names);
}

}  // namespace memlayers::text
