// SPDX-License-Identifier: Apache-2.0
#include "io/file_system.h"
#include "io/json_lines.h"
#include "io/lines.h"
#include "io/shown.h"
#include "memlayers/edit.h"
#include "memlayers/error.h"

namespace memlayers {
namespace {

std::string text_of(const io::JsonField& field) {
  if (field.string().empty()) field.fail("text");
  return field.string();
}

std::vector<std::string> texts_of(const io::JsonField& line, const std::string& name) {
  std::vector<std::string> texts;
  if (const auto list = line.find(name)) {
    for (const io::JsonField& text : list->elements()) texts.push_back(text_of(text));
  }
  return texts;
}

}  // namespace

std::vector<NewFact> read_new_facts(const std::string& path) {
  return parse_new_facts(io::read_stream_or_file(io::posix(), path), path);
}

std::vector<NewFact> parse_new_facts(std::string_view jsonl, const std::string& name) {
  std::vector<NewFact> facts;
  io::for_each_json_line_of(jsonl, name, [&](const io::JsonField& fact, const std::string& place) {
    facts.push_back({.fact = {.prompt = text_of(fact.at("prompt")),
                              .answer = text_of(fact.at("answer")),
                              .place = place},
                     .paraphrases = texts_of(fact, "paraphrases"),
                     .unseen = texts_of(fact, "unseen"),
                     .subject = fact.string_or("subject", "")});
  });
  if (facts.empty()) throw Error(name + ": expected at least one fact, got none");
  return facts;
}

namespace {

constexpr std::string_view kPrompt = "{prompt}", kSubject = "{subject}";

struct Phrasing {
  std::string text, place;
  bool has(std::string_view name) const { return text.find(name) != std::string::npos; }
};

std::vector<Phrasing> read_phrasings(const std::string& path) {
  std::vector<Phrasing> phrasings;
  io::for_each_line(io::read_text(io::posix(), path), path,
                    [&](std::string_view line, const std::string& place) {
                      if (line.empty()) return;
                      phrasings.push_back({std::string(line), place});
                      if (phrasings.back().has(kPrompt) || phrasings.back().has(kSubject)) return;
                      throw Error(place + ": expected a phrasing with {prompt} or {subject}, got " +
                                  io::quote(line));
                    });
  if (phrasings.empty()) throw Error(path + ": expected at least one phrasing, got none");
  return phrasings;
}

// What a fact's own text holds is no place for another.
std::string filled(const Phrasing& phrasing, const NewFact& fact) {
  const std::string_view text = phrasing.text;
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const std::string_view rest = text.substr(at);
    if (rest.starts_with(kPrompt)) {
      out += fact.fact.prompt;
      at += kPrompt.size();
    } else if (rest.starts_with(kSubject)) {
      out += fact.subject;
      at += kSubject.size();
    } else {
      out += text[at++];
    }
  }
  return out;
}

}  // namespace

void add_phrasings(std::vector<NewFact>& facts, const std::string& path, PhrasingUse use) {
  const std::vector<Phrasing> phrasings = read_phrasings(path);
  for (NewFact& fact : facts) {
    auto& list = use == PhrasingUse::kLearned ? fact.paraphrases : fact.unseen;
    if (!list.empty()) continue;
    for (const Phrasing& phrasing : phrasings) {
      if (fact.subject.empty() && phrasing.has(kSubject)) {
        throw Error(fact.fact.place + ": expected a \"subject\" for the phrasing of " +
                    phrasing.place + ", got none");
      }
      std::string text = filled(phrasing, fact);
      if (text != fact.fact.prompt) list.push_back(std::move(text));
    }
  }
}

std::vector<Fact> unseen_phrasings(const std::vector<NewFact>& facts) {
  std::vector<Fact> all;
  for (const NewFact& fact : facts) {
    for (const std::string& prompt : fact.unseen) {
      all.push_back({prompt, fact.fact.answer, fact.fact.place});
    }
  }
  return all;
}
}  // namespace memlayers
