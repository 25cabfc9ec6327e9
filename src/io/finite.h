// SPDX-License-Identifier: Apache-2.0
// Whether numbers in memory are finite: what is not is never written to a file.
#pragma once

#include <cstddef>
#include <span>

#include "io/safetensors.h"

namespace memlayers::io {

// Of numbers whose bits fit Bits: the exponent of NaN and infinity is all ones, `exponent`.
template <class Bits>
bool are_finite(std::span<const std::byte> numbers, Bits exponent) {
  const auto* bits = reinterpret_cast<const Bits*>(numbers.data());
  bool is_finite = true;  // without a branch a number, so that it vectorises
  for (std::size_t i = 0; i < numbers.size() / sizeof(Bits); ++i) {
    is_finite &= (bits[i] & exponent) != exponent;
  }
  return is_finite;
}

// Numbers of a type without infinity are.
bool all_finite(std::span<const std::byte> numbers, ElementType type);

}  // namespace memlayers::io
