// SPDX-License-Identifier: Apache-2.0
// A tokenizer file, of either kind, and tokenizer_config.json behind a zero byte: read, and used
// for texts and ids of all kinds.
#include <string>
#include <string_view>
#include <vector>

#include "fuzz/fuzz.h"
#include "memlayers/tokenizer.h"
#include "text/tokenizer_file.h"

namespace {

using namespace memlayers;

std::shared_ptr<const Tokenizer> parse(std::string_view input) {
  if (!input.starts_with('{')) return text::parse_sentencepiece("model", std::string(input));
  const std::size_t end = std::min(input.find('\0'), input.size());
  text::TokenizerSettings settings;
  if (end < input.size()) {
    settings = text::read_tokenizer_settings("config", std::string(input.substr(end + 1)), "map",
                                             std::nullopt);
  }
  return text::parse_json_tokenizer("json", std::string(input.substr(0, end)), settings);
}

void use(const Tokenizer& tokenizer) {
  for (const char* text :
       {"", " ", "Hello  world! 123", "\xC3\xA9\xCC\x81\xF0\x9F\x87\xA9 aaaaaaaa",
        "<s>\n\xE2\x96\x81x</s> I'll"}) {
    fuzz::allow_error([&] {
      tokenizer.encode_continuation(text);
      tokenizer.decode(tokenizer.encode_document(text));
      tokenizer.encode_special(text);
    });
  }
  // At every split the stream gives what the whole does.
  fuzz::allow_error([&] {
    std::vector<std::int32_t> ids;
    const std::int64_t size = tokenizer.vocab_size();
    for (std::int64_t i = 0; i < 64; ++i) ids.push_back(static_cast<std::int32_t>(i * i % size));
    const auto stream = tokenizer.decode_stream();
    std::string text;
    for (const std::int32_t id : ids) text += stream->push(id);
    fuzz::require(text + stream->finish() == tokenizer.decode(ids));
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  fuzz::allow_error([&] { use(*parse(input)); });
  return 0;
}
