// SPDX-License-Identifier: Apache-2.0
#include "text/precompiled.h"

#include <array>
#include <optional>
#include <string>
#include <utility>

#include "text/chars_map.h"
#include "text/grapheme.h"
#include "text/utf8.h"

namespace memlayers::text {
namespace {

// Standard base64, with what fills it up to fours.
std::optional<std::string> from_base64(std::string_view text) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (text.size() % 4 != 0) return std::nullopt;
  std::array<int, 256> values;
  values.fill(-1);
  for (std::size_t i = 0; i < kDigits.size(); ++i) {
    values[static_cast<unsigned char>(kDigits[i])] = static_cast<int>(i);
  }
  std::size_t filling = 0;
  for (; filling < 2 && text.ends_with('='); ++filling) text.remove_suffix(1);
  std::string bytes;
  bytes.reserve(3 * (text.size() + 3) / 4);
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const int value = values[static_cast<unsigned char>(c)];
    if (value < 0) return std::nullopt;
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes += static_cast<char>(bits >> count & 0xFF);
  }
  const bool is_whole =
      static_cast<std::size_t>(count) == 2 * filling && (bits & ((1u << count) - 1)) == 0;
  return is_whole ? std::optional(bytes) : std::nullopt;
}

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
  const auto bytes = from_base64(map.string());
  if (!bytes) map.fail("base64");
  return std::make_unique<Precompiled>(CharsMap(
      *bytes, [&](const std::string& what) { map.fail("a map of characters, and none " + what); }));
}

}  // namespace memlayers::text
