// SPDX-License-Identifier: Apache-2.0
#include "text/pre_tokenizer.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "text/byte_characters.h"
#include "text/metaspace.h"
#include "text/pattern.h"
#include "text/split_behavior.h"
#include "text/unicode.h"
#include "text/unicode_class.h"
#include "text/utf8.h"

namespace memlayers::text {
namespace {

// GPT-2's, which a ByteLevel pre-tokenizer with use_regex stands for. PCRE2's \s has U+180E, which
// is no space to the original.
std::string byte_level_pattern() {
  const std::string letters = unicode_class("L"), numbers = unicode_class("N");
  return "'s|'t|'re|'ve|'m|'ll|'d| ?[" + letters + "]+| ?[" + numbers + "]+| ?[^\\p{White_Space}" +
         letters + numbers + "]+|\\p{White_Space}+(?!\\P{White_Space})|\\p{White_Space}+";
}

constexpr std::size_t kMaxPreTokenizers = 64;

// A part of `piece`: what stands behind the piece's start may have a prefix in any case.
TextPiece part_of(const TextPiece& piece, std::size_t begin, std::size_t end) {
  return {piece.text.substr(begin, end - begin), piece.at_start && begin == 0,
          piece.takes_prefix || begin > 0};
}

class SplitStep : public PreTokenizerStep {
 public:
  SplitStep(Pattern pattern, SplitBehavior behavior, bool inverts)
      : pattern_(std::move(pattern)), behavior_(behavior), inverts_(inverts) {}

  void split(const TextPiece& piece, const TakePiece& next) const override {
    PartJoiner parts(behavior_,
                     [&](std::size_t begin, std::size_t end) { next(part_of(piece, begin, end)); });
    std::size_t done = 0;
    pattern_.for_each_match(piece.text, [&](std::size_t begin, std::size_t end) {
      parts.take(done, begin, inverts_);
      parts.take(begin, end, !inverts_);
      done = end;
    });
    parts.take(done, piece.text.size(), inverts_);
    parts.finish();
  }

 private:
  const Pattern pattern_;
  const SplitBehavior behavior_;
  const bool inverts_;
};

class ByteLevelStep : public PreTokenizerStep {
 public:
  explicit ByteLevelStep(const JsonField& field)
      : adds_prefix_(field.boolean_or("add_prefix_space", true)) {
    if (field.boolean_or("use_regex", true)) regex_ = Regex::trusted(byte_level_pattern());
  }
  bool adds_prefix() const override { return adds_prefix_; }

  void split(const TextPiece& piece, const TakePiece& next) const override {
    std::string prefixed;
    TextPiece whole = piece;
    if (adds_prefix_ && piece.takes_prefix && !piece.text.starts_with(' ')) {
      whole.text = prefixed.append(1, ' ').append(piece.text);
    }
    std::string spelled;
    const auto give = [&](std::size_t begin, std::size_t end) {
      if (begin == end) return;
      TextPiece part = part_of(whole, begin, end);
      spelled.clear();
      for (const char c : part.text) spelled += byte_characters()[static_cast<unsigned char>(c)];
      part.text = spelled;
      next(part);
    };
    std::size_t done = 0;
    if (regex_) {
      regex_->for_each_match(whole.text, [&](std::size_t begin, std::size_t end) {
        give(done, begin);
        give(begin, end);
        done = end;
      });
    }
    give(done, whole.text.size());
  }

 private:
  const bool adds_prefix_;
  std::optional<Regex> regex_;
};

class MetaspaceStep : public PreTokenizerStep {
 public:
  explicit MetaspaceStep(const JsonField& field)
      : metaspace_(read_metaspace(field)), splits_(field.boolean_or("split", true)) {}
  bool adds_prefix() const override { return metaspace_.prefix != Metaspace::Prefix::kNever; }

  void split(const TextPiece& piece, const TakePiece& next) const override {
    const std::string& sign = metaspace_.replacement;
    const bool has_place = metaspace_.prefix == Metaspace::Prefix::kAlways ||
                           (metaspace_.prefix == Metaspace::Prefix::kFirst && piece.at_start);
    std::string spelled;
    if (has_place && piece.takes_prefix && !piece.text.starts_with(sign) &&
        !piece.text.starts_with(' ')) {
      spelled = sign;
    }
    for (std::size_t at = 0; at < piece.text.size();) {
      const std::size_t space = std::min(piece.text.find(' ', at), piece.text.size());
      spelled += piece.text.substr(at, space - at);
      if (space < piece.text.size()) spelled += sign;
      at = space + 1;
    }
    const TextPiece whole{spelled, piece.at_start, piece.takes_prefix};
    std::size_t begin = 0;
    for (std::size_t at = splits_ ? spelled.find(sign, 1) : spelled.npos; at != spelled.npos;
         at = spelled.find(sign, at + 1)) {
      next(part_of(whole, begin, at));
      begin = at;
    }
    next(part_of(whole, begin, spelled.size()));
  }

