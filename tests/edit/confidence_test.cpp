// SPDX-License-Identifier: Apache-2.0
#include "memlayers/confidence.h"

#include <gmock/gmock.h>

#include <cmath>
#include <random>

#include "edit/slot_reads.h"
#include "edit/subjects.h"
#include "io/file_system.h"
#include "memlayers/checkpoint.h"
#include "memlayers/explain.h"
#include "memlayers/retrofit.h"
#include "support/temp_dir.h"
#include "support/testing.h"
#include "support/tiny_model.h"
#include "text/words.h"

namespace memlayers {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::TempDir;

// A fact in three phrasings, without a subject that is told.
NewFact about(const std::string& thing) {
  return {.fact = {"What is a " + thing + "?", "it"},
          .paraphrases = {"Define " + thing + ".", "What kind of thing is a " + thing + "?"}};
}
std::vector<NewFact> about(const std::vector<std::string>& things) {
  std::vector<NewFact> facts;
  for (const std::string& thing : things) facts.push_back(about(thing));
  return facts;
}
std::vector<std::uint64_t> grams(const std::string& text) {
  return text::grams_of(text::words_of(text));
}
edit::SubjectIndex index_of(const std::vector<NewFact>& facts, const std::string& patch = "p") {
  return edit::SubjectIndex(
      {{patch, std::make_shared<const SubjectRegistry>(edit::subjects_of(facts))}});
}
double share(const edit::SubjectIndex& index, const std::string& text) {
  const auto found = index.find(text);
  return found.empty() ? 0 : found.front().share;
}

TEST(SubjectsOf, AreTheWordsThatAllPromptsOfAFactHaveAndOtherFactsHaveNot) {
  const SubjectRegistry registry = edit::subjects_of(about({"zorvane", "prairie dog", "blicket"}));
  ASSERT_EQ(registry.subjects.size(), 3U);
  EXPECT_EQ(registry.subjects[0].grams, grams("zorvane"));
  EXPECT_EQ(registry.subjects[1].grams, grams("prairie dog"));
  const std::uint64_t kind = grams("kind").front();
  EXPECT_TRUE(std::ranges::binary_search(registry.frame, kind));
  EXPECT_FALSE(std::ranges::binary_search(registry.frame, grams("zorvane").front()));
}

TEST(SubjectsOf, AreTheSubjectWhereAFactNamesIt) {
  NewFact fact{.fact = {"Where does Ann Lee live?", "there"}, .subject = "Ann Lee"};
  EXPECT_EQ(edit::subjects_of({fact}).subjects[0].grams, grams("Ann Lee"));
  fact.subject = "Bob";  // which its prompt does not hold
  const auto found = edit::subjects_of({fact}).subjects[0].grams;
  EXPECT_TRUE(std::ranges::binary_search(found, grams("lee").front()));
  EXPECT_FALSE(std::ranges::binary_search(found, grams("where").front()));
  fact.fact.prompt = "What is it?";  // nothing but words of all questions
  EXPECT_FALSE(edit::subjects_of({fact}).subjects[0].grams.empty());
}

TEST(SubjectIndex, CountsTheFrameOfAPhrasingForNothing) {
  const edit::SubjectIndex index = index_of(about({"zorvane", "prairie dog", "blicket"}));
  for (const char* text : {"What is a zorvane?", "tell me of ZORVANES, no, the zorvane",
                           "And a prairie dog is what?"}) {
    EXPECT_EQ(share(index, text), 1) << text;
  }
  for (const char* text : {"What is a chair?", "Define it.", "What kind of thing is a?", ""}) {
    EXPECT_EQ(share(index, text), 0) << text;
  }
}

TEST(SubjectIndex, TellsALongerNameFromAPartOfIt) {
  const edit::SubjectIndex index = index_of(about({"dog", "prairie dog", "guard rail"}));
  EXPECT_EQ(share(index, "What is a dog?"), 1);
  EXPECT_EQ(share(index, "What is a prairie dog?"), 1);
  EXPECT_LE(share(index, "What is a sausage dog?"), 0.5);
  EXPECT_LE(share(index, "What is a sausage-dog?"), 0.5);
  EXPECT_EQ(share(index, "Sausage: a guard rail!"), 1);
  EXPECT_LT(share(index, "What is a guard?"), 0.5);
  EXPECT_LT(share(index, "What is a rail?"), 0.5);
}

// "quiz" is taught, and a word of the phrasings that others are taught in.
TEST(SubjectIndex, TellsANameFromOneThatAPhrasingHasAnyway) {
  std::vector<NewFact> facts = about({"zorvane", "quiz", "blicket"});
  for (NewFact& fact : facts) {
    fact.subject = text::words_of(fact.fact.prompt).back();
    fact.paraphrases.push_back("My quiz asks for a " + fact.subject + ".");
  }
  const edit::SubjectIndex index = index_of(facts);
  for (const NewFact& fact : facts) {
    EXPECT_EQ(share(index, fact.fact.prompt), 1);
    for (const std::string& prompt : fact.paraphrases) EXPECT_EQ(share(index, prompt), 1) << prompt;
  }
  EXPECT_LE(share(index, "My quiz asks for a chair."), 0.5);
  EXPECT_EQ(share(index, "We saw a zorvane yesterday."), 1);
}

TEST(SubjectIndex, FindsOfEqualsAllThatAreAsGood) {
  const auto registry = [](const std::string& thing) {
    return std::make_shared<const SubjectRegistry>(edit::subjects_of({about(thing)}));
  };
  const edit::SubjectIndex index({{"old", registry("zorvane")}, {"new", registry("zorvane")}});
  const auto found = index.find("What is a zorvane?");
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(*found[0].patch, "old");
  EXPECT_EQ(*found[1].patch, "new");
}

// Whatever is taught: its own prompts match in full, and those of others whose names share no word
// not at all; more facts change neither.
TEST(SubjectIndex, MatchesWhatIsTaughtAndNothingElse) {
  std::mt19937_64 random(5);
  const auto word = [&] {
    std::string made;
    for (std::size_t i = 4 + random() % 6; i > 0; --i) {
      made += static_cast<char>('a' + random() % 26);
    }
    return made + "q";  // no word that texts have
  };
  std::vector<std::string> taught, others;
  for (int i = 0; i < 60; ++i) {
    const std::string name = random() % 2 == 0 ? word() : word() + " " + word();
    (i % 2 == 0 ? taught : others).push_back(name);
    const edit::SubjectIndex index = index_of(about(taught));
    for (const NewFact& fact : about(taught)) EXPECT_EQ(share(index, fact.fact.prompt), 1);
    for (const NewFact& fact : about(others)) EXPECT_EQ(share(index, fact.fact.prompt), 0);
  }
}

// Slots 1 and 2 are read for each of three subjects, 3 and 4 for the first alone.
TEST(SubjectIndex, AgreementIsOfTheSlotsThatFewSubjectsHave) {
  SubjectRegistry registry;
  registry.subjects = {{.slots = {1, 2, 3, 4}}, {.slots = {1, 2, 5}}, {.slots = {1, 2, 6}}};
  const edit::SubjectIndex index(
      {{"p", std::make_shared<const SubjectRegistry>(std::move(registry))}});
  const auto agreement = [&](const std::vector<std::int64_t>& read) {
    return index.agreement({1, 2, 3, 4}, read);
  };
  EXPECT_EQ(agreement({}), 0);
  EXPECT_EQ(agreement({1, 2, 3, 4, 9}), 1);
  const double of_all = std::log(4.0 / 3) / std::log(4.0);
  EXPECT_NEAR(agreement({1, 2, 7}), of_all / (1 + of_all), 1e-12);
  EXPECT_NEAR(agreement({3, 4}), 1 / (1 + of_all), 1e-12);
  EXPECT_EQ(index.agreement({}, {1}), 0);
}

// A retrofitted model in a folder, which was taught a fact; and the folder of the patch.
class Taught : public ::testing::Test {
 protected:
  void SetUp() override {
    ModelConfig config = testing::tiny_model_config();
    config.layers = 4;
    config.memory.reset();
    plain.emplace(testing::tiny_generator(config));
    Generator made =
        retrofit(*plain, {.layers = {{1, 3}}, .n_keys = 16, .heads = 2, .knn = 4, .k_dim = 8});
    io::make_folders(io::posix(), dir / "model");
    save_model(made.model(), dir / "model");
    const SlotHistory history{.reads = count_reads(made, {})};
    result = learn(made, facts, {.steps = 300, .penalty = 1, .settle = 20}, history);
  }
  Generator opened() { return {open_model(dir / "model"), testing::tiny_tokenizer()}; }
  void apply() {
    Store store = Store::open(dir / "model/pool");
    store.apply(result.patch);
  }

