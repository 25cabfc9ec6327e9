// SPDX-License-Identifier: Apache-2.0
// Which documents a text asks for, by the words that they share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace memlayers::text {

// BM25 [BM25] with k1 = 1.2 and b = 0.75: the score of a document of l words is the sum, over the
// different words of the query that it has t times, of
//   ln(1 + (N - n + 0.5) / (n + 0.5)) t (k1 + 1) / (t + k1 (1 - b + b l / mean l)),
// n of the N documents having the word. Words are those of words_of().
class Bm25 {
 public:
  explicit Bm25(const std::vector<std::string>& documents);

  struct Found {
    std::size_t document;  // its place among those given
    double score;
  };
  // Those that share a word with the query, the best first and of equal ones the earlier; at most
  // `most`.
  std::vector<Found> best(std::string_view query, std::size_t most) const;

 private:
  struct Place {
    std::size_t document;
    std::int64_t times;
  };
  std::unordered_map<std::string, std::vector<Place>> places_;  // by word
  std::vector<double> lengths_;                                 // of the documents, in words
  double mean_length_ = 0;
};

}  // namespace memlayers::text
