// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <torch/types.h>

#include "memlayers/error.h"
#include "memlayers/evaluate.h"
#include "support/temp_dir.h"
#include "support/testing.h"
#include "support/tiny_model.h"

namespace memlayers {
namespace {

using testing::error_of;
using testing::says;
using testing::TempDir;
using testing::tiny_generator;

// As lm-evaluation-harness cuts the tokens: those of question, blank and choice, behind as many as
// the question has alone; from the logits of all.
double log_likelihood(Generator& generator, const std::string& question,
                      const std::string& choice) {
  const torch::NoGradGuard no_grad;
  std::vector<std::int64_t> tokens;
  for (const std::int32_t id : generator.tokenizer().encode_prompt(question + " " + choice)) {
    tokens.push_back(id);
  }
  const auto from = static_cast<std::int64_t>(generator.tokenizer().encode_prompt(question).size());
  const at::Tensor all = torch::tensor(tokens, torch::kLong);
  const at::Tensor logits = generator.model()->forward(all.unsqueeze(0))[0].log_softmax(-1);
  double sum = 0;
  for (std::int64_t t = from; t < all.size(0); ++t) {
    sum += logits[t - 1][all[t].item<std::int64_t>()].item<double>();
  }
  return sum;
}

std::vector<Question> some_questions() {
  return {{.question = "the red otter", .choices = {"öne", "two hundred", "three"}, .answer = 1},
          {.question = "the blue", .choices = {"maple", "comet"}, .answer = 0},
          {.question = "the", .choices = {"red", "green comet over the harbour"}, .answer = 1}};
}

TEST(EvaluateChoices, TakesTheMostLikelyChoice) {
  Generator generator = tiny_generator();
  const std::vector<Question> questions = some_questions();
  const ChoiceScores scores = evaluate_choices(generator, questions);
  double right = 0, right_by_length = 0;
  for (std::size_t i = 0; i < questions.size(); ++i) {
    const QuestionScore& score = scores.questions[i];
    ASSERT_EQ(score.log_likelihoods.size(), questions[i].choices.size());
    std::size_t best = 0, best_by_length = 0;
    const auto by_length = [&](std::size_t c) {
      const std::string& choice = questions[i].choices[c];
      const std::size_t characters = choice == "öne" ? 3 : choice.size();
      return score.log_likelihoods[c] / static_cast<double>(characters);
    };
    for (std::size_t c = 0; c < questions[i].choices.size(); ++c) {
      EXPECT_NEAR(score.log_likelihoods[c],
                  log_likelihood(generator, questions[i].question, questions[i].choices[c]), 1e-4);
      if (score.log_likelihoods[c] > score.log_likelihoods[best]) best = c;
      if (by_length(c) > by_length(best_by_length)) best_by_length = c;
    }
    EXPECT_EQ(score.chosen, best);
    EXPECT_EQ(score.chosen_by_length, best_by_length);
    right += best == questions[i].answer;
    right_by_length += best_by_length == questions[i].answer;
  }
  EXPECT_DOUBLE_EQ(scores.accuracy->value, right / 3);
  EXPECT_DOUBLE_EQ(scores.accuracy_by_length->value, right_by_length / 3);
  EXPECT_LE(scores.accuracy->low, scores.accuracy->value);
  EXPECT_GE(scores.accuracy->high, scores.accuracy->value);
}

TEST(EvaluateChoices, OneBlankStandsBetweenQuestionAndChoice) {
  Generator generator = tiny_generator();
  const auto scores = [&](const std::string& question, const std::string& choice) {
    return evaluate_choices(generator, {{.question = question, .choices = {choice, "red"}}})
        .questions[0]
        .log_likelihoods[0];
  };
  const double wanted = scores("the red", "otter");
  EXPECT_NEAR(wanted, log_likelihood(generator, "the red", "otter"), 1e-4);
  EXPECT_EQ(scores("the red ", "otter"), wanted);
  EXPECT_EQ(scores("the red", " otter"), wanted);
}

TEST(EvaluateChoices, LeavesOutWhatDoesNotFitTheContext) {
  Generator generator = tiny_generator();
  std::vector<Question> questions = some_questions();
  std::string words;
  for (int i = 0; i < 60; ++i) words += " otter";
  questions.insert(questions.begin(), {.question = "the", .choices = {"red", words}, .answer = 0});
  const ChoiceScores all = evaluate_choices(generator, questions);
  const ChoiceScores fitting = evaluate_choices(generator, some_questions());
  EXPECT_EQ(all.cut, std::vector<std::size_t>{0});
  EXPECT_EQ(all.accuracy->value, fitting.accuracy->value);
  EXPECT_FALSE(evaluate_choices(generator, {questions[0]}).accuracy.has_value())
      << "nothing was scored";
}

TEST(ReadQuestions, TakeTheAnswersNumberOrItsText) {
  const TempDir dir;
  testing::write_file(dir / "q.jsonl", R"({"question":"a?","choices":["b","c"],"answer":1})"
                                       "\n\n"
                                       R"({"question":"d?","choices":["e","f","g"],"answer":"f"})");
  const std::vector<Question> questions = read_questions({dir / "q.jsonl"});
  ASSERT_EQ(questions.size(), 2U);
  EXPECT_EQ(questions[0].answer, 1U);
  EXPECT_EQ(questions[1].answer, 1U);
  EXPECT_EQ(questions[1].choices.size(), 3U);
  EXPECT_EQ(questions[1].place, (dir / "q.jsonl") + ":3");
}

TEST(ReadQuestions, NameFileLineAndField) {
  const TempDir dir;
  const auto error = [&](const std::string& text) {
    testing::write_file(dir / "q.jsonl", text);
    return error_of([&] { read_questions({dir / "q.jsonl"}); });
  };
  EXPECT_TRUE(says(error(R"({"question":"a?","choices":["b","c"],"answer":2})"),
                   {"q.jsonl:1", "answer", "2"}));
  EXPECT_TRUE(says(error(R"({"question":"a?","choices":["b","c"],"answer":"d"})"),
                   {"q.jsonl:1", "answer", "one of the choices"}));
  EXPECT_TRUE(says(error(R"({"question":"a?","choices":["b"],"answer":0})"),
                   {"q.jsonl:1", "choices", "at least two"}));
  EXPECT_TRUE(says(error(R"({"question":"a?","choices":["b",""],"answer":0})"),
                   {"q.jsonl:1", "choices[1]"}));
  EXPECT_TRUE(says(error(R"({"choices":["b","c"],"answer":0})"), {"q.jsonl:1", "question"}));
  EXPECT_TRUE(
      says(error(R"({"question":" ","choices":["b","c"],"answer":0})"), {"q.jsonl:1", "question"}));
  EXPECT_TRUE(says(error("\n"), {"q.jsonl", "none"}));
}

}  // namespace
}  // namespace memlayers
