// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "memlayers/error.h"

namespace memlayers::testing {

// That act() throws an Error whose message matches, such as HasSubstr("dim").
template <class Act, class Matcher>
void expect_error(const Act& act, const Matcher& message) {
  try {
    act();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), message);
    return;
  }
  ADD_FAILURE() << "expected an Error, got none";
}

}  // namespace memlayers::testing
