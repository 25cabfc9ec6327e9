// SPDX-License-Identifier: Apache-2.0
#include "text/bert_normalizer.h"

#include <optional>
#include <string>
#include <utility>

#include "text/unicode.h"
#include "text/unicode_normalizer.h"
#include "text/utf8.h"

namespace memlayers::text {
namespace {

// The blocks of ideographs that BERT's authors listed, with the gap that they left.
bool is_ideograph(char32_t code) {
  return (code >= 0x4E00 && code <= 0x9FFF) || (code >= 0x3400 && code <= 0x4DBF) ||
         (code >= 0x20000 && code <= 0x2A6DF) || (code >= 0x2A700 && code <= 0x2B73F) ||
         (code >= 0x2B740 && code <= 0x2B81F) || (code >= 0x2B920 && code <= 0x2CEAF) ||
         (code >= 0xF900 && code <= 0xFAFF) || (code >= 0x2F800 && code <= 0x2FA1F);
}

bool is_removed(char32_t code) {
  return code == 0 || code == 0xFFFD ||
         (is_other(code) && code != '\t' && code != '\n' && code != '\r');
}

class BertNormalizer : public NormalizerStep {
 public:
  explicit BertNormalizer(const JsonField& field)
      : cleans_(field.at("clean_text").boolean()),
        parts_ideographs_(field.at("handle_chinese_chars").boolean()),
        lowers_(field.at("lowercase").boolean()),
        strips_accents_(field.boolean_or("strip_accents", lowers_)),
        decompose_(normal_form_d()) {}

  void apply(std::string& text, const Context& context) const override {
    std::string result;
    result.reserve(text.size());
    change(text, result, context, [&](char32_t code, std::string_view character) {
      if (cleans_ && is_removed(code)) return;
      if (cleans_ && is_space(code)) {
        result += ' ';
      } else if (parts_ideographs_ && is_ideograph(code)) {
        result.append(1, ' ').append(character).append(1, ' ');
      } else {
        result += character;
      }
    });
    text = std::move(result);
    if (strips_accents_) {
      decompose_->apply(text, context);
      result.clear();
      change(text, result, context, [&](char32_t code, std::string_view character) {
        if (!is_nonspacing_mark(code)) result += character;
      });
      text = std::move(result);
    }
    if (!lowers_) return;
    result.clear();
    change(text, result, context,
           [&](char32_t code, std::string_view) { append_lowercase(result, code); });
    text = std::move(result);
  }

 private:
  template <typename Each>
  static void change(std::string_view text, const std::string& result, const Context& context,
                     const Each& each) {
    while (!text.empty()) {
      const Utf8Character character = decode_utf8(text);
      each(character.code, text.substr(0, character.bytes));
      text.remove_prefix(character.bytes);
      check_size(result.size() + text.size(), context);
    }
  }

  const bool cleans_, parts_ideographs_, lowers_, strips_accents_;
  const std::unique_ptr<const NormalizerStep> decompose_;
};

}  // namespace

std::unique_ptr<const NormalizerStep> read_bert_normalizer(const JsonField& field) {
  return std::make_unique<BertNormalizer>(field);
}

}  // namespace memlayers::text
