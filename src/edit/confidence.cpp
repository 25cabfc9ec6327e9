// SPDX-License-Identifier: Apache-2.0
#include "memlayers/confidence.h"

#include <cmath>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "edit/question_text.h"
#include "edit/slot_reads.h"
#include "edit/subjects.h"
#include "generate/sequence.h"
#include "memlayers/error.h"

namespace memlayers {
namespace {

// Fitted by tools/retrofit_confidence.py to what tools/retrofit.py measured of a primed and a plain
// memory (docs/retrofit.md): the words of a subject in full are 0.92, half of them 0.14, and its
// slots add to either.
constexpr double kBias = -6.14, kOfMatch = 8.6, kOfAgreement = 2.7;

MemoryConfidence confidence_of(double match, double agreement) {
  const double logit = kBias + kOfMatch * match + kOfAgreement * agreement;
  return {.value = 1 / (1 + std::exp(-logit)), .match = match, .agreement = agreement};
}

// The index of the registries that were asked for last.
class Indexes {
 public:
  std::shared_ptr<const edit::SubjectIndex> of(const Snapshot& rows) {
    std::vector<PatchSubjects> registries = rows.subjects();
    if (registries.empty()) return nullptr;
    const std::lock_guard lock(mutex_);
    if (last_ == nullptr || last_->registries() != registries) {
      last_ = std::make_shared<const edit::SubjectIndex>(std::move(registries));
    }
    return last_;
  }

 private:
  std::mutex mutex_;
  std::shared_ptr<const edit::SubjectIndex> last_;
};

MemoryConfidence judge(Llama& model, const edit::SubjectIndex& index, const std::string& text,
                       const std::vector<std::int32_t>& prompt, const Snapshot& rows) {
  const std::vector<edit::SubjectIndex::Match> matches = index.find(text);
  if (matches.empty()) return confidence_of(0, 0);
  const std::vector<std::int64_t> reads = edit::last_reads(model, prompt, &rows);
  const edit::SubjectIndex::Match* best = nullptr;
  double agreement = 0;
  for (const auto& match : matches) {
    const double now = index.agreement(*match.slots, reads);
    if (best != nullptr && now < agreement) continue;  // of equals the last
    best = &match;
    agreement = now;
  }
  MemoryConfidence confidence = confidence_of(best->share, agreement);
  confidence.patch = *best->patch;
  return confidence;
}

}  // namespace

std::optional<MemoryConfidence> memory_confidence(Generator& generator, const std::string& prompt,
                                                  const std::optional<Snapshot>& given) {
  std::optional<Snapshot> rows = given;
  if (!rows && !generator.model()->pool().is_empty()) {
    generator.model()->pool()->refresh();
    rows = generator.model()->pool()->snapshot();
  }
  if (!rows) return std::nullopt;
  std::vector<PatchSubjects> registries = rows->subjects();
  if (registries.empty()) return std::nullopt;
  const std::vector<std::int32_t> tokens = generator.question_tokens(prompt);
  generate::check_prompt(generator.model()->config(), tokens);
  const edit::SubjectIndex index(std::move(registries));
  return judge(generator.model(), index, prompt, tokens, *rows);
}

Generator::Judge confidence_judge(const Generator& generator) {
  const auto indexes = std::make_shared<Indexes>();
  const edit::QuestionText question(generator.tokenizer());
  return [indexes, question, generator = generator](
             std::span<const std::int32_t> prompt,
             const Snapshot& rows) mutable -> std::optional<double> {
    const auto index = indexes->of(rows);
    if (index == nullptr) return std::nullopt;
    const std::string text = question.of(generator.tokenizer(), prompt);
    return judge(generator.model(), *index, text, {prompt.begin(), prompt.end()}, rows).value;
  };
}

}  // namespace memlayers
