// SPDX-License-Identifier: Apache-2.0
// Words of a text, however they are written, and hashes of runs of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace memlayers::text {

// Runs of letters, digits and marks in lower case: "The Dingo's" gives "the", "dingo", "s". What is
// no UTF-8 ends a word.
std::vector<std::string> words_of(std::string_view text);

// The same, and of each whether more than white space or a hyphen parts it from the one before: of
// "a hot-dog, he says: a dog" true for "a", "he" and the second "a". True for the first.
struct PartedWord {
  std::string text;
  bool is_parted = true;
};
std::vector<PartedWord> parted_words_of(std::string_view text);

inline constexpr std::size_t kLongestGram = 3;  // words
// Of one run of words, the same on every machine and in every version.
std::uint64_t gram_hash(std::span<const std::string> words);
// Of all runs of 1 to kLongestGram words, ascending, each once.
std::vector<std::uint64_t> grams_of(std::span<const std::string> words);

// A word that questions in English have whatever they ask for: pronouns, articles, prepositions,
// auxiliary verbs, adverbs of time and place, and words for asking ("what", "the", "explain").
bool is_function_word(std::string_view word);

}  // namespace memlayers::text
