// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sentencepiece_processor.h>

namespace memlayers::text {

// SentencePiece logs to stderr; a library never prints. Once, for the level is a plain global.
inline void silence_sentencepiece() {
  constexpr int kNothing = 4;  // above FATAL
  [[maybe_unused]] static const bool done = (sentencepiece::SetMinLogLevel(kNothing), true);
}

}  // namespace memlayers::text
