// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "io/json_lines.h"
#include "io/shown.h"
#include "io/utf8.h"
#include "memlayers/error.h"
#include "memlayers/evaluate.h"
#include "train/answer_scores.h"
#include "train/estimate.h"

namespace memlayers {
namespace {

constexpr std::string_view kBlanks = " \t\r\n";

const std::string& text_of(const io::JsonField& field) {
  if (field.string().find_first_not_of(kBlanks) == std::string::npos) field.fail("text");
  return field.string();
}

// A number, counted from 0, or the text of one of the choices.
std::size_t answer_of(const io::JsonField& field, const std::vector<std::string>& choices) {
  if (field.is_string()) {
    const auto found = std::ranges::find(choices, field.string());
    if (found == choices.end()) field.fail("one of the choices, or its number");
    return static_cast<std::size_t>(found - choices.begin());
  }
  return static_cast<std::size_t>(field.integer(0, static_cast<std::int64_t>(choices.size()) - 1));
}

std::string place_of(const Question& question, std::size_t index) {
  return question.place.empty() ? "question " + std::to_string(index + 1) : question.place;
}

// The question and one choice behind it, without an end of text. Blanks between the two are the
// choice's: that is how most tokenizers join them.
train::FactRow row_of(const Tokenizer& tokenizer, const std::string& text,
                      const std::string& choice) {
  const std::size_t end = text.find_last_not_of(kBlanks) + 1;  // 0 where there is none
  const std::string question = text.substr(0, end);
  std::string behind = text.substr(end);
  if (behind.empty() && choice.find_first_of(kBlanks) != 0) behind = " ";
  const auto before = static_cast<std::int64_t>(tokenizer.encode_prompt(question).size());
  return {.tokens = tokenizer.encode_prompt(question + behind + choice),
          .answer_from = std::max<std::int64_t>(1, before)};
}

std::size_t characters(std::string_view text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; }));
}

// The rows of all questions that fit the context, and the others' numbers.
struct Rows {
  std::vector<train::FactRow> rows;
  std::vector<std::size_t> questions, cut;
};

Rows rows_of(Generator& generator, const std::vector<Question>& questions) {
  const auto context = static_cast<std::size_t>(generator.model()->config().context);
  Rows all;
  for (std::size_t i = 0; i < questions.size(); ++i) {
    std::vector<train::FactRow> own;
    for (const std::string& choice : questions[i].choices) {
      own.push_back(row_of(generator.tokenizer(), questions[i].question, choice));
      if (static_cast<std::int64_t>(own.back().tokens.size()) > own.back().answer_from) continue;
      throw Error(place_of(questions[i], i) + ": choice " + io::quote(choice) +
                  ": expected text that the tokenizer makes at least one token of, got none");
    }
    const bool fits = std::ranges::all_of(
        own, [&](const train::FactRow& row) { return row.tokens.size() <= context; });
    if (!fits) {
      all.cut.push_back(i);
      continue;
    }
    all.questions.push_back(i);
    std::ranges::move(own, std::back_inserter(all.rows));
  }
  return all;
}

// The first of the largest.
template <class Value>
std::size_t best_of(const std::vector<double>& likelihoods, const Value& value) {
  std::size_t best = 0;
  for (std::size_t c = 1; c < likelihoods.size(); ++c) {
    if (value(c) > value(best)) best = c;
  }
  return best;
}

}  // namespace

std::vector<Question> read_questions(const std::vector<std::string>& paths) {
  std::vector<Question> questions;
  for (const std::string& path : paths) {
    const std::size_t before = questions.size();
    io::for_each_json_line(path, [&](const io::JsonField& line, const std::string& place) {
      Question question{.question = text_of(line.at("question")), .choices = {}, .place = place};
      const io::JsonField choices = line.at("choices");
      for (const io::JsonField& choice : choices.elements()) {
        question.choices.push_back(text_of(choice));
      }
      if (question.choices.size() < 2) choices.fail("at least two choices");
      question.answer = answer_of(line.at("answer"), question.choices);
      questions.push_back(std::move(question));
    });
    if (questions.size() == before) {
      throw Error(path + ": expected at least one question, got none");
    }
  }
  return questions;
}

ChoiceScores evaluate_choices(Generator& generator, const std::vector<Question>& questions,
                              std::int64_t batch_tokens,
                              const std::function<void(std::int64_t)>& progress) {
  if (questions.empty()) throw Error("questions: expected at least one, got none");
  Rows all = rows_of(generator, questions);
  const std::vector<train::AnswerScore> scores =
      train::score_answers(generator, all.rows, batch_tokens, progress);
  ChoiceScores result;
  result.cut = std::move(all.cut);
  result.questions.resize(questions.size());
  double right = 0, right_by_length = 0;
  std::size_t row = 0;
  for (const std::size_t i : all.questions) {
    const Question& question = questions[i];
    QuestionScore& score = result.questions[i];
    for (std::size_t c = 0; c < question.choices.size(); ++c) {
      score.log_likelihoods.push_back(-scores[row++].nll);
    }
    const auto likelihood = [&](std::size_t c) { return score.log_likelihoods[c]; };
    score.chosen = best_of(score.log_likelihoods, likelihood);
    score.chosen_by_length = best_of(score.log_likelihoods, [&](std::size_t c) {
      return likelihood(c) / static_cast<double>(characters(question.choices[c]));
    });
    right += score.chosen == question.answer ? 1 : 0;
    right_by_length += score.chosen_by_length == question.answer ? 1 : 0;
  }
  if (all.questions.empty()) return result;
  const auto count = static_cast<double>(all.questions.size());
  result.accuracy = train::share(right, count);
  result.accuracy_by_length = train::share(right_by_length, count);
  return result;
}

}  // namespace memlayers