 private:
  const Metaspace metaspace_;
  const bool splits_;
};

// Parts of so many characters.
class FixedLengthStep : public PreTokenizerStep {
 public:
  explicit FixedLengthStep(std::int64_t length) : length_(length) {}

  void split(const TextPiece& piece, const TakePiece& next) const override {
    std::size_t begin = 0, end = 0;
    for (std::int64_t count = 1; end < piece.text.size(); ++count) {
      end += decode_utf8(piece.text.substr(end)).bytes;
      if (count % length_ != 0 && end < piece.text.size()) continue;
      next(part_of(piece, begin, end));
      begin = end;
    }
  }

 private:
  const std::int64_t length_;
};

std::unique_ptr<const PreTokenizerStep> split_at(Pattern pattern, SplitBehavior behavior,
                                                 bool inverts = false) {
  return std::make_unique<SplitStep>(std::move(pattern), behavior, inverts);
}

std::unique_ptr<const PreTokenizerStep> read_step(const std::string& type, const JsonField& field) {
  if (type == "Split") {
    return split_at(Pattern(field.at("pattern")), read_split_behavior(field.at("behavior")),
                    field.boolean_or("invert", false));
  }
  if (type == "ByteLevel") return std::make_unique<ByteLevelStep>(field);
  if (type == "Metaspace") return std::make_unique<MetaspaceStep>(field);
  if (type == "Digits") {
    const bool each = field.boolean_or("individual_digits", false);
    return split_at(Pattern(is_number),
                    each ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
  }
  if (type == "Whitespace") {
    const std::string word = word_class();
    return split_at(Pattern(Regex::trusted("[" + word + "]+|[^" + word + "\\p{White_Space}]+")),
                    SplitBehavior::kRemoved, true);
  }
  if (type == "WhitespaceSplit") return split_at(Pattern(is_space), SplitBehavior::kRemoved);
  if (type == "Punctuation") {
    const auto behavior = field.find("behavior");
    return split_at(Pattern(is_punctuation),
                    behavior ? read_split_behavior(*behavior) : SplitBehavior::kIsolated);
  }
  if (type == "CharDelimiterSplit") {
    const JsonField delimiter = field.at("delimiter");
    const std::string& sign = delimiter.string();
    if (sign.empty() || decode_utf8(sign).bytes != sign.size()) delimiter.fail("one character");
    return split_at(Pattern(sign), SplitBehavior::kRemoved);
  }
  if (type == "FixedLength") {
    const auto length = field.find("length");
    constexpr std::int64_t kUsual = 5;
    return std::make_unique<FixedLengthStep>(length ? length->integer(1, INT64_MAX) : kUsual);
  }
  field.fail(
      "a pre-tokenizer of type Sequence, Split, ByteLevel, Metaspace, Digits, Whitespace, "
      "WhitespaceSplit, Punctuation, BertPreTokenizer, CharDelimiterSplit or FixedLength");
}

}  // namespace

PreTokenizer::PreTokenizer(const JsonField& field) { read(field); }

bool PreTokenizer::adds_prefix() const {
  return std::any_of(steps_.begin(), steps_.end(),
                     [](const auto& step) { return step->adds_prefix(); });
}

void PreTokenizer::read(const JsonField& field) {
  const std::string type = field.type();
  if (type == "Sequence") {
    for (const JsonField& part : field.at("pretokenizers").elements()) read(part);
    return;
  }
  if (steps_.size() >= kMaxPreTokenizers) {
    field.fail("at most " + std::to_string(kMaxPreTokenizers) + " pre-tokenizers");
  }
  if (type == "BertPreTokenizer") {
    steps_.push_back(split_at(Pattern(is_space), SplitBehavior::kRemoved));
    steps_.push_back(split_at(Pattern(is_punctuation), SplitBehavior::kIsolated));
  } else {
    steps_.push_back(read_step(type, field));
  }
}

void PreTokenizer::split(const TextPiece& piece,
                         const std::function<void(std::string_view)>& word) const {
  std::vector<TakePiece> takers(steps_.size() + 1);
  takers.back() = [&](const TextPiece& part) { word(part.text); };
  for (std::size_t i = steps_.size(); i-- > 0;) {
    takers[i] = [step = steps_[i].get(), &next = takers[i + 1]](const TextPiece& part) {
      step->split(part, next);
    };
  }
  takers.front()(piece);
}

}  // namespace memlayers::text
