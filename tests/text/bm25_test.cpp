// SPDX-License-Identifier: Apache-2.0
#include "text/bm25.h"

#include <gtest/gtest.h>

#include <cmath>

namespace memlayers::text {
namespace {

// Lengths 4, 2 and 6 words, 4 in the mean.
const std::vector<std::string> kDocuments{"The dingo: a dog.", "red otter", "a dog, a dog, a cat"};

TEST(Bm25, RanksByScoresThatWereComputedByHand) {
  const Bm25 index(kDocuments);
  const std::vector<Bm25::Found> found = index.best("Which DOG is the dingo?", 9);
  ASSERT_EQ(found.size(), 2U);
  // "the" and "dingo" stand in one of three documents, ln(1 + 2.5 / 1.5); "dog" in two, ln(1 + 1.5
  // / 2.5). Of the first document's 4 words each stands once: 2.2 / (1 + 1.2); in the third's 6,
  // with 0.25 + 0.75 * 6 / 4 = 1.375, "dog" twice: 2 * 2.2 / (2 + 1.2 * 1.375) = 4.4 / 3.65.
  EXPECT_EQ(found[0].document, 0U);
  EXPECT_NEAR(found[0].score, 2 * 0.980829253 + 0.470003629, 1e-8);
  EXPECT_EQ(found[1].document, 2U);
  EXPECT_NEAR(found[1].score, 0.470003629 * 1.205479452, 1e-8);
}

TEST(Bm25, PrefersTheShorterOfDocumentsThatHaveAWordAsOften) {
  const Bm25 index({"otter b c d e f", "otter b", "otter b", "x"});
  const std::vector<Bm25::Found> found = index.best("otter", 9);
  ASSERT_EQ(found.size(), 3U);
  EXPECT_EQ(found[0].document, 1U);  // of equal ones the earlier
  EXPECT_EQ(found[1].document, 2U);
  EXPECT_EQ(found[0].score, found[1].score);
  EXPECT_EQ(found[2].document, 0U);
  EXPECT_LT(found[2].score, found[1].score);
}

TEST(Bm25, CountsAWordOfTheQueryOnceAndGivesAtMostWhatIsAskedFor) {
  const Bm25 index(kDocuments);
  EXPECT_EQ(index.best("dog dog", 1)[0].score, index.best("dog", 1)[0].score);
  EXPECT_EQ(index.best("dog", 1).size(), 1U);
  EXPECT_EQ(index.best("dog", 1)[0].document, 2U);
  EXPECT_TRUE(index.best("glacier", 3).empty());
  EXPECT_TRUE(index.best("", 3).empty());
  EXPECT_TRUE(index.best("dog", 0).empty());
  EXPECT_TRUE(Bm25({}).best("dog", 3).empty());
}

}  // namespace
}  // namespace memlayers::text
