// SPDX-License-Identifier: Apache-2.0
#include "text/normalizer.h"

#include <algorithm>
#include <utility>

#include "memlayers/error.h"
#include "text/bert_normalizer.h"
#include "text/pattern.h"
#include "text/precompiled.h"
#include "text/unicode_normalizer.h"

namespace memlayers::text {
namespace {

constexpr std::size_t kMaxSteps = 256;  // each is a pass over the text

class Prepend : public NormalizerStep {
 public:
  explicit Prepend(const JsonField& field) : prefix_(field.at("prepend").string()) {}
  bool adds_prefix() const override { return true; }
  void apply(std::string& text, const Context& context) const override {
    if (!context.takes_prefix || text.empty()) return;
    check_size(text.size() + prefix_.size(), context);
    text.insert(0, prefix_);
  }

 private:
  const std::string prefix_;
};

class ReplaceAll : public NormalizerStep {
 public:
  explicit ReplaceAll(const JsonField& field)
      : pattern_(field.at("pattern")), content_(field.at("content").string()) {}
  void apply(std::string& text, const Context& context) const override {
    std::string result;
    std::size_t end = 0;
    pattern_.for_each_match(text, [&](std::size_t begin, std::size_t stop) {
      result.append(text, end, begin - end).append(content_);
      end = stop;
      check_size(result.size() + text.size() - end, context);
    });
    if (end == 0) return;
    text = std::move(result.append(text, end));
  }

 private:
  const Pattern pattern_;
  const std::string content_;
};

}  // namespace

void NormalizerStep::check_size(std::size_t bytes, const Context& context) {
  if (bytes <= context.max_bytes) return;
  throw Error("text to encode: expected the tokenizer's normalizer to make at most " +
              std::to_string(context.max_bytes) + " bytes of it, got more");
}

Normalizer::Normalizer(const JsonField& field) { read(field); }

bool Normalizer::adds_prefix() const {
  return std::any_of(steps_.begin(), steps_.end(),
                     [](const auto& step) { return step->adds_prefix(); });
}

void Normalizer::read(const JsonField& field) {
  const std::string type = field.type();
  if (type == "Sequence") {
    for (const JsonField& part : field.at("normalizers").elements()) read(part);
    return;
  }
  if (steps_.size() == kMaxSteps) {
    field.fail("at most " + std::to_string(kMaxSteps) + " normalizers");
  }
  if (type == "Prepend") {
    steps_.push_back(std::make_unique<Prepend>(field));
  } else if (type == "Replace") {
    steps_.push_back(std::make_unique<ReplaceAll>(field));
  } else if (type == "BertNormalizer") {
    steps_.push_back(read_bert_normalizer(field));
  } else if (type == "Precompiled") {
    steps_.push_back(read_precompiled(field));
  } else if (auto step = read_unicode_normalizer(type, field)) {
    steps_.push_back(std::move(step));
  } else {
    field.fail(
        "a normalizer of type Sequence, Prepend, Replace, NFC, NFD, NFKC, NFKD, Lowercase, "
        "StripAccents, Strip, Nmt, ByteLevel, Precompiled or BertNormalizer");
  }
}

std::string Normalizer::operator()(std::string_view text, bool takes_prefix,
                                   std::size_t max_bytes) const {
  std::string result(text);
  for (const auto& step : steps_) step->apply(result, {takes_prefix, max_bytes});
  return result;
}

}  // namespace memlayers::text
