// SPDX-License-Identifier: Apache-2.0
#include "text/unicode_normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "text/byte_characters.h"
#include "text/characters.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace memlayers::text {
namespace {

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

class NormalForm : public NormalizerStep {
 public:
  NormalForm(bool is_compatible, bool composes)
      : options_(UTF8PROC_DECOMPOSE | (is_compatible ? UTF8PROC_COMPAT : 0)), composes_(composes) {}

  // A character that is in no decomposition but its own, and behind which a new one begins, parts
  // the text: what is before it and what it begins have forms of their own.
  void apply(std::string& text, const Context& context) const override {
    if (is_ascii(text)) return;
    std::string result;
    result.reserve(text.size());
    std::vector<utf8proc_int32_t> codes;
    for (std::string_view rest = text; !rest.empty();) {
      const Utf8Character character = decode_utf8(rest);
      rest.remove_prefix(character.bytes);
      if (character.code < 0x80 || has_no_form(character.code)) {
        put(codes, result);
        check_size(result.size() + rest.size(), context);
        codes.push_back(static_cast<utf8proc_int32_t>(character.code));
      } else {
        decompose(character.code, codes);
        check_size(result.size() + codes.size(), context);
      }
    }
    put(codes, result);
    check_size(result.size(), context);
    text = std::move(result);
  }

 private:
  void put(std::vector<utf8proc_int32_t>& codes, std::string& result) const {
    auto size = static_cast<utf8proc_ssize_t>(codes.size());
    if (size > 1) put_in_order(codes);
    if (size > 1 && composes_) {
      size = utf8proc_normalize_utf32(
          codes.data(), size, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    }
    for (utf8proc_ssize_t i = 0; i < size; ++i) {
      append_utf8(result, static_cast<char32_t>(codes[static_cast<std::size_t>(i)]));
    }
    codes.clear();
  }

  void decompose(char32_t code, std::vector<utf8proc_int32_t>& codes) const {
    constexpr std::size_t kMost = 32;  // of one character; 18 in Unicode 15
    std::array<utf8proc_int32_t, kMost> buffer;
    int last_boundary = 0;
    const utf8proc_ssize_t count =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code), buffer.data(), kMost,
                                static_cast<utf8proc_option_t>(options_), &last_boundary);
    codes.insert(codes.end(), buffer.begin(),
                 buffer.begin() + std::clamp<utf8proc_ssize_t>(count, 0, kMost));
  }

  // Runs of combining marks by their classes. The library's own sort is quadratic in a run.
  static void put_in_order(std::vector<utf8proc_int32_t>& codes) {
    const bool is_fixed = has_no_form(static_cast<char32_t>(codes.front()));
    for (auto begin = codes.begin() + (is_fixed ? 1 : 0); begin != codes.end();) {
      if (combining_class(*begin) == 0) {
        ++begin;
        continue;
      }
      const auto end = std::find_if(
          begin, codes.end(), [](utf8proc_int32_t code) { return combining_class(code) == 0; });
      std::stable_sort(begin, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
        return combining_class(a) < combining_class(b);
      });
      begin = end;
    }
  }

  static int combining_class(utf8proc_int32_t code) {
    return utf8proc_get_property(code)->combining_class;
  }

  const unsigned options_;
  const bool composes_;
};

// What each character becomes, by itself.
class EachCharacter : public NormalizerStep {
 public:
  using Change = void (*)(char32_t code, std::string_view character, std::string& result);
  explicit EachCharacter(Change change) : change_(change) {}

  void apply(std::string& text, const Context& context) const override {
    std::string result;
    result.reserve(text.size());
    for (std::string_view rest = text; !rest.empty();) {
      const Utf8Character character = decode_utf8(rest);
      change_(character.code, rest.substr(0, character.bytes), result);
      rest.remove_prefix(character.bytes);
      check_size(result.size() + rest.size(), context);
    }
    text = std::move(result);
  }

 private:
  const Change change_;
};

void put_lowercase(char32_t code, std::string_view, std::string& result) {
  append_lowercase(result, code);
}

void leave_out_accents(char32_t code, std::string_view character, std::string& result) {
  if (!is_mark(code)) result += character;
}

void spell_bytes(char32_t, std::string_view character, std::string& result) {
  for (const char c : character) result += byte_characters()[static_cast<unsigned char>(c)];
}

// SentencePiece's rules for machine translation: some controls go, some become spaces.
void change_controls(char32_t code, std::string_view character, std::string& result) {
  if ((code >= 1 && code <= 8) || code == 0xB || (code >= 0xE && code <= 0x1F) || code == 0x7F ||
      code == 0x8F || code == 0x9F) {
    return;
  }
  const bool is_space = code == '\t' || code == '\n' || code == '\f' || code == '\r' ||
                        code == 0x1680 || (code >= 0x200B && code <= 0x200F) || code == 0x2028 ||
                        code == 0x2029 || code == 0x2581 || code == 0xFEFF || code == 0xFFFD;
  result += is_space ? " " : character;
}

class StripSpaces : public NormalizerStep {
 public:
  explicit StripSpaces(const JsonField& field)
      : left_(field.at("strip_left").boolean()), right_(field.at("strip_right").boolean()) {}
  void apply(std::string& text, const Context&) const override {
    std::string_view rest = text;
    const auto is_space_sign = [](std::string_view character) {
      return is_space(decode_utf8(character).code);
    };
    while (left_ && !rest.empty() && is_space_sign(first_character(rest))) {
      rest.remove_prefix(first_character(rest).size());
    }
    while (right_ && !rest.empty() && is_space_sign(last_character(rest))) {
      rest.remove_suffix(last_character(rest).size());
    }
    text = std::string(rest);
  }

 private:
  const bool left_, right_;
};

}  // namespace

std::unique_ptr<const NormalizerStep> normal_form_d() {
  return std::make_unique<NormalForm>(false, false);
}

std::unique_ptr<const NormalizerStep> read_unicode_normalizer(const std::string& type,
                                                              const JsonField& field) {
  if (type == "NFC") return std::make_unique<NormalForm>(false, true);
  if (type == "NFD") return normal_form_d();
  if (type == "NFKC") return std::make_unique<NormalForm>(true, true);
  if (type == "NFKD") return std::make_unique<NormalForm>(true, false);
  if (type == "Lowercase") return std::make_unique<EachCharacter>(put_lowercase);
  if (type == "StripAccents") return std::make_unique<EachCharacter>(leave_out_accents);
  if (type == "Nmt") return std::make_unique<EachCharacter>(change_controls);
  if (type == "ByteLevel") return std::make_unique<EachCharacter>(spell_bytes);
  if (type == "Strip") return std::make_unique<StripSpaces>(field);
  return nullptr;
}

}  // namespace memlayers::text
