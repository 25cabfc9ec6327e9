// SPDX-License-Identifier: Apache-2.0
#include "http/descriptors.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstdint>

namespace memlayers::http {
namespace {

rlimit limit() {
  rlimit limit{};
  EXPECT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  return limit;
}

TEST(Descriptors, AreAllowedAsFarAsTheSystemLetsUs) {
  rlimit low = limit();
  ASSERT_GT(low.rlim_max, 300U);
  low.rlim_cur = 200;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
  EXPECT_EQ(allow_descriptors(150), 200U) << "never fewer than there were";
  EXPECT_EQ(allow_descriptors(300), 300U);
  EXPECT_EQ(limit().rlim_cur, 300U);
  EXPECT_EQ(limit().rlim_max, low.rlim_max);
  if (low.rlim_max == RLIM_INFINITY) return;
  EXPECT_EQ(allow_descriptors(low.rlim_max + 1), low.rlim_max);
}

TEST(Descriptors, OfAServerAreThoseOfItsClientsTwice) {
  EXPECT_EQ(descriptors_of({.connections = 1000}) - descriptors_of({.connections = 10}), 1980U);
  EXPECT_GE(descriptors_of({.connections = 1}), 128U);
  EXPECT_EQ(descriptors_of({.connections = SIZE_MAX}), std::size_t{1} << 30U);
}

}  // namespace
}  // namespace memlayers::http
