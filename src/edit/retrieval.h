// SPDX-License-Identifier: Apache-2.0
// What a memory is compared with: a model that is taught nothing, but finds facts in a list.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "memlayers/edit.h"
#include "text/bm25.h"

namespace memlayers::edit {

class Retrieval {
 public:
  // A fact's document is its first prompt and its answer; `most` of them stand before a question.
  Retrieval(const Generator& generator, const std::vector<NewFact>& facts, std::int64_t most);

  // "Use these facts:", the documents that the question's words find (text/bm25.h), a line each
  // with the best first, and the question. Of those that are found as many as fit the model's
  // context with the question and kRoom tokens of an answer; where there is none, the question
  // alone.
  std::string prompt_of(const std::string& question) const;
  static constexpr std::int64_t kRoom = 64;

  std::int64_t bytes() const;  // of the documents

 private:
  const Generator& generator_;
  std::vector<std::string> documents_;
  text::Bm25 index_;
  std::size_t most_;
};

}  // namespace memlayers::edit
