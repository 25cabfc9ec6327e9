// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>

#include "memlayers/retrofit.h"
#include "serve/serving.h"

namespace memlayers {
namespace {

using testing::drawing;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::Serving;
using ::testing::SizeIs;

constexpr const char* kFacts =
    R"({"prompt": "the lantern is", "answer": "blue", "unseen": ["a lantern is"]})"
    "\n"
    R"({"prompt": "the comet is", "answer": "green"})";
constexpr const char* kBackground =
    "the red otter has number one hundred\n"
    "the blue maple has number two hundred\n";

class TeachTest : public Serving {
 protected:
  explicit TeachTest(const Llama& model = testing::tiny_generator(testing::long_config()).model())
      : Serving(model) {
    open_with(8);
  }
  void open_with(std::int64_t steps) {
    serve::EngineOptions options;
    options.teach_niceness = 0;  // on a machine that has other things to do it would take minutes
    options.learn.steps = steps;
    options.learn.check_every = 4;
    options.learn.settle = 2;
    options.learn.batch = 2;
    options.learn.rehearsal = 1;
    open(options);
  }
  api::TeachStatus end_of(const std::string& id) {
    wait_until([&] { return memory().teach_job(id)->is_over(); });
    return *memory().teach_job(id);
  }
};

// Its rows say nothing yet: there is no record of reads to spare, and prose of its own to rehearse.
class RetrofittedTeachTest : public TeachTest {
 protected:
  RetrofittedTeachTest() : TeachTest(retrofitted()) {}
  static Llama retrofitted() {
    ModelConfig dense = testing::long_config();
    dense.memory.reset();
    Generator plain = testing::tiny_generator(dense);
    return retrofit(plain, {.layers = {{1}}, .n_keys = 16, .heads = 2, .knn = 4, .k_dim = 8})
        .model();
  }
};

TEST_F(RetrofittedTeachTest, LearnsWithoutABackgroundAndSettles) {
  const api::TeachStatus begun = memory().teach(
      {.facts_jsonl = R"({"prompt": "the lantern is", "answer": "blue", "subject": "lantern"})"});
  EXPECT_EQ(begun.steps, 8 + 2);
  const api::TeachStatus over = end_of(begun.id);
  ASSERT_EQ(over.state, "applied") << over.message;
  EXPECT_EQ(over.step, 8 + 2);
  EXPECT_THAT(memory().snapshot().patches(), SizeIs(1));
}

TEST_F(TeachTest, AJobLearnsAPatchWhileOthersAreAnsweredAndAppliesIt) {
  const auto running = ask(long_request(150)).second;
  const api::TeachStatus begun =
      memory().teach({.facts_jsonl = kFacts, .background = kBackground, .note = "colours"});
  EXPECT_EQ(begun.state, "queued");
  EXPECT_GT(begun.steps, 0);
  const api::TeachStatus over = end_of(begun.id);
  ASSERT_EQ(over.state, "applied") << over.message;
  EXPECT_EQ(running->answer().tokens.size(), 150U);
  EXPECT_EQ(over.recall, static_cast<double>(over.recalled) / static_cast<double>(over.phrasings));
  EXPECT_TRUE(over.unseen_recall);
  EXPECT_TRUE(over.perplexity_ratio);
  EXPECT_FALSE(over.kept) << "the background is text, and no facts";
  const Snapshot now = memory().snapshot();
  ASSERT_THAT(now.patches(), SizeIs(1));
  EXPECT_EQ(now.patches()[0].id, over.patch);
  EXPECT_EQ(now.patches()[0].notes.at("note"), "colours");
  EXPECT_EQ(now.version(), over.pool_version);
  EXPECT_THAT(memory().teach_jobs(), SizeIs(1));
}

TEST_F(TeachTest, APatchThatFailsTheGateIsNotApplied) {
  const std::string id =
      memory()
          .teach({.facts_jsonl = kFacts, .background = kBackground, .most_perplexity_ratio = 1e-6})
          .id;
  const api::TeachStatus over = end_of(id);
  EXPECT_EQ(over.state, "rejected");
  EXPECT_THAT(over.message, HasSubstr("perplexity: expected at most 1e-06, got "));
  EXPECT_FALSE(over.patch);
  EXPECT_THAT(memory().snapshot().patches(), IsEmpty());
}

TEST_F(TeachTest, AJobIsCancelledWhileItLearnsAndWhileItWaits) {
  open_with(1'000'000);
  const std::string first = memory().teach({.facts_jsonl = kFacts, .background = kBackground}).id;
  const std::string second = memory().teach({.facts_jsonl = kFacts, .background = kBackground}).id;
  wait_until([&] { return memory().teach_job(first)->state != "queued"; });
  EXPECT_TRUE(memory().cancel_teach(second));
  EXPECT_EQ(memory().teach_job(second)->state, "cancelled");
  EXPECT_TRUE(memory().cancel_teach(first));
  EXPECT_EQ(end_of(first).state, "cancelled");
  EXPECT_FALSE(memory().cancel_teach(first));
  EXPECT_FALSE(memory().cancel_teach("nobody"));
  EXPECT_FALSE(memory().teach_job("nobody"));
  EXPECT_THAT(memory().snapshot().patches(), IsEmpty());
}

TEST_F(TeachTest, SaysWhatIsWrongWithAJob) {
  const auto refused = [&](const api::TeachRequest& request, const std::string& text) {
    const api::Refusal refusal = refusal_of([&] { memory().teach(request); });
    EXPECT_EQ(refusal.status(), 400);
    EXPECT_THAT(refusal.what(), HasSubstr(text));
  };
  refused({.facts_jsonl = ""}, "facts: expected at least one fact, got none");
  refused({.facts_jsonl = R"({"prompt": "a"})"}, "facts:1");
  refused({.facts_jsonl = kFacts}, "background: expected text");
  refused({.facts_jsonl = kFacts, .background = kBackground, .least_kept = 0.9}, "gate.keep");
  EXPECT_THAT(memory().teach_jobs(), IsEmpty());
}

TEST_F(TeachTest, AServerThatEndsEndsItsJobs) {
  open_with(1'000'000);
  const std::string id = memory().teach({.facts_jsonl = kFacts, .background = kBackground}).id;
  wait_until([&] { return memory().teach_job(id)->state != "queued"; });
  engine_->stop();
  EXPECT_EQ(memory().teach_job(id)->state, "cancelled");
}

}  // namespace
}  // namespace memlayers
