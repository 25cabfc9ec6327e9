// SPDX-License-Identifier: Apache-2.0
#include "text/bm25.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "text/words.h"

namespace memlayers::text {

Bm25::Bm25(const std::vector<std::string>& documents) {
  double all = 0;
  for (std::size_t document = 0; document < documents.size(); ++document) {
    const std::vector<std::string> words = words_of(documents[document]);
    lengths_.push_back(static_cast<double>(words.size()));
    all += lengths_.back();
    for (const std::string& word : words) {
      std::vector<Place>& places = places_[word];
      if (places.empty() || places.back().document != document) places.push_back({document, 0});
      ++places.back().times;
    }
  }
  if (!documents.empty()) mean_length_ = all / static_cast<double>(documents.size());
}

std::vector<Bm25::Found> Bm25::best(std::string_view query, std::size_t most) const {
  constexpr double kK1 = 1.2, kB = 0.75;
  const std::vector<std::string> words = words_of(query);
  std::map<std::size_t, double> scores;  // by document
  for (const std::string& word : std::set<std::string>(words.begin(), words.end())) {
    const auto found = places_.find(word);
    if (found == places_.end()) continue;
    const auto all = static_cast<double>(lengths_.size());
    const auto with = static_cast<double>(found->second.size());
    const double rarity = std::log(1 + (all - with + 0.5) / (with + 0.5));
    for (const auto& [document, count] : found->second) {
      const auto times = static_cast<double>(count);
      const double length = lengths_[document] / mean_length_;
      scores[document] += rarity * times * (kK1 + 1) / (times + kK1 * (1 - kB + kB * length));
    }
  }
  std::vector<Found> ranked;
  for (const auto& [document, score] : scores) ranked.push_back({document, score});
  std::ranges::stable_sort(ranked, std::greater<>(), &Found::score);
  ranked.resize(std::min(most, ranked.size()));
  return ranked;
}

}  // namespace memlayers::text
