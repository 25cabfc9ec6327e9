// SPDX-License-Identifier: Apache-2.0
#include "serve/piece_size.h"

#include <gtest/gtest.h>

namespace memlayers::serve {
namespace {

TEST(PieceSize, IsAllWhereNobodyWaitsOrNobodyAsksForLess) {
  PieceSize sizes(256, 2.5), fixed(256, 0);
  EXPECT_EQ(sizes.beside(0), 256);
  for (PieceSize* each : {&sizes, &fixed}) {
    each->took(0.010, 0, 4);
    each->took(0.510, 256, 4);
  }
  EXPECT_EQ(sizes.beside(0), 256);
  EXPECT_EQ(fixed.beside(4), 256);
}

TEST(PieceSize, IsSmallUntilCostsAreKnown) {
  PieceSize sizes(256, 2.5), narrow(8, 2.5);
  EXPECT_EQ(sizes.beside(4), PieceSize::kUnknown);
  sizes.took(0.100, 32, 4);  // beside answers whose own time nobody knows
  EXPECT_EQ(sizes.beside(4), PieceSize::kUnknown);
  EXPECT_EQ(narrow.beside(4), 8);
}

TEST(PieceSize, KeepsAStepWithinTheSlowdown) {
  PieceSize sizes(256, 3);
  sizes.took(0.010, 0, 4);
  sizes.took(0.042, 32, 4);        // 1 ms a token
  EXPECT_EQ(sizes.beside(4), 20);  // 10 ms and 20 of them are three times 10
  EXPECT_EQ(sizes.beside(1), 20);  // the nearest that is known
  sizes.took(0.050, 20, 4);        // 2 ms a token: behind more of them
  EXPECT_EQ(sizes.beside(4), PieceSize::kLeast);
}

TEST(PieceSize, GrowsAgainWhereTokensAreCheaper) {
  PieceSize sizes(256, 3);
  sizes.took(0.010, 0, 4);
  sizes.took(0.042, 32, 4);
  for (int i = 0; i < 50; ++i) sizes.took(0.010 + 0.0001 * 20, 20, 4);
  EXPECT_GT(sizes.beside(4), 150);
  for (int i = 0; i < 50; ++i) sizes.took(0.010, 20, 4);
  EXPECT_EQ(sizes.beside(4), 256) << "as if they cost nothing";
}

TEST(PieceSize, KnowsThatMoreAnswersTakeLonger) {
  PieceSize sizes(256, 3);
  sizes.took(0.010, 0, 1);
  sizes.took(0.040, 0, 16);
  sizes.took(0.011 + 0.032, 33, 2);
  EXPECT_NEAR(static_cast<double>(sizes.beside(1)), 20, 1);
  EXPECT_NEAR(static_cast<double>(sizes.beside(16)), 80, 1);
}

}  // namespace
}  // namespace memlayers::serve
