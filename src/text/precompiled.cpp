// SPDX-License-Identifier: Apache-2.0
#include "text/precompiled.h"

#include <array>
#include <string>
#include <utility>

#include "io/base64.h"
#include "text/chars_map.h"
#include "text/grapheme.h"
#include "text/utf8.h"

namespace memlayers::text {
namespace {

// As tokenizers does it, which is not as SentencePiece does: a grapheme of few bytes becomes what
// the shortest source that it begins with becomes; of a longer one, or one without, each character
// does.
class Precompiled : public NormalizerStep {
 public:
  explicit Precompiled(CharsMap map) : map_(std::move(map)) {
    for (std::size_t c = 0; c < ascii_.size(); ++c) {
      const char character = static_cast<char>(c);
      const auto match = map_.shortest({&character, 1});
      ascii_[c] = match ? match->target : std::string_view();
      changes_[c] = match.has_value();
    }
  }

  void apply(std::string& text, const Context& context) const override {
    std::string result;
    result.reserve(text.size());
    for (std::string_view rest = text; !rest.empty();) {
      const std::size_t bytes = grapheme_bytes(rest);
      add(rest.substr(0, bytes), result);
      rest.remove_prefix(bytes);
      check_size(result.size() + rest.size(), context);
    }
    text = std::move(result);
  }

 private:
  void add(std::string_view grapheme, std::string& result) const {
    constexpr std::size_t kMostGraphemeBytes = 5;
    if (grapheme.size() == 1) {
      const auto c = static_cast<unsigned char>(grapheme[0]);
      result += changes_[c] ? ascii_[c] : grapheme;
      return;
    }
    if (grapheme.size() <= kMostGraphemeBytes) {
      if (const auto match = map_.shortest(grapheme)) {
        result += match->target;
        return;
      }
    }
    while (!grapheme.empty()) {
      const std::string_view character = grapheme.substr(0, decode_utf8(grapheme).bytes);
      const auto match = map_.shortest(character);
      result += match ? match->target : character;
      grapheme.remove_prefix(character.size());
    }
  }

  const CharsMap map_;
  std::array<std::string_view, 128> ascii_;  // targets, where changes_ says so
  std::array<bool, 128> changes_;
};

}  // namespace

std::unique_ptr<const NormalizerStep> read_precompiled(const JsonField& field) {
  const JsonField map = field.at("precompiled_charsmap");
  const auto bytes = io::from_base64(map.string());
  if (!bytes) map.fail("base64");
  return std::make_unique<Precompiled>(CharsMap(
      *bytes, [&](const std::string& what) { map.fail("a map of characters, and none " + what); }));
}

}  // namespace memlayers::text
