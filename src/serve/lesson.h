// SPDX-License-Identifier: Apache-2.0
// What one job of teaching measures and learns, in the thread that calls it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "api/engine.h"
#include "io/temporary_folder.h"
#include "memlayers/edit.h"

namespace memlayers::serve {

// A model in memory that learns some facts, and what it knew before of a background.
class Lesson {
 public:
  // `background`: text or facts as JSONL, "" for none; it is rehearsed. `rest` is called between
  // batches and steps, and may throw to end all. Throws Error as load_model().
  Lesson(const std::string& model_folder, std::vector<NewFact> facts, const std::string& background,
         const LearnOptions& options, std::function<void()> rest);

  LearnResult learn(const std::function<void(const LearnProgress&)>& progress);
  // After learning; absent where there is nothing to measure.
  std::optional<double> unseen_recall();
  std::optional<double> kept();              // of the background's facts that were known before
  std::optional<double> perplexity_ratio();  // of the background, to that before

  // Of a background in memory: the facts of JSONL; none of text.
  static std::vector<Fact> facts_of(const std::string& background);

 private:
  double perplexity();
  std::vector<bool> recalled(const std::vector<Fact>& facts);

  const std::string model_folder_;
  const std::vector<NewFact> facts_;
  LearnOptions options_;
  std::function<void()> rest_;
  std::optional<io::TemporaryFolder> folder_;  // of the background, as learn() takes it
  std::string file_;                           // in it
  std::vector<Fact> known_;
  std::optional<double> perplexity_;
  std::optional<Generator> generator_;
};

}  // namespace memlayers::serve