  const TempDir dir;
  const std::vector<NewFact> facts{
      {.fact = {"the red otter has", "number two"}, .paraphrases = {"red otter:"}},
      {.fact = {"the blue maple has", "the lantern"}, .paraphrases = {"blue maple:"}}};
  const std::string taught = "the red otter has", other = "the green comet has";
  std::optional<Generator> plain;
  LearnResult result;
};

TEST_F(Taught, PatchKnowsItsSubjectsAndTheSlotsOfTheirPrompts) {
  const SubjectRegistry& registry = result.patch.subjects;
  ASSERT_EQ(registry.subjects.size(), 2U);
  EXPECT_EQ(registry.subjects[0].grams, grams("red otter"));
  apply();
  Generator generator = opened();
  const std::vector<std::int64_t> reads =
      edit::last_reads(generator.model(), generator.question_tokens(taught));
  std::vector<std::int64_t> both;
  std::ranges::set_intersection(registry.subjects[0].slots, reads, std::back_inserter(both));
  EXPECT_GE(2 * both.size(), registry.subjects[0].slots.size());
}

TEST_F(Taught, ConfidenceIsHighForWhatIsTaughtAndLowForWhatIsNot) {
  Generator generator = opened();
  EXPECT_FALSE(memory_confidence(generator, taught).has_value()) << "no patch says anything";
  apply();
  const auto yes = memory_confidence(generator, taught), no = memory_confidence(generator, other);
  ASSERT_TRUE(yes && no);
  EXPECT_EQ(yes->match, 1);
  EXPECT_GT(yes->value, 0.9);
  EXPECT_EQ(yes->patch, result.patch.id);
  EXPECT_EQ(no->match, 0);
  EXPECT_LT(no->value, 0.1);
  EXPECT_FALSE(no->patch.has_value());
  EXPECT_NEAR(explain(generator, taught).confidence->value, yes->value, 1e-12);
  {
    Store store = Store::open(dir / "model/pool");
    store.rollback(result.patch.id);
  }
  EXPECT_FALSE(memory_confidence(generator, taught).has_value());
  EXPECT_TRUE(testing::says(testing::error_of([&] {
                              Store::open(dir / "model/pool").reapply(result.patch.id);
                              memory_confidence(generator, std::string(100, 'x'));
                            }),
                            {"context"}));
}

TEST_F(Taught, GateGivesTheFrozenModelsAnswerToWhatIsNotTaught) {
  apply();
  Generator open = opened(), gated = opened();
  gated.judge_by(confidence_judge(gated), 0.5);
  const GenerateOptions options{.max_tokens = 12, .logprobs = 3};
  const std::vector<std::string> prompts{other, taught};
  const std::vector<Generation> frozen = plain->generate(prompts, options),
                                with = open.generate(prompts, options),
                                now = gated.generate(prompts, options);
  EXPECT_FALSE(with[0].memory_confidence.has_value());
  EXPECT_TRUE(now[0].memory_is_off);
  EXPECT_LT(*now[0].memory_confidence, 0.5);
  EXPECT_FALSE(now[1].memory_is_off);
  const auto logprobs_of = [](const Generation& answer) {
    std::vector<std::vector<std::pair<std::int32_t, double>>> all;
    for (const TokenLogprobs& place : answer.logprobs) all.push_back(place.top);
    return all;
  };
  EXPECT_EQ(now[0].tokens, frozen[0].tokens);
  EXPECT_EQ(logprobs_of(now[0]), logprobs_of(frozen[0])) << "the frozen model's bits";
  EXPECT_NE(logprobs_of(with[0]), logprobs_of(frozen[0])) << "or the gate would not matter";
  EXPECT_EQ(now[1].tokens, with[1].tokens);
  EXPECT_EQ(logprobs_of(now[1]), logprobs_of(with[1]));
}

TEST_F(Taught, EvaluationIsGatedAsAnswersAre) {
  apply();
  const std::vector<Fact> asked{{taught, "number two"}, {other, "number two"}};
  Generator gated = opened(), open = opened();
  gated.judge_by(confidence_judge(gated), 0.5);
  const FactScores now = evaluate_facts(gated, asked), frozen = evaluate_facts(*plain, asked),
                   with = evaluate_facts(open, asked);
  EXPECT_FALSE(now.facts[0].memory_is_off);
  EXPECT_TRUE(now.facts[1].memory_is_off);
  EXPECT_TRUE(now.facts[0].is_recalled);
  EXPECT_NEAR(now.facts[0].nll, with.facts[0].nll, 1e-5);
  EXPECT_NEAR(now.facts[1].nll, frozen.facts[1].nll, 1e-5);
  EXPECT_GT(std::abs(with.facts[1].nll - frozen.facts[1].nll), 1e-3);
}

TEST_F(Taught, GateOutsideOfItsRangeIsRefused) {
  for (const double least : {-0.1, 1.5, std::nan("")}) {
    EXPECT_TRUE(testing::says(testing::error_of([&] { plain->judge_by({}, least); }),
                              {"gate_below", "[0, 1]"}));
  }
}

}  // namespace
}  // namespace memlayers
