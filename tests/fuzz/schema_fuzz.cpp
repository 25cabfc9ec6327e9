// SPDX-License-Identifier: Apache-2.0
// A JSON schema, and an answer of it: first the bytes behind a line's end of its own where the
// filter takes them, then what it takes first.
#include <cmath>
#include <string>
#include <vector>

#include "api/json_schema.h"
#include "fuzz/fuzz.h"
#include "text/letter_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace memlayers;
  constexpr std::int32_t kEnd = text::LetterTokenizer::kEos;
  static const text::LetterTokenizer tokenizer;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const std::size_t end = text.find("\n\n");
  fuzz::allow_error([&] {
    api::JsonGrammars grammars(tokenizer, {kEnd});
    const auto filter = grammars.schema(text.substr(0, end))->begin();
    std::string asked = end == text.npos ? "" : text.substr(end + 2);
    for (std::size_t i = 0; i < 100; ++i) {
      std::vector<float> logits(kEnd + 1);
      filter->apply(logits);
      std::int32_t first = 0;
      while (first <= kEnd && std::isinf(logits[static_cast<std::size_t>(first)])) ++first;
      fuzz::require(first <= kEnd);  // one is left
      std::int32_t token = i < asked.size() ? static_cast<unsigned char>(asked[i]) : first;
      if (std::isinf(logits[static_cast<std::size_t>(token)])) token = first;
      if (token == kEnd) break;
      filter->take(token);
    }
  });
  return 0;
}
