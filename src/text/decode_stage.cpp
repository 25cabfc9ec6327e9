// SPDX-License-Identifier: Apache-2.0
#include "text/decode_stage.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "text/byte_characters.h"
#include "text/spelled_byte.h"
#include "text/utf8.h"
#include "text/utf8_stream.h"

namespace memlayers::text {
namespace {

class EachToken : public DecodeStage {
 public:
  explicit EachToken(std::function<std::string(std::string, std::size_t)> change)
      : change_(std::move(change)) {}
  void push(std::string text, const GiveText& give) override {
    give(change_(std::move(text), index_++));
  }

 private:
  const std::function<std::string(std::string, std::size_t)> change_;
  std::size_t index_ = 0;
};

class JoinSpelledBytes : public DecodeStage {
 public:
  void push(std::string text, const GiveText& give) override {
    if (const auto byte = read_spelled_byte(text)) {
      run_ += static_cast<char>(*byte);
      return;
    }
    finish(give);
    give(std::move(text));
  }
  void finish(const GiveText& give) override {
    if (run_.empty()) return;
    const std::string run = std::exchange(run_, {});
    if (valid_utf8_bytes(run) == run.size()) return give(run);
    for (std::size_t i = 0; i < run.size(); ++i) give(std::string(kReplacement));
  }

 private:
  std::string run_;
};

class JoinByteCharacters : public DecodeStage {
 public:
  void push(std::string text, const GiveText& give) override {
    give(bytes_.push(spelled(text).value_or(text)));
  }
  void finish(const GiveText& give) override { give(bytes_.finish()); }

 private:
  static std::optional<std::string> spelled(std::string_view text) {
    std::string bytes;
    while (!text.empty()) {
      const Utf8Character character = decode_utf8(text);
      const auto byte = byte_of_character(character.code);
      if (!byte) return std::nullopt;  // an added token
      bytes += static_cast<char>(*byte);
      text.remove_prefix(character.bytes);
    }
    return bytes;
  }
  Utf8Stream bytes_{Replace::kEachPart};
};

class ReplaceInText : public DecodeStage {
 public:
  ReplaceInText(std::string from, std::string to) : from_(std::move(from)), to_(std::move(to)) {}
  void push(std::string text, const GiveText& give) override {
    held_ += text;
    std::string result;
    std::size_t done = 0;
    for (std::size_t at = held_.find(from_); at != std::string::npos;
         at = held_.find(from_, done)) {
      result.append(held_, done, at - done).append(to_);
      done = at + from_.size();
    }
    // The longest end that may be the beginning of what is looked for.
    std::size_t keep = std::min(from_.size() - 1, held_.size() - done);
    while (!from_.starts_with(std::string_view(held_).substr(held_.size() - keep))) --keep;
    result.append(held_, done, held_.size() - keep - done);
    held_.erase(0, held_.size() - keep);
    give(std::move(result));
  }
  void finish(const GiveText& give) override { give(std::exchange(held_, {})); }

 private:
  const std::string from_, to_;
  std::string held_;
};

class StripStart : public DecodeStage {
 public:
  StripStart(std::string character, std::size_t most)
      : character_(std::move(character)), most_(most) {}
  void push(std::string text, const GiveText& give) override {
    std::string_view rest = text;
    for (; most_ > 0 && rest.starts_with(character_); --most_) {
      rest.remove_prefix(character_.size());
    }
    if (!rest.empty()) most_ = 0;
    give(std::string(rest));
  }

 private:
  const std::string character_;
  std::size_t most_;
};

class StripEnd : public DecodeStage {
 public:
  StripEnd(std::string character, std::size_t most)
      : character_(std::move(character)), most_(most) {}
  void push(std::string text, const GiveText& give) override {
    held_ += text;
    std::size_t end = held_.size();
    for (std::size_t count = 0;
         count < most_ && std::string_view(held_).substr(0, end).ends_with(character_); ++count) {
      end -= character_.size();
    }
    std::string rest = held_.substr(end);
    held_.resize(end);
    give(std::exchange(held_, std::move(rest)));
  }
  // What is held is what is stripped.

 private:
  const std::string character_;
  const std::size_t most_;
  std::string held_;
};

class EndWords : public DecodeStage {
 public:
  explicit EndWords(std::string suffix) : suffix_(std::move(suffix)) {}
  void push(std::string text, const GiveText& give) override {
    if (held_) give(suffix_.replaced(*held_, " "));
    held_ = std::move(text);
  }
  void finish(const GiveText& give) override {
    if (held_) give(suffix_.replaced(*held_, ""));
    held_.reset();
  }

 private:
  const Pattern suffix_;
  std::optional<std::string> held_;  // perhaps the last token
};

class HoldAll : public DecodeStage {
 public:
  void push(std::string text, const GiveText&) override { held_ += text; }
  void finish(const GiveText& give) override { give(std::exchange(held_, {})); }

 private:
  std::string held_;
};

}  // namespace

std::unique_ptr<DecodeStage> each_token(
    std::function<std::string(std::string text, std::size_t index)> change) {
  return std::make_unique<EachToken>(std::move(change));
}
std::unique_ptr<DecodeStage> join_spelled_bytes() { return std::make_unique<JoinSpelledBytes>(); }
std::unique_ptr<DecodeStage> join_byte_characters() {
  return std::make_unique<JoinByteCharacters>();
}
std::unique_ptr<DecodeStage> replace_in_text(std::string from, std::string to) {
  return std::make_unique<ReplaceInText>(std::move(from), std::move(to));
}
std::unique_ptr<DecodeStage> strip_start(std::string character, std::size_t most) {
  return std::make_unique<StripStart>(std::move(character), most);
}
std::unique_ptr<DecodeStage> strip_end(std::string character, std::size_t most) {
  return std::make_unique<StripEnd>(std::move(character), most);
}
std::unique_ptr<DecodeStage> end_words(std::string suffix) {
  return std::make_unique<EndWords>(std::move(suffix));
}
std::unique_ptr<DecodeStage> hold_all() { return std::make_unique<HoldAll>(); }

}  // namespace memlayers::text
