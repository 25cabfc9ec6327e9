// SPDX-License-Identifier: Apache-2.0
// Memory that cannot be had, as an error of what asks for so much.
#pragma once

#include <c10/util/Exception.h>

#include <new>
#include <optional>
#include <string>

#include "memlayers/error.h"

namespace memlayers::nn {

// "out of memory: no room for <n> bytes more", where that is what torch's error says.
std::optional<std::string> out_of_memory(const c10::Error& error);

// f(). Throws Error "<what>: out of memory ..." where memory cannot be had; `what` names a file or
// a field.
template <class F>
auto with_memory_for(const std::string& what, const F& f) {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    throw Error(what + ": out of memory");
  } catch (const c10::Error& error) {
    if (const auto sentence = out_of_memory(error)) throw Error(what + ": " + *sentence);
    throw;
  }
}

}  // namespace memlayers::nn
