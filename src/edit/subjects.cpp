// SPDX-License-Identifier: Apache-2.0
#include "edit/subjects.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>
#include <span>

#include "edit/slot_reads.h"
#include "memlayers/error.h"
#include "text/words.h"

namespace memlayers::edit {
namespace {

using Hashes = std::vector<std::uint64_t>;

constexpr std::size_t kPrompts = 2;  // of a fact, whose slots are kept
constexpr std::size_t kSlots = 64;   // of a fact, at most

bool holds(const Hashes& hashes, std::uint64_t hash) {
  return std::ranges::binary_search(hashes, hash);
}

std::vector<const std::string*> prompts_of(const NewFact& fact) {
  std::vector<const std::string*> prompts{&fact.fact.prompt};
  for (const std::string& prompt : fact.paraphrases) prompts.push_back(&prompt);
  return prompts;
}

// The runs of words that all prompts of a fact have.
Hashes shared_grams(const NewFact& fact) {
  Hashes shared;
  bool is_first = true;
  for (const std::string* prompt : prompts_of(fact)) {
    Hashes grams = text::grams_of(text::words_of(*prompt)), both;
    if (!is_first) {
      std::ranges::set_intersection(shared, grams, std::back_inserter(both));
      grams = std::move(both);
    }
    shared = std::move(grams);
    is_first = false;
  }
  return shared;
}

// Of runs of nothing but function words.
Hashes function_grams(const NewFact& fact) {
  Hashes found;
  for (const std::string* prompt : prompts_of(fact)) {
    const std::vector<std::string> words = text::words_of(*prompt);
    for (std::size_t begin = 0; begin < words.size(); ++begin) {
      for (std::size_t n = 1; n <= std::min(text::kLongestGram, words.size() - begin); ++n) {
        if (!text::is_function_word(words[begin + n - 1])) break;
        found.push_back(text::gram_hash(std::span(words).subspan(begin, n)));
      }
    }
  }
  std::ranges::sort(found);
  return found;
}

// Of the subject that the fact names; none where its prompts do not hold it.
Hashes named_grams(const NewFact& fact, const Hashes& shared) {
  Hashes grams = text::grams_of(text::words_of(fact.subject));
  const bool is_held =
      std::ranges::all_of(grams, [&](std::uint64_t gram) { return holds(shared, gram); });
  return is_held ? grams : Hashes{};
}

// A text's words, and of each whether it is of the frame: common, or one that phrasings have beside
// their subjects.
struct Words {
  std::vector<std::string> words;
  std::vector<bool> is_frame;
  std::vector<bool> is_parted;  // from the word before; one more, for the end of the text
};

Words words_told(std::string_view text, const std::unordered_set<std::uint64_t>& frame) {
  Words told;
  for (text::PartedWord& word : text::parted_words_of(text)) {
    told.is_frame.push_back(text::is_function_word(word.text) ||
                            frame.contains(text::gram_hash({&word.text, 1})));
    told.is_parted.push_back(word.is_parted);
    told.words.push_back(std::move(word.text));
  }
  told.is_parted.push_back(true);
  return told;
}

// A run of matched words stands by itself at least once: nothing unknown goes before or follows.
bool stands_alone(const Words& told, const std::vector<bool>& is_matched) {
  for (std::size_t begin = 0; begin < is_matched.size(); ++begin) {
    if (!is_matched[begin] || (begin > 0 && is_matched[begin - 1])) continue;
    std::size_t end = begin;
    while (end < is_matched.size() && is_matched[end]) ++end;
    if ((told.is_parted[begin] || told.is_frame[begin - 1]) &&
        (told.is_parted[end] || told.is_frame[end])) {
      return true;
    }
  }
  return false;
}

// All that is matched is of the frame, and the text has something else that is not ("in a book",
// where "book" was taught).
bool is_in_passing(const Words& told, const std::vector<bool>& is_matched) {
  bool is_of_the_frame = true, is_beside_others = false;
  for (std::size_t i = 0; i < is_matched.size(); ++i) {
    if (is_matched[i]) is_of_the_frame = is_of_the_frame && told.is_frame[i];
    if (!is_matched[i]) is_beside_others = is_beside_others || !told.is_frame[i];
  }
  return is_of_the_frame && is_beside_others;
}

}  // namespace

SubjectRegistry subjects_of(const std::vector<NewFact>& facts) {
  std::vector<Hashes> shared;
  std::unordered_map<std::uint64_t, std::size_t> facts_with;
  for (const NewFact& fact : facts) {
    shared.push_back(shared_grams(fact));
    for (const std::uint64_t gram : shared.back()) ++facts_with[gram];
  }
  SubjectRegistry registry;
  std::set<std::uint64_t> frame;
  for (std::size_t i = 0; i < facts.size(); ++i) {
    TaughtSubject subject{.grams = named_grams(facts[i], shared[i])};
    if (subject.grams.empty()) {
      const Hashes functions = function_grams(facts[i]);
      std::ranges::copy_if(shared[i], std::back_inserter(subject.grams), [&](std::uint64_t gram) {
        const bool is_frame =
            facts.size() > 1 && 2 * facts_with[gram] >= facts.size() && facts_with[gram] > 1;
        return !is_frame && !holds(functions, gram);
      });
    }
    if (subject.grams.empty()) subject.grams = shared[i];  // it is all that there is
    for (const std::string* prompt : prompts_of(facts[i])) {
      for (const std::string& word : text::words_of(*prompt)) {
        const std::uint64_t hash = text::gram_hash({&word, 1});
        if (!holds(subject.grams, hash)) frame.insert(hash);
      }
    }
    registry.subjects.push_back(std::move(subject));
  }
  registry.frame.assign(frame.begin(), frame.end());
  return registry;
}

void add_slots(SubjectRegistry& registry, Generator& generator, const std::vector<NewFact>& facts) {
  std::vector<train::FactRow> prompts;
  std::vector<std::size_t> counts;  // of each fact
  for (const NewFact& fact : facts) {
    const std::vector<const std::string*> all = prompts_of(fact);
    counts.push_back(std::min(kPrompts, all.size()));
    for (const std::string* prompt : std::span(all).first(counts.back())) {
      train::FactRow& row = prompts.emplace_back();
      row.tokens = generator.question_tokens(*prompt);
      row.answer_from = static_cast<std::int64_t>(row.tokens.size());
      row.tokens.push_back(0);  // whatever is answered
    }
  }
  const std::vector<std::set<std::int64_t>> read = last_reads(generator.model(), prompts);
  std::size_t prompt = 0;
  for (std::size_t i = 0; i < facts.size(); ++i) {
    std::map<std::int64_t, std::size_t> reads;
    for (std::size_t end = prompt + counts[i]; prompt < end; ++prompt) {
      for (const std::int64_t slot : read[prompt]) ++reads[slot];
    }
    std::vector<std::int64_t>& slots = registry.subjects[i].slots;
    for (std::size_t least = counts[i]; least > 0; --least) {  // what most of them read first
      for (const auto& [slot, count] : reads) {
        if (count == least && 2 * count >= counts[i] && slots.size() < kSlots) {
          slots.push_back(slot);
        }
      }
    }
    std::ranges::sort(slots);
  }
}

SubjectIndex::SubjectIndex(std::vector<PatchSubjects> registries)
    : registries_(std::move(registries)) {
  for (std::size_t i = 0; i < registries_.size(); ++i) {
    const SubjectRegistry& registry = *registries_[i].registry;
    frame_.insert(registry.frame.begin(), registry.frame.end());
    for (const TaughtSubject& subject : registry.subjects) {
      for (const std::uint64_t gram : subject.grams) by_gram_[gram].push_back(entries_.size());
      for (const std::int64_t slot : subject.slots) ++with_slot_[slot];
      entries_.push_back({i, &subject});
    }
  }
}

// Of what `with` subjects have: 1 for one of them, near 0 for all.
double SubjectIndex::weight(std::size_t with) const {
  const double all = static_cast<double>(entries_.size()) + 1;
  return std::log(all / static_cast<double>(with)) / std::log(all);
}

double SubjectIndex::agreement(const std::vector<std::int64_t>& ours,
                               const std::vector<std::int64_t>& read) const {
  double both = 0, all = 0;
  for (const std::int64_t slot : ours) {
    const auto found = with_slot_.find(slot);
    const double counts = weight(found == with_slot_.end() ? 1 : found->second);
    all += counts;
    if (std::ranges::binary_search(read, slot)) both += counts;
  }
  return all > 0 ? both / all : 0;
}

std::vector<SubjectIndex::Match> SubjectIndex::find(std::string_view text) const {
  const Words told = words_told(text, frame_);
  const std::vector<std::string>& words = told.words;
  // Where each run of words that a subject has begins and ends.
  struct Place {
    std::size_t begin, length;
  };
  std::unordered_map<std::uint64_t, std::vector<Place>> places;
  std::set<std::size_t> candidates;
  for (std::size_t begin = 0; begin < words.size(); ++begin) {
    for (std::size_t n = 1; n <= std::min(text::kLongestGram, words.size() - begin); ++n) {
      const std::uint64_t gram = text::gram_hash(std::span(words).subspan(begin, n));
      const auto found = by_gram_.find(gram);
      if (found == by_gram_.end()) continue;
      places[gram].push_back({begin, n});
      candidates.insert(found->second.begin(), found->second.end());
    }
  }
  std::vector<Match> best;
  for (const std::size_t number : candidates) {
    const Entry& entry = entries_[number];
    double has = 0, all = 0;
    std::vector<bool> is_matched(words.size());
    for (const std::uint64_t gram : entry.subject->grams) {
      const auto found = places.find(gram);
      const double counts = weight(by_gram_.at(gram).size());
      all += counts;
      if (found == places.end()) continue;
      has += counts;
      for (const Place& place : found->second) {
        std::fill_n(is_matched.begin() + static_cast<std::ptrdiff_t>(place.begin), place.length,
                    true);
      }
    }
    const bool is_asked_for = stands_alone(told, is_matched) && !is_in_passing(told, is_matched);
    const double share = (all > 0 ? has / all : 0) * (is_asked_for ? 1 : 0.5);
    if (share <= 0 || (!best.empty() && share < best.front().share)) continue;
    if (!best.empty() && share > best.front().share) best.clear();
    best.push_back({share, &registries_[entry.registry].patch, &entry.subject->slots});
  }
  return best;
}

}  // namespace memlayers::edit
