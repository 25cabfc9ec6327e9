// SPDX-License-Identifier: Apache-2.0
#include "text/words.h"

#include <gmock/gmock.h>

#include "io/folder.h"

namespace memlayers::text {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(WordsOf, AreRunsOfLettersAndDigitsInLowerCase) {
  EXPECT_THAT(words_of("What is The Dingo's 2nd name?"),
              ElementsAre("what", "is", "the", "dingo", "s", "2nd", "name"));
  EXPECT_THAT(words_of("Ölfarbe-Größe"), ElementsAre("ölfarbe", "größe"));
  EXPECT_THAT(words_of("東京 はどこ"), ElementsAre("東京", "はどこ"));
  EXPECT_THAT(words_of(""), IsEmpty());
  EXPECT_THAT(words_of("?! ..."), IsEmpty());
  EXPECT_THAT(words_of("a\xff"
                       "b"),
              ElementsAre("a", "b"))
      << "what is no UTF-8 ends a word";
}

TEST(PartedWordsOf, TellPunctuationFromWhatANameHas) {
  const auto parted = [](std::string_view text) {
    std::vector<std::string> words;
    for (const PartedWord& word : parted_words_of(text)) {
      words.push_back((word.is_parted ? "|" : "") + word.text);
    }
    return words;
  };
  EXPECT_THAT(parted("a hot-dog, he says: a dog"),
              ElementsAre("|a", "hot", "dog", "|he", "says", "|a", "dog"));
  EXPECT_THAT(parted("The dingo's \"den\""), ElementsAre("|the", "dingo", "|s", "|den"));
  EXPECT_THAT(parted("dog - \n wanted\n\tnow"), ElementsAre("|dog", "|wanted", "now"));
  EXPECT_THAT(parted("犬。 猫"), ElementsAre("|犬", "|猫"));
  EXPECT_THAT(parted("..."), IsEmpty());
}

TEST(GramsOf, AreAllRunsOfUpToThreeWordsOnce) {
  const std::vector<std::string> words = words_of("a b a b c");
  std::vector<std::uint64_t> wanted;
  for (const char* run : {"a", "b", "c", "a b", "b a", "b c", "a b a", "b a b", "a b c"}) {
    wanted.push_back(gram_hash(words_of(run)));
  }
  std::ranges::sort(wanted);
  EXPECT_EQ(grams_of(words), wanted);
  EXPECT_THAT(grams_of({}), IsEmpty());
}

TEST(GramHash, IsThatOfTheWordsWithASpaceBetween) {
  const std::string text = "prairie dog";
  EXPECT_EQ(gram_hash(words_of("Prairie-DOG")), io::xxh3(std::as_bytes(std::span(text))));
}

TEST(FunctionWords, AreWhatQuestionsHaveAnyway) {
  for (const char* word : {"what", "is", "the", "explain"}) EXPECT_TRUE(is_function_word(word));
  for (const char* word : {"dingo", "What", ""}) EXPECT_FALSE(is_function_word(word));
}

}  // namespace
}  // namespace memlayers::text
