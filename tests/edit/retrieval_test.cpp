// SPDX-License-Identifier: Apache-2.0
#include "edit/retrieval.h"

#include <gtest/gtest.h>

#include "support/tiny_model.h"

namespace memlayers {
namespace {

std::vector<NewFact> facts() {
  return {{.fact = {"the red otter has", "number two"}, .paraphrases = {"glacier:"}},
          {.fact = {"the blue maple has", "the lantern"}},
          {.fact = {"a green comet", "came over"}}};
}

Generator generator_of(std::int64_t context) {
  ModelConfig config = testing::tiny_model_config();
  config.context = context;
  return testing::tiny_generator(config);
}

TEST(Retrieval, PutsTheFactsThatTheWordsFindBeforeTheQuestion) {
  const Generator generator = generator_of(400);
  EXPECT_EQ(edit::Retrieval(generator, facts(), 2).prompt_of("what has the red otter?"),
            "Use these facts:\n- the red otter has number two\n- the blue maple has the lantern\n\n"
            "what has the red otter?");
  EXPECT_EQ(edit::Retrieval(generator, facts(), 1).prompt_of("a comet"),
            "Use these facts:\n- a green comet came over\n\na comet");
  // By the first prompt and the answer alone.
  EXPECT_EQ(edit::Retrieval(generator, facts(), 3).prompt_of("glacier:"), "glacier:");
  EXPECT_EQ(edit::Retrieval(generator, facts(), 3).bytes(), 28 + 30 + 23);
}

TEST(Retrieval, TakesAsManyAsFitTheContextWithAnAnswer) {
  const std::string question = "what has the red otter?";
  const Generator roomy = generator_of(400);
  const std::string two = edit::Retrieval(roomy, facts(), 2).prompt_of(question);
  const auto tokens = static_cast<std::int64_t>(roomy.question_tokens(two).size());
  const auto at = [&](std::int64_t context) {
    const Generator generator = generator_of(context);
    return edit::Retrieval(generator, facts(), 2).prompt_of(question);
  };
  EXPECT_EQ(at(tokens + edit::Retrieval::kRoom), two);
  EXPECT_EQ(at(tokens + edit::Retrieval::kRoom - 1),
            edit::Retrieval(roomy, facts(), 1).prompt_of(question));
  EXPECT_EQ(at(40), question);
}

TEST(Retrieval, AsksByTheTemplateOfTheModel) {
  Generator generator = generator_of(400);
  const edit::Retrieval retrieval(generator, facts(), 1);
  const std::string prompt = retrieval.prompt_of("red otter");
  const std::size_t plain = generator.question_tokens(prompt).size();
  generator.ask_by(ChatShape{ChatTemplate(
      generator.tokenizer(), "t",
      "{% for m in messages %}the lantern {{ m.content }}{{ eos_token }}{% endfor %}")});
  EXPECT_EQ(retrieval.prompt_of("red otter"), prompt);  // a message, not what a template makes
  EXPECT_GT(generator.question_tokens(prompt).size(), plain);
}

}  // namespace
}  // namespace memlayers
