// SPDX-License-Identifier: Apache-2.0
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <charconv>
#include <unordered_map>

#include "memlayers/error.h"
#include "memlayers/tokenizer.h"
#include "text/sentencepiece_quiet.h"
#include "text/tokenizer_file.h"
#include "text/utf8.h"

namespace memlayers {
namespace {

constexpr std::size_t kMaxSentenceBytes = 4096;  // longer ones the trainer leaves out (at 4192)
constexpr std::int64_t kFixedPieces = 3 + 256;   // <unk>, <s>, </s> and the bytes

// The texts in pieces the trainer takes, cut behind line ends where it can, else before spaces,
// else anywhere between characters.
class Sentences : public sentencepiece::SentenceIterator {
 public:
  explicit Sentences(const std::vector<std::string>& texts) : texts_(texts) { Next(); }
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
    value_ = rest.substr(0, sentence_bytes(rest));
    at_ += value_.size();
  }

 private:
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
  std::size_t text_ = 0, at_ = 0;
  std::string value_;
  bool done_ = false;
};

// The share of all characters to have pieces of their own: all of them, but where they would take
// more than half of the room only the commonest (the rest are spelled in bytes).
double character_coverage(const std::vector<std::string>& texts, std::int64_t room) {
  std::unordered_map<char32_t, std::int64_t> counts;
  std::int64_t total = 0;
  for (std::string_view text : texts) {
    while (!text.empty()) {
      const text::Utf8Character character = text::decode_utf8(text);
      ++counts[character.code];
      ++total;
      text.remove_prefix(character.bytes);
    }
  }
  const auto kept = static_cast<std::size_t>(std::max<std::int64_t>(1, room / 2));
  if (counts.size() <= kept) return 1;
  std::vector<std::int64_t> sorted;
  sorted.reserve(counts.size());
  for (const auto& [code, count] : counts) sorted.push_back(count);
  std::sort(sorted.rbegin(), sorted.rend());
  std::int64_t covered = 0;
  for (std::size_t i = 0; i < kept; ++i) covered += sorted[i];
  return (static_cast<double>(covered) - 0.5) / static_cast<double>(total);
}

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
  Sentences sentences(texts);
  std::string bytes;
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      {{"model_type", "bpe"},
       {"vocab_size", std::to_string(vocab_size)},
       {"byte_fallback", "true"},
       {"character_coverage", std::to_string(character_coverage(texts, vocab_size - kFixedPieces))},
       {"required_chars", "\xE2\x96\x81"},  // else a rare space would be spelled in bytes
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
