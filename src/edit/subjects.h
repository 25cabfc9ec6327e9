// SPDX-License-Identifier: Apache-2.0
// The registry that learning keeps with a patch, and how prompts are looked up in registries.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "memlayers/edit.h"
#include "memlayers/subjects.h"

namespace memlayers::edit {

// What these facts are about, without slots. A fact's grams are those of its subject, where it has
// one that its prompts hold, or else those that all of its prompts have and that are no frame:
// words that half of the facts share, or that questions have anyway.
SubjectRegistry subjects_of(const std::vector<NewFact>& facts);

// Sets the registry's slots: of each fact those that at least half of its first prompts read.
void add_slots(SubjectRegistry& registry, Generator& generator, const std::vector<NewFact>& facts);

// Registries, ready to look prompts up. Immutable.
class SubjectIndex {
 public:
  explicit SubjectIndex(std::vector<PatchSubjects> registries);

  const std::vector<PatchSubjects>& registries() const { return registries_; }
  // A subject of which the text has something.
  struct Match {
    double share = 0;  // of its grams, by weight and length; half of it where words around it say
                       // that the text is about something longer, or names it in passing
    const std::string* patch = nullptr;
    const std::vector<std::int64_t>* slots = nullptr;
  };
  // The best, all that are as good; the last applied last. Empty: none.
  std::vector<Match> find(std::string_view text) const;
  // How much of a subject's slots is in what a prompt reads, by weight; both ascending; 0 of none.
  double agreement(const std::vector<std::int64_t>& ours,
                   const std::vector<std::int64_t>& read) const;

 private:
  struct Entry {
    std::size_t registry = 0;
    const TaughtSubject* subject = nullptr;
  };
  double weight(std::size_t with) const;

  std::vector<PatchSubjects> registries_;
  std::vector<Entry> entries_;
  std::unordered_map<std::uint64_t, std::vector<std::size_t>> by_gram_;  // numbers of entries
  std::unordered_map<std::int64_t, std::size_t> with_slot_;  // how many subjects have it
  std::unordered_set<std::uint64_t> frame_;
};

}  // namespace memlayers::edit
