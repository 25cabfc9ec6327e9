// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>
#include <string>

namespace memlayers {

// What the library throws when the outside world fails: a file, a folder, a configuration, a token
// stream. The message is one sentence that names the file or field, what was found and what was
// wanted. A wrong argument to a tensor function is c10::ValueError, TypeError or IndexError
// instead.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message) : std::runtime_error(message) {}
};

// Something that was written and acknowledged is no longer as it was: bytes altered, a file gone.
// Trying again will not help.
class Corruption : public Error {
 public:
  using Error::Error;
};

}  // namespace memlayers
