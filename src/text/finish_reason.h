// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "memlayers/generate_options.h"

namespace memlayers::text {

// As answers say it to programs: OpenAI's words, and "error".
inline const char* name_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kError:
      break;
  }
  return "error";
}

}  // namespace memlayers::text
