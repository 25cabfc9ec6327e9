// SPDX-License-Identifier: Apache-2.0
#include "text/token_decoder.h"

#include <array>
#include <utility>

#include "memlayers/error.h"
#include "text/metaspace.h"
#include "text/utf8.h"

namespace memlayers::text {
namespace {

constexpr std::size_t kMaxStages = 64;
// What the steps may make of tokens: real ones make three bytes of one.
constexpr std::size_t kMostMade = 64, kLeastRoom = 1 << 20;
constexpr std::int64_t kMaxStrip = 1000;

std::string stripped(std::string_view text, const std::string& character, std::size_t start,
                     std::size_t stop) {
  for (; start > 0 && text.starts_with(character); --start) text.remove_prefix(character.size());
  for (; stop > 0 && text.ends_with(character); --stop) text.remove_suffix(character.size());
  return std::string(text);
}

std::string one_character(const JsonField& field) {
  const std::string& text = field.string();
  if (text.empty() || decode_utf8(text).bytes != text.size()) field.fail("one character");
  return text;
}

// What transformers calls cleaning up, of one token.
std::string cleaned(std::string text) {
  constexpr std::array<std::pair<const char*, const char*>, 11> kRules{{{" .", "."},
                                                                        {" ?", "?"},
                                                                        {" !", "!"},
                                                                        {" ,", ","},
                                                                        {" ' ", "'"},
                                                                        {" n't", "n't"},
                                                                        {" 'm", "'m"},
                                                                        {" do not", " don't"},
                                                                        {" 's", "'s"},
                                                                        {" 've", "'ve"},
                                                                        {" 're", "'re"}}};
  for (const auto& [from, to] : kRules) text = Pattern(std::string(from)).replaced(text, to);
  return text;
}

// The text of a token of WordPiece: a space is before it unless it goes on.
std::string piece_text(const std::string& token, const std::string& prefix, std::size_t index) {
  if (index == 0) return token;
  return token.starts_with(prefix) ? token.substr(prefix.size()) : " " + token;
}

}  // namespace

TokenDecoder::TokenDecoder(const std::optional<JsonField>& field) {
  if (field) {
    read(*field);
    return;
  }
  add([] {
    return each_token([](const std::string& token, std::size_t index) {
      return index == 0 ? token : " " + token;
    });
  });
}

void TokenDecoder::read(const JsonField& field) {
  if (field.type() == "Sequence") {
    for (const JsonField& part : field.at("decoders").elements()) read(part);
    return;
  }
  if (stages_.size() >= kMaxStages)
    field.fail("at most " + std::to_string(kMaxStages) + " decoders");
  read_step(field);
}

void TokenDecoder::add(MakeStage make) { stages_.push_back(std::move(make)); }

void TokenDecoder::read_step(const JsonField& field) {
  const std::string type = field.type();
  if (type == "Fuse") {
    is_joined_ = true;
  } else if (type == "ByteLevel" || type == "ByteFallback") {
    if (is_joined_) add(hold_all);  // a rare order: they look at whole tokens
    add(type == "ByteLevel" ? join_byte_characters : join_spelled_bytes);
    is_joined_ = is_joined_ || type == "ByteLevel";
  } else if (type == "Metaspace") {
    const Metaspace metaspace = read_metaspace(field);
    const std::string sign = metaspace.replacement;
    const bool drops_first = metaspace.prefix != Metaspace::Prefix::kNever;
    if (is_joined_) {
      add([sign, drops_first] { return replace_in_text(sign, drops_first ? "" : " "); });
    } else {
      add([pattern = Pattern(sign), drops_first] {
        return each_token([pattern, drops_first](const std::string& text, std::size_t index) {
          return pattern.replaced(text, index == 0 && drops_first ? "" : " ");
        });
      });
    }
  } else if (type == "Replace") {
    const Pattern pattern(field.at("pattern"));
    const std::string content = field.at("content").string();
    const auto text = pattern.text();
    if (content.size() > kMostMade * (text ? text->size() : 1)) {
      field.at("content").fail("no more than " + std::to_string(kMostMade) +
                               " bytes for each that they stand for");
    }
    if (is_joined_ && text) {
      add([from = std::string(*text), content] { return replace_in_text(from, content); });
    } else {
      if (is_joined_) add(hold_all);
      add([pattern, content] {
        return each_token([pattern, content](const std::string& token, std::size_t) {
          return pattern.replaced(token, content);
        });
      });
    }
  } else if (type == "Strip") {
    read_strip(field);
  } else if (type == "WordPiece") {
    if (is_joined_) add(hold_all);
    add([prefix = field.at("prefix").string(), cleans = field.at("cleanup").boolean()] {
      return each_token([prefix, cleans](const std::string& token, std::size_t index) {
        const std::string text = piece_text(token, prefix, index);
        return cleans ? cleaned(text) : text;
      });
    });
  } else if (type == "BPEDecoder") {
    if (is_joined_) add(hold_all);
    const std::string suffix = field.at("suffix").string();
    if (suffix.empty()) field.at("suffix").fail("a string that is not empty");
    add([suffix] { return end_words(suffix); });
  } else {
    field.fail(
        "a decoder of type Sequence, ByteLevel, Metaspace, ByteFallback, Fuse, Replace, Strip, "
        "WordPiece or BPEDecoder");
  }
}

void TokenDecoder::read_strip(const JsonField& field) {
  const std::string character = one_character(field.at("content"));
  const auto start = static_cast<std::size_t>(field.at("start").integer(0, kMaxStrip));
  const auto stop = static_cast<std::size_t>(field.at("stop").integer(0, kMaxStrip));
  if (is_joined_) {
    add([character, start] { return strip_start(character, start); });
    if (stop > 0) add([character, stop] { return strip_end(character, stop); });
  } else {
    add([character, start, stop] {
      return each_token([character, start, stop](const std::string& text, std::size_t) {
        return stripped(text, character, start, stop);
      });
    });
  }
}

TokenDecoder::Run TokenDecoder::start() const {
  std::vector<std::unique_ptr<DecodeStage>> stages;
  for (const MakeStage& make : stages_) stages.push_back(make());
  return Run(std::move(stages));
}

void TokenDecoder::Run::give(std::size_t stage, std::string text) {
  if (text.size() > most_bytes_) {
    throw Error("tokens to decode: expected the tokenizer's decoder to make at most " +
                std::to_string(most_bytes_) + " bytes of them, got more");
  }
  if (stage == stages_.size()) {
    result_ += text;
    return;
  }
  stages_[stage]->push(std::move(text),
                       [&](std::string next) { give(stage + 1, std::move(next)); });
}

std::string TokenDecoder::Run::push(std::string token) {
  most_bytes_ += kMostMade * token.size() + (most_bytes_ == 0 ? kLeastRoom : 0);
  give(0, std::move(token));
  return std::exchange(result_, {});
}

std::string TokenDecoder::Run::finish() {
  for (std::size_t stage = 0; stage < stages_.size(); ++stage) {
    stages_[stage]->finish([&](std::string next) { give(stage + 1, std::move(next)); });
  }
  return std::exchange(result_, {});
}

}  // namespace memlayers::text
