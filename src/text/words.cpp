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
    "a",        "about",      "above",     "across",     "after",      "again",      "against",
    "ago",      "along",      "already",   "also",       "although",   "always",     "am",
    "amid",     "among",      "an",        "and",        "answer",     "any",        "anyone",
    "anything", "anywhere",   "are",       "around",     "as",         "aside",      "at",
    "away",     "be",         "because",   "been",       "before",     "behind",     "being",
    "below",    "beneath",    "beside",    "besides",    "between",    "beyond",     "both",
    "but",      "by",         "called",    "can",        "cannot",     "could",      "define",
    "describe", "did",        "do",        "does",       "doing",      "done",       "down",
    "during",   "each",       "either",    "else",       "elsewhere",  "enough",     "even",
    "ever",     "every",      "everyone",  "everything", "everywhere", "exactly",    "except",
    "explain",  "few",        "for",       "from",       "further",    "give",       "had",
    "has",      "have",       "having",    "he",         "hence",      "her",        "here",
    "hers",     "herself",    "him",       "himself",    "his",        "how",        "however",
    "i",        "if",         "in",        "inside",     "into",       "is",         "it",
    "its",      "itself",     "just",      "know",       "later",      "least",      "less",
    "let",      "like",       "made",      "many",       "may",        "maybe",      "me",
    "mean",     "meaning",    "means",     "meant",      "might",      "more",       "most",
    "much",     "must",       "my",        "myself",     "name",       "named",      "near",
    "neither",  "never",      "next",      "no",         "nobody",     "none",       "nor",
    "not",      "nothing",    "now",       "nowhere",    "of",         "off",        "often",
    "on",       "once",       "one",       "only",       "onto",       "or",         "other",
    "others",   "otherwise",  "ought",     "our",        "ours",       "ourselves",  "out",
    "outside",  "over",       "own",       "perhaps",    "please",     "question",   "quite",
    "rarely",   "rather",     "really",    "recently",   "same",       "say",        "sentence",
    "several",  "shall",      "she",       "should",     "since",      "so",         "some",
    "somebody", "someone",    "something", "sometimes",  "somewhere",  "soon",       "still",
    "such",     "tell",       "term",      "than",       "that",       "the",        "their",
    "them",     "themselves", "then",      "there",      "therefore",  "these",      "they",
    "thing",    "this",       "those",     "though",     "through",    "throughout", "thus",
    "till",     "to",         "today",     "together",   "tomorrow",   "tonight",    "too",
    "toward",   "towards",    "under",     "unless",     "until",      "up",         "upon",
    "us",       "used",       "usually",   "versus",     "very",       "via",        "was",
    "we",       "were",       "what",      "whatever",   "when",       "whenever",   "where",
    "whereas",  "whether",    "which",     "while",      "who",        "whom",       "whose",
    "why",      "will",       "with",      "within",     "without",    "word",       "words",
    "would",    "yes",        "yesterday", "yet",        "you",        "your",       "yours",
    "yourself"};

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

// Of what stands between two words: white space, or a hyphen without any.
bool is_within_a_name(std::string_view gap) {
  return gap == "-" || gap.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

}  // namespace

std::vector<PartedWord> parted_words_of(std::string_view text) {
  std::vector<PartedWord> words;
  std::string word, gap;  // what is read, and what stands before it
  const auto end_word = [&] {
    if (!word.empty()) {
      const bool is_parted = words.empty() || !is_within_a_name(gap);
      words.push_back({std::move(word), is_parted});
      gap.clear();
    }
    word.clear();
  };
  while (!text.empty()) {
    const Utf8Character character = decode_utf8(text);
    const std::string_view bytes = text.substr(0, character.bytes);
    text.remove_prefix(character.bytes);
    const auto code = static_cast<utf8proc_int32_t>(character.code);
    if (character.valid && belongs(code)) {
      append_utf8(word, static_cast<char32_t>(utf8proc_tolower(code)));
    } else {
      end_word();
      gap += bytes;
    }
  }
  end_word();
  return words;
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  for (PartedWord& word : parted_words_of(text)) words.push_back(std::move(word.text));
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
