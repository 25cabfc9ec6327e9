// SPDX-License-Identifier: Apache-2.0
#pragma once

// Exported by libsentencepiece, declared in none of its installed headers.
namespace sentencepiece::logging {
void SetMinLogLevel(int level);  // NOLINT(readability-identifier-naming): theirs
}

namespace memlayers::text {

// libsentencepiece logs to stderr; a library never prints. Once, for the level is a plain global.
inline void silence_sentencepiece() {
  constexpr int kNothing = 4;  // above FATAL
  [[maybe_unused]] static const bool done =
      (sentencepiece::logging::SetMinLogLevel(kNothing), true);
}

}  // namespace memlayers::text
