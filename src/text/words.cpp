// SPDX-License-Identifier: Apache-2.0
#include "text/words.h"

#include <utf8proc.h>

#include <algorithm>

#include "io/folder.h"
#include "text/utf8.h"

namespace memlayers::text {
namespace {

// Too many would hide subjects, too few only weaken a registry of a single fact with a
// single prompt: where there are more, words that they share are known without this list.
constexpr std::string_view kFunctionWords[] = {
    "a",     "about",   "am",      "an",       "and",   "answer",   "are",      "as",   "at",
    "be",    "by",      "called",  "can",      "could", "define",   "describe", "did",  "do",
    "does",  "exactly", "explain", "for",      "from",  "give",     "has",      "have", "how",
    "i",     "in",      "is",      "it",       "its",   "know",     "like",     "made", "me",
    "mean",  "meaning", "means",   "meant",    "my",    "name",     "named",    "of",   "on",
    "one",   "or",      "please",  "question", "say",   "sentence", "should",   "some", "tell",
    "term",  "that",    "the",     "their",    "there", "they",     "thing",    "this", "to",
    "was",   "we",      "were",    "what",     "when",  "where",    "which",    "who",  "whom",
    "whose", "why",     "will",    "with",     "word",  "words",    "would",    "you",  "your"};

bool belongs(utf8proc_int32_t code) {
  switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return true;
    default:
      return false;
  }
}

}  // namespace

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  const auto end_word = [&] {
    if (!word.empty()) words.push_back(std::move(word));
    word.clear();
  };
  while (!text.empty()) {
    const Utf8Character character = decode_utf8(text);
    text.remove_prefix(character.bytes);
    const auto code = static_cast<utf8proc_int32_t>(character.code);
    if (character.valid && belongs(code)) {
      append_utf8(word, static_cast<char32_t>(utf8proc_tolower(code)));
    } else {
      end_word();
    }
  }
  end_word();
  return words;
}

std::uint64_t gram_hash(std::span<const std::string> words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return io::xxh3(std::as_bytes(std::span(text)));
}

std::vector<std::uint64_t> grams_of(std::span<const std::string> words) {
  std::vector<std::uint64_t> grams;
  for (std::size_t begin = 0; begin < words.size(); ++begin) {
    for (std::size_t n = 1; n <= std::min(kLongestGram, words.size() - begin); ++n) {
      grams.push_back(gram_hash(words.subspan(begin, n)));
    }
  }
  std::ranges::sort(grams);
  grams.erase(std::ranges::unique(grams).begin(), grams.end());
  return grams;
}

bool is_function_word(std::string_view word) {
  return std::ranges::find(kFunctionWords, word) != std::end(kFunctionWords);
}

}  // namespace memlayers::text
