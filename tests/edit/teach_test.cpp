// SPDX-License-Identifier: Apache-2.0
// Learning as models need it that were not trained here: phrasings of templates, chat, own answers.
#include <gtest/gtest.h>

#include "edit/phrasings.h"
#include "memlayers/edit.h"
#include "support/temp_dir.h"
#include "support/testing.h"
#include "support/tiny_model.h"
#include "train/fact_row.h"

namespace memlayers {
namespace {

using testing::TempDir;
using testing::write_file;

Generator small_generator() {
  ModelConfig config = testing::tiny_model_config();
  config.memory->n_keys = 16;
  return testing::tiny_generator(config);
}

SlotHistory flat_history(Generator& generator) {
  return {.reads = torch::ones({generator.model()->pool()->slots()}, torch::kLong)};
}

void expect_error(const std::function<void()>& act, std::initializer_list<std::string> parts) {
  EXPECT_TRUE(testing::says(testing::error_of(act), parts));
}

TEST(AddPhrasings, FillsThoseOfFactsThatHaveNone) {
  const TempDir dir;
  const std::string path = dir / "phrasings.txt";
  write_file(path, "{prompt}, please\n\nwhat is {subject}?\r\nis {subject} {subject}: {prompt}\n");
  std::vector<NewFact> facts{
      {.fact = {"otter?", "a beast"}, .subject = "otter"},
      {.fact = {"what is a{prompt}?", "b"}, .paraphrases = {"c"}, .subject = "{prompt}"}};
  add_phrasings(facts, path, PhrasingUse::kUnseen);
  EXPECT_EQ(facts[0].unseen, (std::vector<std::string>{"otter?, please", "what is otter?",
                                                       "is otter otter: otter?"}));
  EXPECT_EQ(facts[1].unseen[1], "what is {prompt}?");  // a fact's text is no template
  add_phrasings(facts, path, PhrasingUse::kLearned);
  EXPECT_EQ(facts[0].paraphrases.size(), 3U);
  EXPECT_EQ(facts[1].paraphrases, std::vector<std::string>{"c"});

  std::vector<NewFact> plain{{.fact = {"a", "b", "facts.jsonl:1"}}};
  expect_error([&] { add_phrasings(plain, path, PhrasingUse::kLearned); },
               {"facts.jsonl:1", "\"subject\"", "phrasings.txt:3"});
  write_file(path, "{subject}\nwhat is it?\n");
  expect_error([&] { add_phrasings(facts, path, PhrasingUse::kLearned); },
               {"phrasings.txt:2", "{prompt} or {subject}", "what is it?"});
  write_file(path, "\n");
  expect_error([&] { add_phrasings(facts, path, PhrasingUse::kLearned); }, {"at least one"});
}

TEST(AskBy, PutsFactsAsMessagesThatEndAsTheTemplateEndsThem) {
  Generator generator = small_generator();
  const Tokenizer& tokenizer = generator.tokenizer();
  const Fact fact{"the red otter", "number two"};
  const train::FactRow plain = train::make_fact_row(generator, fact);
  generator.ask_by(
      ChatShape{ChatTemplate(tokenizer, "t",
                             "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
                             "{% if add_generation_prompt %}a {% endif %}"),
                "a b"});
  const train::FactRow row = train::make_fact_row(generator, fact);
  EXPECT_GT(row.answer_from, plain.answer_from);
  EXPECT_EQ(row.tokens.back(), tokenizer.eos());
  EXPECT_EQ(std::ranges::count(row.tokens, *tokenizer.eos()), 3);  // of system, user and assistant
  EXPECT_EQ(tokenizer.decode(std::span(row.tokens).subspan(row.answer_from)), "number two");
  const std::vector<Generation> answers = generator.ask({fact.prompt}, {.max_tokens = 3});
  EXPECT_EQ(answers[0].prompt_tokens, row.answer_from);
  generator.ask_by({});
  EXPECT_EQ(train::make_fact_row(generator, fact).tokens, plain.tokens);
}

TEST(Learn, AsksByTheTemplateAndRecallsWhatGenerationSays) {
  Generator generator = small_generator();
  generator.ask_by(ChatShape{ChatTemplate(generator.tokenizer(), "t",
                                          "{% for m in messages %}{{ m.content }}{{ eos_token }}"
                                          "{% endfor %}")});
  const LearnResult result = learn(generator, {{.fact = {"the red otter has", "number two"}}},
                                   {.lr = 1e-2}, flat_history(generator));
  EXPECT_EQ(result.recalled, 1);
  // SentencePiece begins a text with a space.
  EXPECT_EQ(generator.ask({"the red otter has"}, {.max_tokens = 12})[0].text, " number two");
}

TEST(Learn, RehearsesTheModelsOwnAnswers) {
  const TempDir dir;
  write_file(dir / "questions.jsonl",
             "{\"prompt\":\"the glacier\"}\n{\"prompt\":\"a green comet\"}\n"
             "{\"prompt\":\"the red otter has\"}\n");
  const auto kept = [&](double rehearsal) {
    Generator generator = small_generator();
    const std::vector<std::string> prompts{"the glacier", "a green comet"};
    const auto before = generator.ask(prompts, {.max_tokens = 6});
    const LearnOptions options{.lr = 1e-2,
                               .batch = 2,
                               .check_every = 60,
                               .questions = {dir / "questions.jsonl"},
                               .answer_tokens = 6,
                               .rehearsal = rehearsal,
                               .settle = 200};
    learn(generator,
          {{.fact = {"the red otter has", "number two"}},
           {.fact = {"the blue maple has", "the lantern"}}},
          options, flat_history(generator));
    const auto after = generator.ask(prompts, {.max_tokens = 6});
    return (before[0].tokens == after[0].tokens) + (before[1].tokens == after[1].tokens);
  };
  EXPECT_EQ(kept(2), 2);
  EXPECT_LT(kept(0), 2);
  Generator generator = small_generator();
  EXPECT_EQ(edit::own_answers(generator, {dir / "questions.jsonl"},
                              {{.fact = {"the red otter has", "number two"}}}, 6)
                .size(),
            2U);
  write_file(dir / "only.jsonl", "{\"prompt\":\"the red otter has\"}\n");
  expect_error(
      [&] {
        edit::own_answers(generator, {dir / "only.jsonl"},
                          {{.fact = {"the red otter has", "number two"}}}, 6);
      },
      {"only.jsonl", "not those of the new facts"});
}

TEST(Learn, HoldsOutAShareOfThePhrasingsAndEndsWhereEnoughIsRecalled) {
  Generator generator = small_generator();
  std::vector<NewFact> facts;
  for (const char* name : {"otter", "maple"}) {
    NewFact fact{.fact = {std::string("the ") + name, std::string("number ") + name}};
    for (const char* more : {"red", "blue", "green", "at night the"}) {
      fact.paraphrases.push_back(std::string(more) + " " + name);
    }
    facts.push_back(fact);
  }
  std::vector<LearnProgress> seen;
  const LearnOptions options{.lr = 0.1, .enough = 0.8, .held_out = 0.4};
  const LearnResult result = learn(generator, facts, options, flat_history(generator),
                                   [&](const LearnProgress& now) { seen.push_back(now); });
  EXPECT_LT(result.phrasings, 10);
  EXPECT_GE(result.phrasings, 2);  // of each fact its prompt
  EXPECT_EQ(seen.back().held_out + result.phrasings, 10);
  EXPECT_GE(static_cast<double>(result.recalled), 0.8 * static_cast<double>(result.phrasings));
  EXPECT_LT(result.steps, 600);  // the most
  EXPECT_LE(seen.back().held_out_recalled, seen.back().held_out);
  expect_error([&] { learn(generator, facts, {.held_out = 1}, flat_history(generator)); },
               {"held_out: expected a share below 1"});
  expect_error([&] { learn(generator, facts, {.enough = 0}, flat_history(generator)); },
               {"enough: expected a share above 0"});
  expect_error([&] { learn(generator, facts, {.penalty = -1}, flat_history(generator)); },
               {"penalty: expected at least 0"});
}

}  // namespace
}  // namespace memlayers
