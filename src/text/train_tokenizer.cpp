// SPDX-License-Identifier: Apache-2.0
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <charconv>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "memlayers/error.h"
#include "memlayers/tokenizer.h"
#include "text/sentencepiece_quiet.h"
#include "text/tokenizer_file.h"
#include "text/utf8.h"

namespace memlayers {
namespace {

constexpr std::size_t kMaxSentenceBytes = 4096;  // longer ones the trainer leaves out (at 4192)
constexpr std::int64_t kFixedPieces = 3 + 256;   // <unk>, <s>, </s> and the bytes

constexpr char32_t kZero = 0, kLowerBlock = 0x2585;  // the trainer takes no text that has them

// The characters to have pieces of their own: all, but where they would take more than half of the
// room only the commonest (the rest are spelled in bytes). The trainer's own character_coverage
// cannot go below 98 %.
std::unordered_set<char32_t> common_characters(const std::vector<std::string>& texts,
                                               std::int64_t room) {
  std::unordered_map<char32_t, std::int64_t> counts;
  for (std::string_view text : texts) {
    while (!text.empty()) {
      const text::Utf8Character character = text::decode_utf8(text);
      ++counts[character.code];
      text.remove_prefix(character.bytes);
    }
  }
  counts.erase(kZero);
  counts.erase(kLowerBlock);
  std::vector<std::pair<std::int64_t, char32_t>> sorted;
  sorted.reserve(counts.size());
  for (const auto& [code, count] : counts) sorted.emplace_back(-count, code);
  std::sort(sorted.begin(), sorted.end());
  const auto most = static_cast<std::size_t>(std::max<std::int64_t>(1, room / 2));
  sorted.resize(std::min(sorted.size(), most));
  std::unordered_set<char32_t> common = {U' '};  // every sentence begins with one
  for (const auto& [count, code] : sorted) common.insert(code);
  return common;
}

// The texts in pieces the trainer takes, cut behind line ends where it can, else before spaces,
// else anywhere between characters. A tab stands for each rare character: no piece spans a tab.
class Sentences : public sentencepiece::SentenceIterator {
 public:
  Sentences(const std::vector<std::string>& texts, std::unordered_set<char32_t> common)
      : texts_(texts), common_(std::move(common)) {
    Sentences::Next();
  }
  bool done() const override { return done_; }
  const std::string& value() const override { return value_; }
  sentencepiece::util::Status status() const override { return {}; }

  void Next() override {
    while (text_ < texts_.size() && at_ == texts_[text_].size()) {
      ++text_;
      at_ = 0;
    }
    done_ = text_ == texts_.size();
    if (done_) return;
    const std::string_view rest = std::string_view(texts_[text_]).substr(at_);
    const std::size_t size = sentence_bytes(rest);
    take(rest.substr(0, size));
    at_ += size;
  }

 private:
  void take(std::string_view sentence) {
    value_.clear();
    while (!sentence.empty()) {
      const text::Utf8Character character = text::decode_utf8(sentence);
      if (common_.contains(character.code)) {
        value_ += sentence.substr(0, character.bytes);
      } else {
        value_ += '\t';
      }
      sentence.remove_prefix(character.bytes);
    }
  }

  static std::size_t sentence_bytes(std::string_view rest) {
    if (rest.size() <= kMaxSentenceBytes) return rest.size();
    if (const auto line = rest.rfind('\n', kMaxSentenceBytes - 1); line != rest.npos) {
      return line + 1;
    }
    if (const auto space = rest.rfind(' ', kMaxSentenceBytes); space != rest.npos && space > 0) {
      return space;
    }
    std::size_t cut = kMaxSentenceBytes;
    while ((static_cast<unsigned char>(rest[cut]) & 0xC0) == 0x80) --cut;
    return cut;
  }

  const std::vector<std::string>& texts_;
  const std::unordered_set<char32_t> common_;
  std::size_t text_ = 0, at_ = 0;
  std::string value_;
  bool done_ = false;
};

[[noreturn]] void fail_training(const std::string& message, std::int64_t vocab_size) {
  constexpr std::string_view kBound = "to a value <= ";
  if (const auto at = message.find(kBound); at != std::string::npos) {
    std::int64_t most = 0;
    std::from_chars(message.data() + at + kBound.size(), message.data() + message.size(), most);
    throw Error("[model] vocab_size: expected at most " + std::to_string(most) +
                " for these texts, got " + std::to_string(vocab_size));
  }
  throw Error("training a tokenizer: " + message);
}

}  // namespace

std::shared_ptr<const Tokenizer> train_tokenizer(const std::vector<std::string>& texts,
                                                 std::int64_t vocab_size) {
  constexpr std::int64_t kMost = 1 << 24;
  if (vocab_size <= kFixedPieces + 1 || vocab_size > kMost) {
    throw Error("[model] vocab_size: expected " + std::to_string(kFixedPieces + 2) +
                " (3 special pieces, 256 bytes, 2 learned) to " + std::to_string(kMost) + ", got " +
                std::to_string(vocab_size));
  }
  bool is_empty = true;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    text::check_utf8(texts[i], "text " + std::to_string(i) + " to train a tokenizer on");
    is_empty = is_empty && texts[i].empty();
  }
  if (is_empty) throw Error("training a tokenizer: expected text, got none");

  text::silence_sentencepiece();
  Sentences sentences(texts, common_characters(texts, vocab_size - kFixedPieces));
  std::string bytes;
  const auto status =
      sentencepiece::SentencePieceTrainer::Train({{"model_type", "bpe"},
                                                  {"vocab_size", std::to_string(vocab_size)},
                                                  {"byte_fallback", "true"},
                                                  {"character_coverage", "1"},
                                                  {"normalization_rule_name", "identity"},
                                                  {"remove_extra_whitespaces", "false"},
                                                  {"allow_whitespace_only_pieces", "true"},
                                                  {"split_digits", "true"},
                                                  {"unk_id", "0"},
                                                  {"bos_id", "1"},
                                                  {"eos_id", "2"},
                                                  {"pad_id", "-1"},
                                                  {"num_threads", "1"},
                                                  {"minloglevel", "4"}},
                                                 &sentences, &bytes);
  if (!status.ok()) fail_training(status.ToString(), vocab_size);
  return text::parse_sentencepiece("trained tokenizer", std::move(bytes));
}

}  // namespace memlayers
