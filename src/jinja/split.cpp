// SPDX-License-Identifier: Apache-2.0
#include "jinja/split.h"

#include <algorithm>
#include <cstring>

#include "jinja/characters.h"
#include "jinja/methods.h"
#include "jinja/operators.h"

namespace memlayers::jinja {
namespace {

std::vector<Text> split_at_spaces(const Text& text, std::size_t most, bool from_end) {
  struct Word {
    std::size_t begin, end;
  };
  std::vector<Word> words;
  bool in_word = false;
  for_each_character(text.bytes(), [&](char32_t code, std::size_t begin, std::size_t end) {
    if (is_space(code)) {
      in_word = false;
    } else if (in_word) {
      words.back().end = end;
    } else {
      words.push_back({begin, end});
      in_word = true;
    }
  });
  if (words.size() > most) {  // what is left over is one part, with its spaces inside
    if (from_end) {
      words.erase(words.begin(), words.end() - static_cast<std::ptrdiff_t>(most + 1));
      words.front().begin = 0;
    } else {
      words.resize(most + 1);
      words.back().end = text.size();
    }
  }
  std::vector<Text> parts;
  for (const Word& word : words) parts.push_back(text.part(word.begin, word.end));
  return parts;
}

}  // namespace

std::optional<std::size_t> place_of(std::string_view text, std::string_view part, std::size_t begin,
                                    std::size_t end, bool from_end) {
  const std::string_view searched = text.substr(begin, end - begin);
  if (!from_end) {
    const void* found = ::memmem(searched.data(), searched.size(), part.data(), part.size());
    if (found == nullptr) return std::nullopt;
    return static_cast<std::size_t>(static_cast<const char*>(found) - text.data());
  }
  const std::string backwards(searched.rbegin(), searched.rend());
  const std::string part_backwards(part.rbegin(), part.rend());
  const auto at = place_of(backwards, part_backwards, 0, backwards.size(), false);
  if (!at) return std::nullopt;
  return end - *at - part.size();
}

std::vector<Text> split_text(Run& run, const Text& text, const Text* separator, std::int64_t most,
                             bool from_end) {
  run.budget.spend_text(text.size());
  const std::size_t cuts = most < 0 ? text.size() + 1 : static_cast<std::size_t>(most);
  if (separator == nullptr) {
    run.budget.spend(text.size());
    return split_at_spaces(text, cuts, from_end);
  }
  if (separator->empty()) throw Problem("split: expected a separator, got an empty one");
  std::vector<Text> parts;
  std::size_t begin = 0, end = text.size();
  while (parts.size() < cuts) {
    const auto at = place_of(text.bytes(), separator->bytes(), begin, end, from_end);
    if (!at) break;
    run.budget.spend(1 + (from_end ? (end - begin) / 16 : 0));
    if (from_end) {
      parts.push_back(text.part(*at + separator->size(), end));
      end = *at;
    } else {
      parts.push_back(text.part(begin, *at));
      begin = *at + separator->size();
    }
  }
  parts.push_back(text.part(begin, end));
  if (from_end) std::ranges::reverse(parts);
  return parts;
}

bool is_all_of_case(std::string_view text, bool is_upper_case) {
  bool any = false, all = true;
  for_each_character(text, [&](char32_t code, std::size_t, std::size_t) {
    any = any || is_lower(code) || is_upper(code);
    all = all && !(is_upper_case ? is_lower(code) : is_upper(code));
  });
  return any && all;
}

Text replaced(Run& run, const Text& text, const Text& old, const Text& with, std::int64_t most) {
  run.budget.spend_text(text.size());
  Text result;
  std::size_t done = 0;
  std::int64_t left = most < 0 ? INT64_MAX : most;
  const auto put = [&](std::size_t begin, std::size_t end) {
    run.budget.spend_text(end - done + with.size(), result.size());
    result.append(text, done, begin);
    result.append(with);
    done = end;
    --left;
  };
  if (old.empty()) {  // before each character, and at the end
    for_each_character(text.bytes(), [&](char32_t, std::size_t begin, std::size_t) {
      if (left > 0) put(begin, begin);
    });
    if (left > 0) put(text.size(), text.size());
  } else {
    while (left > 0) {
      const auto at = place_of(text.bytes(), old.bytes(), done, text.size(), false);
      if (!at) break;
      put(*at, *at + old.size());
    }
  }
  run.budget.spend_text(text.size() - done, result.size());
  result.append(text, done, text.size());
  return result;
}

Text trimmed(Run& run, const Text& text, const Value* characters, bool left, bool right) {
  run.budget.spend_text(text.size());
  const bool has_set = characters != nullptr && !characters->is_none();
  if (has_set && characters->text() == nullptr) {
    throw Problem("strip: expected a string of characters, got " + std::string(characters->kind()));
  }
  std::vector<char32_t> set;
  if (has_set) {
    for_each_character(characters->text()->bytes(),
                       [&](char32_t code, std::size_t, std::size_t) { set.push_back(code); });
    run.budget.spend(set.size());
    std::ranges::sort(set);
  }
  std::size_t begin = text.size(), end = 0;
  for_each_character(text.bytes(), [&](char32_t code, std::size_t from, std::size_t to) {
    if (has_set ? std::ranges::binary_search(set, code) : is_space(code)) return;
    begin = std::min(begin, from);
    end = to;
  });
  if (!left) begin = 0;
  if (!right) end = text.size();
  return begin < end ? text.part(begin, end) : Text();
}

Text joined(Run& run, const Text& separator, const Items& parts, bool takes_any) {
  Text result;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) {
      run.budget.spend_text(separator.size(), result.size());
      result.append(separator);
    }
    if (!takes_any && parts[i].text() == nullptr) {
      throw Problem("join: expected strings, got " + std::string(parts[i].kind()));
    }
    const Text part = str_of(run, parts[i]);
    run.budget.spend_text(part.size(), result.size());
    result.append(part);
  }
  return result;
}

std::vector<Text> lines_of(Run& run, const Text& text, bool keeps_ends) {
  run.budget.spend_text(text.size());
  std::vector<Text> lines;
  std::size_t begin = 0;
  for_each_character(text.bytes(), [&](char32_t code, std::size_t from, std::size_t to) {
    if (from < begin || !is_line_end(code)) return;  // the "\n" of "\r\n" is taken
    if (code == '\r' && to < text.size() && text.bytes()[to] == '\n') ++to;
    lines.push_back(text.part(begin, keeps_ends ? to : from));
    run.budget.spend(1);
    begin = to;
  });
  if (begin < text.size()) lines.push_back(text.part(begin, text.size()));
  return lines;
}

Text centered(Run& run, const Text& text, std::int64_t width) {
  const std::size_t count = count_characters(text.bytes());
  const std::size_t wanted = static_cast<std::size_t>(std::max<std::int64_t>(0, width));
  const std::size_t missing = wanted > count ? wanted - count : 0;
  run.budget.spend_text(missing, text.size());
  const std::size_t before = missing / 2 + (missing & wanted & 1);  // as str.center() rounds
  Text result(std::string(before, ' '), true);
  result.append(text);
  result.append(std::string(missing - before, ' '), true);
  return result;
}

}  // namespace memlayers::jinja
