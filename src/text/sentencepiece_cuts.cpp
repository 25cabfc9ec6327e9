// SPDX-License-Identifier: Apache-2.0
#include "text/sentencepiece_cuts.h"

#include "text/characters.h"
#include "text/utf8.h"

namespace memlayers::text {
namespace {

constexpr char32_t kSpaceSign = 0x2581;

std::uint64_t pair_of(char32_t left, char32_t right) {
  return static_cast<std::uint64_t>(left) << 32 | right;
}

}  // namespace

SentencePieceCuts::SentencePieceCuts(const SentencePieceTraits& traits) : traits_(traits) {
  traits_.chars_map.for_each_source([&](std::string_view source) {
    // A source need not be UTF-8; a text is, and what is not never matches.
    for (bool is_first = true; !source.empty(); is_first = false) {
      const Utf8Character character = decode_utf8(source);
      if (!is_first && character.valid) dependent_.insert(character.code);
      source.remove_prefix(character.bytes);
    }
  });
  for (std::string_view piece : traits_.verbatim) {
    while (!piece.empty()) {
      const Utf8Character character = decode_utf8(piece);
      dependent_.insert(character.code == kSpaceSign ? U' ' : character.code);
      piece.remove_prefix(character.bytes);
    }
  }
}

void SentencePieceCuts::add(std::string_view piece, bool is_normal) {
  char32_t left = 0;
  bool is_first = true;
  for (std::string_view rest = piece; !rest.empty(); is_first = false) {
    const Utf8Character character = decode_utf8(rest);
    rest.remove_prefix(character.bytes);
    if (!is_first) joined_.insert(pair_of(left, character.code));
    if (is_first && rest.empty() && is_normal) known_.insert(character.code);
    left = character.code;
  }
}

// Of two unknown neighbours the original makes one token. What is before a space sign may lose it
// where its part begins with it.
bool SentencePieceCuts::is_joined(char32_t left, char32_t right) const {
  if (left == U' ' || left == kSpaceSign) return true;
  if (right == U' ') right = kSpaceSign;
  return joined_.contains(pair_of(left, right)) ||
         (!known_.contains(left) && !known_.contains(right));
}

// Before `at` stands one character, from `begin` on.
bool SentencePieceCuts::is_cut(std::string_view text, std::size_t begin, std::size_t at) const {
  const char32_t left = decode_utf8(text.substr(begin)).code;
  const char32_t right = decode_utf8(text.substr(at)).code;
  if (right == kSpaceSign) return false;
  if (traits_.chars_map.is_empty()) return !is_joined(left, right);
  if (dependent_.contains(left) || dependent_.contains(right)) return false;
  // No source holds the left one behind another, nor the right one: each begins what is mapped.
  const auto before = traits_.chars_map.longest(text.substr(begin, at - begin));
  const auto behind = traits_.chars_map.longest(text.substr(at));
  if ((before && before->target.empty()) || (behind && behind->target.empty())) return false;
  return !is_joined(before ? decode_utf8(last_character(before->target)).code : left,
                    behind ? decode_utf8(behind->target).code : right);
}

std::size_t SentencePieceCuts::next(std::string_view text, std::size_t from) const {
  std::size_t at = from;
  const auto is_inside = [&](std::size_t i) {
    return i < text.size() && (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80;
  };
  while (is_inside(at)) ++at;
  if (at >= text.size()) return text.size();
  std::size_t begin = at - 1;
  while (is_inside(begin)) --begin;
  while (at < text.size() && !is_cut(text, begin, at)) {
    begin = at;
    at += decode_utf8(text.substr(at)).bytes;
  }
  return at;
}

}  // namespace memlayers::text
