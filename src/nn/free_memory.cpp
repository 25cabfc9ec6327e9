// SPDX-License-Identifier: Apache-2.0
#include "nn/free_memory.h"

#include <string_view>

namespace memlayers::nn {

std::optional<std::string> out_of_memory(const c10::Error& error) {
  const std::string message = error.what_without_backtrace();
  constexpr std::string_view kBefore = "you tried to allocate ";
  const auto at = message.find(kBefore);
  if (at == std::string::npos) return std::nullopt;
  const auto first = at + kBefore.size();
  return "out of memory: no room for " + message.substr(first, message.find(' ', first) - first) +
         " bytes more";
}

}  // namespace memlayers::nn
