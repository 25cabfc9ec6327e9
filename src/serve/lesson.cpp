// SPDX-License-Identifier: Apache-2.0
#include "serve/lesson.h"

#include <cmath>
#include <utility>

#include "io/file_system.h"
#include "io/json_lines.h"
#include "memlayers/error.h"

namespace memlayers::serve {
namespace {

bool is_jsonl(const std::string& text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  return first != std::string::npos && text[first] == '{';
}

}  // namespace

std::vector<Fact> Lesson::facts_of(const std::string& background) {
  std::vector<Fact> facts;
  if (!is_jsonl(background)) return facts;
  io::for_each_json_line_of(background, "background",
                            [&](const io::JsonField& line, const std::string& place) {
                              const auto prompt = line.find("prompt"), answer = line.find("answer");
                              if (!prompt || !answer) return;
                              facts.push_back({prompt->string(), answer->string(), place});
                              if (const auto more = line.find("paraphrases")) {
                                for (const io::JsonField& other : more->elements()) {
                                  facts.push_back({other.string(), answer->string(), place});
                                }
                              }
                            });
  return facts;
}

Lesson::Lesson(const std::string& model_folder, std::vector<NewFact> facts,
               const std::string& background, const LearnOptions& options,
               std::function<void()> rest)
    : model_folder_(model_folder),
      facts_(std::move(facts)),
      options_(options),
      rest_(std::move(rest)) {
  options_.rehearse.clear();
  generator_.emplace(load_model(model_folder), load_tokenizer(model_folder));
  generator_->ask_by_its_template();
  rest_();
  if (background.empty()) return;
  folder_.emplace("teach");
  file_ = io::join(folder_->path(), is_jsonl(background) ? "background.jsonl" : "background.txt");
  io::write_atomic(io::posix(), file_, background);
  options_.rehearse = {file_};
  const std::vector<Fact> all = facts_of(background);
  const std::vector<bool> is_known = recalled(all);
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (is_known[i]) known_.push_back(all[i]);
  }
  perplexity_ = perplexity();
}

std::vector<bool> Lesson::recalled(const std::vector<Fact>& facts) {
  std::vector<bool> all;
  if (facts.empty()) return all;
  constexpr std::int64_t kBatchTokens = 1024;  // small, so that it rests often
  const FactScores scores =
      evaluate_facts(*generator_, facts, kBatchTokens, [&](std::int64_t) { rest_(); });
  for (const FactScore& score : scores.facts) all.push_back(score.is_recalled);
  return all;
}

double Lesson::perplexity() {
  constexpr std::int64_t kBatchTokens = 1024;
  const std::string cache = io::join(folder_->path(), "cache");
  io::make_folders(io::posix(), cache);
  const TextScore score = evaluate_text(*generator_, {file_}, DataFormat::kAuto, cache,
                                        kBatchTokens, [&](std::int64_t, std::int64_t) { rest_(); });
  return std::exp(score.loss);
}

LearnResult Lesson::learn(const std::function<void(const LearnProgress&)>& progress) {
  const SlotHistory history =
      read_history(*generator_, model_folder_, options_.rehearse, options_.selection);
  return memlayers::learn(*generator_, facts_, options_, history, [&](const LearnProgress& now) {
    progress(now);
    rest_();
  });
}

std::optional<double> Lesson::unseen_recall() {
  const std::vector<Fact> unseen = unseen_phrasings(facts_);
  if (unseen.empty()) return std::nullopt;
  const std::vector<bool> is_recalled = recalled(unseen);
  return static_cast<double>(std::ranges::count(is_recalled, true)) /
         static_cast<double>(unseen.size());
}

std::optional<double> Lesson::kept() {
  if (known_.empty()) return std::nullopt;
  const std::vector<bool> is_recalled = recalled(known_);
  return static_cast<double>(std::ranges::count(is_recalled, true)) /
         static_cast<double>(known_.size());
}

std::optional<double> Lesson::perplexity_ratio() {
  if (!perplexity_) return std::nullopt;
  return perplexity() / *perplexity_;
}

}  // namespace memlayers::serve
