// SPDX-License-Identifier: Apache-2.0
#include "edit/retrieval.h"

namespace memlayers::edit {
namespace {

std::vector<std::string> documents_of(const std::vector<NewFact>& facts) {
  std::vector<std::string> documents;
  for (const NewFact& fact : facts) {
    documents.push_back(fact.fact.prompt + " " + fact.fact.answer);
  }
  return documents;
}

}  // namespace

Retrieval::Retrieval(const Generator& generator, const std::vector<NewFact>& facts,
                     std::int64_t most)
    : generator_(generator),
      documents_(documents_of(facts)),
      index_(documents_),
      most_(static_cast<std::size_t>(most)) {}

std::string Retrieval::prompt_of(const std::string& question) const {
  const std::int64_t context = generator_.model()->config().context;
  const auto fits = [&](const std::string& prompt) {
    const auto length = static_cast<std::int64_t>(generator_.question_tokens(prompt).size());
    return length + kRoom <= context;
  };
  std::vector<text::Bm25::Found> found = index_.best(question, most_);
  for (; !found.empty(); found.pop_back()) {
    std::string prompt = "Use these facts:\n";
    for (const text::Bm25::Found& one : found) prompt += "- " + documents_[one.document] + "\n";
    prompt += "\n" + question;
    if (fits(prompt)) return prompt;
  }
  return question;
}

std::int64_t Retrieval::bytes() const {
  std::size_t sum = 0;
  for (const std::string& document : documents_) sum += document.size();
  return static_cast<std::int64_t>(sum);
}

}  // namespace memlayers::edit
