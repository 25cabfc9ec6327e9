// SPDX-License-Identifier: Apache-2.0
#include "api/grammar/characters.h"

#include <algorithm>
#include <array>
#include <cstdint>

#include "io/utf8.h"

namespace memlayers::api::grammar {
namespace {

constexpr char32_t kLast = 0x10FFFF, kFirstSurrogate = 0xD800, kLastSurrogate = 0xDFFF;
// Those with an escape of one letter, and it.
constexpr std::array<std::pair<char32_t, char>, 7> kShort{
    {{'"', '"'}, {'\\', '\\'}, {'\b', 'b'}, {'\f', 'f'}, {'\n', 'n'}, {'\r', 'r'}, {'\t', 't'}}};

ByteSet set_of(std::string_view ranges) {  // pairs of first and last
  ByteSet set;
  for (std::size_t i = 0; i + 1 < ranges.size(); i += 2) {
    const auto first = static_cast<unsigned char>(ranges[i]),
               last = static_cast<unsigned char>(ranges[i + 1]);
    for (std::size_t c = first; c <= last; ++c) set.set(c);
  }
  return set;
}

ByteSet hex_digits() { return set_of("09afAF"); }

Characters without_escapes(const Characters& characters) {
  Characters plain;
  for (CodeRange range : characters) {
    range.first = std::max(range.first, char32_t{0x20});
    for (const char32_t code : {U'"', U'\\'}) {
      if (range.first <= code && code <= range.last) {
        if (range.first < code) plain.push_back({range.first, code - 1});
        range.first = code + 1;
      }
    }
    if (range.first <= range.last) plain.push_back(range);
  }
  return plain;
}

// Both have UTF-8 of the same number of bytes.
NodeId same_length(Program& program, std::string_view first, std::string_view last, NodeId next) {
  if (first.empty()) return next;
  const auto a = static_cast<unsigned char>(first[0]), b = static_cast<unsigned char>(last[0]);
  const std::string_view low = first.substr(1), high = last.substr(1);
  if (a == b) return program.byte(a, same_length(program, low, high, next));
  const std::string least(low.size(), '\x80'), most(low.size(), '\xBF');
  const bool first_whole = low == least, last_whole = high == most;
  std::vector<NodeId> ways;
  if (!first_whole) ways.push_back(program.byte(a, same_length(program, low, most, next)));
  const int begin = a + (first_whole ? 0 : 1), end = b - (last_whole ? 0 : 1);
  if (begin <= end) {
    ways.push_back(program.range(static_cast<unsigned char>(begin), static_cast<unsigned char>(end),
                                 same_length(program, least, most, next)));
  }
  if (!last_whole) ways.push_back(program.byte(b, same_length(program, least, high, next)));
  return program.any_of(ways);
}

std::string utf8(char32_t code) {
  std::string text;
  io::append_utf8(text, code);
  return text;
}

// As they are.
void add_raw(Program& program, const Characters& characters, NodeId next,
             std::vector<NodeId>& ways) {
  ByteSet single;
  for (CodeRange range : without_escapes(characters)) {
    for (; range.first <= range.last && range.first < 0x80; ++range.first) single.set(range.first);
    for (const char32_t end : {char32_t{0x7FF}, char32_t{0xFFFF}, kLast}) {
      if (range.first > range.last || range.first > end) continue;
      const char32_t last = std::min(range.last, end);
      ways.push_back(same_length(program, utf8(range.first), utf8(last), next));
      range.first = last + 1;
    }
  }
  if (single.any()) ways.push_back(program.bytes(single, next));
}

NodeId escape(Program& program, char32_t unit, NodeId next) {  // \uXXXX, either case
  for (int i = 0; i < 4; ++i, unit >>= 4) {
    const unsigned digit = unit & 15;
    ByteSet set;
    set.set(digit < 10 ? '0' + digit : 'a' + digit - 10);
    if (digit >= 10) set.set('A' + digit - 10);
    next = program.bytes(set, next);
  }
  return program.text("\\u", next);
}

}  // namespace

Characters all_characters() { return complement({}); }

Characters united(const Characters& characters) {
  Characters cut;
  for (const CodeRange& range : characters) {
    if (range.first < kFirstSurrogate) {
      cut.push_back({range.first, std::min<char32_t>(range.last, kFirstSurrogate - 1)});
    }
    if (range.last > kLastSurrogate) {
      cut.push_back({std::max<char32_t>(range.first, kLastSurrogate + 1), range.last});
    }
  }
  std::ranges::sort(cut, {}, &CodeRange::first);
  Characters result;
  for (const CodeRange& range : cut) {
    if (range.first > range.last) continue;
    if (!result.empty() && range.first <= result.back().last + 1) {
      result.back().last = std::max(result.back().last, range.last);
    } else {
      result.push_back(range);
    }
  }
  return result;
}

Characters complement(const Characters& characters) {
  Characters result;
  char32_t begin = 0;
  for (const CodeRange& range : united(characters)) {
    if (range.first > begin) result.push_back({begin, range.first - 1});
    begin = range.last + 1;
  }
  if (begin <= kLast) result.push_back({begin, kLast});
  return united(result);
}

NodeId spelled(Program& program, const Characters& characters, NodeId next) {
  std::vector<NodeId> ways;
  add_raw(program, characters, next, ways);
  ByteSet letters;
  std::array<ByteSet, 2> digits;  // of \u000X and \u001X
  for (const CodeRange& range : characters) {
    for (char32_t code = range.first; code <= range.last && code <= '\\'; ++code) {
      const auto* const found = std::ranges::find(kShort, code, &std::pair<char32_t, char>::first);
      if (found != kShort.end()) {
        letters.set(static_cast<unsigned char>(found->second));
      } else if (code < 0x20) {
        digits[code >> 4].set(static_cast<unsigned char>("0123456789abcdef"[code & 15]));
      }
    }
  }
  std::vector<NodeId> escapes;
  if (letters.any()) escapes.push_back(program.bytes(letters, next));
  for (std::size_t i = 0; i < 2; ++i) {
    if (digits[i].none()) continue;
    escapes.push_back(program.text(i == 0 ? "u000" : "u001", program.bytes(digits[i], next)));
  }
  if (!escapes.empty()) ways.push_back(program.byte('\\', program.any_of(escapes)));
  return ways.empty() ? program.nothing() : program.any_of(ways);
}

NodeId literal(Program& program, std::string_view text, NodeId next) {
  const std::u32string codes = code_points(text);
  for (auto code = codes.rbegin(); code != codes.rend(); ++code) {
    const NodeId plain = spelled(program, {{*code, *code}}, next);
    if (*code < 0x80) {
      next = plain;
    } else if (*code < 0x10000) {
      next = program.split(plain, escape(program, *code, next));
    } else {
      const char32_t bits = *code - 0x10000;
      next = program.split(plain, escape(program, 0xD800 + (bits >> 10),
                                         escape(program, 0xDC00 + (bits & 0x3FF), next)));
    }
  }
  return next;
}

NodeId any_string(Program& program, std::uint32_t least, std::uint32_t most, NodeId next) {
  const auto character = [&](NodeId again) {
    ByteSet plain;
    for (unsigned byte = 0; byte < 128; ++byte) {
      if (is_plain(static_cast<unsigned char>(byte))) plain.set(byte);
    }
    std::vector<NodeId> ways = {program.bytes(plain, again, true)};
    add_raw(program, {{0x80, kFirstSurrogate - 1}, {kLastSurrogate + 1, kLast}}, again, ways);
    const ByteSet hex = hex_digits();
    const NodeId two = program.bytes(hex, program.bytes(hex, again));
    const NodeId low =
        program.text("\\u", program.bytes(set_of("DDdd"), program.bytes(set_of("CFcf"), two)));
    const NodeId unit = program.any_of(
        {program.bytes(set_of("09acACEFef"), program.bytes(hex, two)),
         program.bytes(set_of("DDdd"),
                       program.split(program.bytes(set_of("07"), two),
                                     program.bytes(set_of("89abAB"),
                                                   program.bytes(hex, program.bytes(hex, low)))))});
    ByteSet letters = set_of("bbffnnrrtt//");
    letters.set('"').set('\\');
    ways.push_back(
        program.byte('\\', program.split(program.bytes(letters, again), program.byte('u', unit))));
    return program.any_of(ways);
  };
  return program.byte('"', program.loop(least, most, {}, character, program.byte('"', next)));
}

NodeId other_string(Program& program, const std::set<std::u32string>& names, NodeId next) {
  const NodeId quote = program.byte('"', next);
  const NodeId free =
      program.star([&](NodeId again) { return spelled(program, all_characters(), again); }, quote);
  // The names from `first` to `last`, which have `depth` characters in common: what may follow.
  using Name = std::set<std::u32string>::const_iterator;
  const auto behind = [&](const auto& self, Name first, Name last, std::size_t depth) -> NodeId {
    std::vector<NodeId> ways;
    Characters taken;
    if (first->size() == depth) {
      ++first;
    } else {
      ways.push_back(quote);
    }
    while (first != last) {
      const char32_t code = (*first)[depth];
      const Name end =
          std::find_if(first, last, [&](const auto& name) { return name[depth] != code; });
      ways.push_back(spelled(program, {{code, code}}, self(self, first, end, depth + 1)));
      taken.push_back({code, code});
      first = end;
    }
    ways.push_back(spelled(program, complement(taken), free));
    return program.any_of(ways);
  };
  return program.byte('"', names.empty() ? free : behind(behind, names.begin(), names.end(), 0));
}

std::u32string code_points(std::string_view utf8) {
  std::u32string codes;
  while (!utf8.empty()) {
    const io::Utf8Character character = io::decode_utf8(utf8);
    codes += character.code;
    utf8.remove_prefix(character.bytes);
  }
  return codes;
}

}  // namespace memlayers::api::grammar
