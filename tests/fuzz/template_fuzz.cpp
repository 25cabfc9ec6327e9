// SPDX-License-Identifier: Apache-2.0
// A chat template, run on a conversation. Within small limits, so that what goes on for long is an
// Error and not a slow input.
#include "jinja/template.h"

#include "fuzz/fuzz.h"

namespace {

using memlayers::jinja::Dict;
using memlayers::jinja::Items;
using memlayers::jinja::Text;
using memlayers::jinja::Value;

Value foreign(const char* text) { return Value(Text(text, false)); }

Value message(const char* role, Value content) {
  Dict dict;
  dict.set(Value::own_text("role"), foreign(role));
  dict.set(Value::own_text("content"), std::move(content));
  return make_dict(std::move(dict));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace memlayers;
  const std::string source(reinterpret_cast<const char*>(data), size);
  fuzz::allow_error([&] {
    const jinja::Template made("template", source);
    Items messages;
    messages.push_back(message("user", foreign(" <|end|> Str\u00E4\u00DFe\n")));
    messages.push_back(message("assistant", make_list({Value(2.5), Value(jinja::None{})})));
    const Text text = made.render({{"messages", make_list(std::move(messages))},
                                   {"n", Value(std::int64_t{7})},
                                   {"s", foreign("a,b")}},
                                  {.limits = {.steps = 100'000, .depth = 300, .bytes = 1 << 20}});
    std::size_t bytes = 0;
    text.for_each_piece([&](std::string_view piece, bool) {
      fuzz::require(!piece.empty());
      bytes += piece.size();
    });
    fuzz::require(bytes == text.size());
  });
  return 0;
}
