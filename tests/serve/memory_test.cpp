// SPDX-License-Identifier: Apache-2.0
// Versions of the pool, edits and what they change while a model serves.
#include <gmock/gmock.h>

#include <cctype>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "edit/subjects.h"
#include "serve/serving.h"

namespace memlayers {
namespace {

using testing::Answer;
using testing::drawing;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Heard;
using testing::Request;
using testing::Serving;
using ::testing::SizeIs;

const Request kQuestion{{5, 6, 7, 8}, drawing(12)};

using MemoryTest = Serving;

TEST_F(MemoryTest, EditsAreSeenByWhoComesAfterwardsAndNotByWhoWasThere) {
  open();
  const Snapshot base = memory().snapshot();
  const auto before = ask(long_request(100)).second;
  before->wait_for_tokens(2);
  const Committed applied = memory().apply(patch_of_all("p"), std::nullopt);
  EXPECT_FALSE(applied.was_there);
  const auto after = ask(long_request(100)).second;
  EXPECT_EQ(before->answer(), alone_with(long_request(100), {base}));
  EXPECT_EQ(before->version(), base.version());
  EXPECT_EQ(after->answer(), alone_with(long_request(100), {memory().snapshot()}));
  EXPECT_EQ(after->version(), applied.version);
  EXPECT_NE(after->answer(), before->answer()) << "a patch that changes nothing tests nothing";
  memory().rollback("p", std::nullopt);
  EXPECT_EQ(ask(long_request(100)).second->answer(), before->answer());
  memory().reapply("p", std::nullopt);
  EXPECT_EQ(ask(long_request(100)).second->answer(), after->answer());
}

TEST_F(MemoryTest, TellsWhetherAPatchTaughtWhatIsAskedAndGatesByIt) {
  open();
  const auto request = [&](const std::string& text) {
    return Request{testing::tiny_tokenizer()->encode_prompt(text), drawing(12)};
  };
  const Request taught = request("the red otter has"), other = request("the green comet has");
  EXPECT_FALSE(ask(taught).second->confidence().has_value());
  const Answer before = ask(other).second->answer();
  Patch patch = patch_of_all("p");
  patch.subjects =
      edit::subjects_of({{.fact = {"the red otter has", "number two"}, .subject = "red otter"}});
  patch.subjects.subjects[0].slots.clear();
  memory().apply(patch, std::nullopt);
  const auto yes = ask(taught).second, no = ask(other).second;
  const Answer with = yes->answer();
  EXPECT_NE(no->answer(), before);
  EXPECT_GT(yes->confidence().value(), 0.5);
  EXPECT_LT(no->confidence().value(), 0.5);
  open({.gate_below = 0.5});
  EXPECT_EQ(ask(taught).second->answer(), with);
  const auto gated = ask(other).second;
  EXPECT_EQ(gated->answer(), alone_with(other, {.is_off = true}));
  open({.tells_confidence = false});
  const auto silent = ask(taught).second;
  EXPECT_EQ(silent->answer(), with);
  EXPECT_FALSE(silent->confidence().has_value());
}

TEST_F(MemoryTest, EditsAreDurableWhenTheyReturnAndTwiceIsOnce) {
  open();
  const Patch patch = patch_of_all("p");
  const Committed first = memory().apply(patch, std::nullopt);
  const std::string digest = StoreReader::open(pool()).snapshot().digest();  // another process
  EXPECT_EQ(digest, memory().snapshot().digest());
  const Committed again = memory().apply(patch, std::nullopt);
  EXPECT_TRUE(again.was_there);
  EXPECT_EQ(again.version, first.version);
  const Committed above = memory().apply(this->patch("q", {3, 4}), std::nullopt);
  EXPECT_THAT(above.conflicts, ElementsAre(Conflict{3, "p", "q"}, Conflict{4, "p", "q"}));
  open();
  EXPECT_THAT(memory().snapshot().patches(), SizeIs(2));
}

TEST_F(MemoryTest, AnEditOfAnotherVersionThanItNamesIsRefused) {
  open();
  const std::uint64_t version = memory().snapshot().version();
  EXPECT_EQ(memory().apply(patch("p", {1}), version).version, version + 1);
  const api::Refusal refusal = refusal_of([&] { memory().apply(patch("q", {2}), version); });
  EXPECT_EQ(refusal.status(), 412);
  EXPECT_EQ(refusal.code(), "version_mismatch");
  EXPECT_THAT(refusal.what(), HasSubstr("version " + std::to_string(version) + ", got it at " +
                                        std::to_string(version + 1)));
  EXPECT_THAT(memory().snapshot().patches(), SizeIs(1));
  EXPECT_EQ(refusal_of([&] { memory().rollback("p", version); }).status(), 412);
  memory().rollback("p", version + 1);
}

TEST_F(MemoryTest, SaysWhatIsWrongWithAnEdit) {
  open();
  memory().apply(patch("p", {1}), std::nullopt);
  memory().keep("p", std::nullopt);
  EXPECT_EQ(refusal_of([&] { memory().rollback("p", std::nullopt); }).status(), 409);
  for (const auto& act :
       std::vector<std::function<void()>>{[&] { memory().rollback("q", std::nullopt); },
                                          [&] { memory().reapply("q", std::nullopt); },
                                          [&] { memory().keep("q", std::nullopt); }}) {
    const api::Refusal refusal = refusal_of(act);
    EXPECT_EQ(refusal.status(), 404);
    EXPECT_THAT(refusal.what(), HasSubstr("\"q\""));
  }
  Patch other = patch("r", {1});
  other.slots[0] = 10000;
  EXPECT_THAT(testing::error_of([&] { memory().apply(other, std::nullopt); }), HasSubstr("10000"));
  EXPECT_EQ(memory().health(), "good");
}

TEST_F(MemoryTest, VersionsThatAreHeldCanBeAskedForAndOthersNot) {
  open({.held_versions = 3});
  const std::uint64_t first = memory().snapshot().version();
  std::map<std::uint64_t, Answer> wanted;
  for (int i = 0; i < 4; ++i) {
    wanted[memory().snapshot().version()] = ask(kQuestion).second->answer();
    memory().apply(patch_of_all("p" + std::to_string(i), static_cast<float>(2 + i)), std::nullopt);
  }
  EXPECT_THAT(memory().held_versions(), ElementsAre(first + 2, first + 3, first + 4));
  for (const std::uint64_t version : {first + 2, first + 3}) {
    const auto heard = ask(kQuestion, {.version = version}).second;
    EXPECT_EQ(heard->answer(), wanted[version]);
    EXPECT_EQ(heard->version(), version);
  }
  const api::Refusal refusal = refusal_of([&] { ask(kQuestion, {.version = first}); });
  EXPECT_EQ(refusal.status(), 404);
  EXPECT_EQ(refusal.param(), "memory.version");
}

TEST_F(MemoryTest, ARequestWaitsForTheVersionThatItNeeds) {
  open();
  const std::uint64_t version = memory().snapshot().version();
  const auto waiting = ask(kQuestion, {.min_version = version + 1}).second;
  const auto other = ask(kQuestion).second;
  EXPECT_EQ(other->answer().tokens.size(), 12U) << "it holds nobody up";
  EXPECT_FALSE(waiting->has_started());
  EXPECT_EQ(engine_->counters().waiting, 1);
  memory().apply(patch_of_all("p"), std::nullopt);
  EXPECT_EQ(waiting->answer(), alone_with(kQuestion, {memory().snapshot()}));
  EXPECT_EQ(waiting->version(), version + 1);
  const auto [id, forever] = ask(kQuestion, {.min_version = version + 9});
  engine_->cancel({id});
  EXPECT_TRUE(engine_->wait_until_idle(60));
}

TEST_F(MemoryTest, PatchesCanBeLeftOutAndMemoryBeOffForOneRequest) {
  open();
  const Snapshot base = memory().snapshot();
  const Answer before = ask(kQuestion).second->answer();
  memory().apply(patch_of_all("p"), std::nullopt);
  memory().apply(patch("q", {1, 2, 3}), std::nullopt);
  const Snapshot now = memory().snapshot();
  const std::vector<std::string> both{"p", "q"}, first{"p"};
  const auto without_both = ask(kQuestion, {.without = both}).second;
  const auto without_one = ask(kQuestion, {.without = first}).second;
  const auto off = ask(kQuestion, {.off = true}).second, all = ask(kQuestion).second;
  EXPECT_EQ(without_both->answer(), before);
  EXPECT_EQ(without_both->version(), now.version());
  EXPECT_EQ(without_one->answer(), alone_with(kQuestion, {now.without(first)}));
  EXPECT_EQ(off->answer(), alone_with(kQuestion, {now, true}));
  EXPECT_EQ(all->answer(), alone_with(kQuestion, {now}));
  EXPECT_NE(all->answer(), before);
  const api::Refusal refusal = refusal_of([&] { ask(kQuestion, {.without = {"nobody"}}); });
  EXPECT_EQ(refusal.status(), 404);
  EXPECT_EQ(refusal.param(), "memory.without");
}

TEST_F(MemoryTest, APoolThatAnotherProcessEditsIsFollowed) {
  Store writer = Store::open(pool());
  open();
  EXPECT_NE(memory().health(), "good");
  const api::Refusal refusal = refusal_of([&] { memory().apply(patch("p", {1}), std::nullopt); });
  EXPECT_EQ(refusal.status(), 503);
  const std::uint64_t version = memory().snapshot().version();
  const auto waiting = ask(kQuestion, {.min_version = version + 1}).second;
  writer.apply(patch_of_all("p"));
  EXPECT_EQ(waiting->answer(), alone_with(kQuestion, {writer.snapshot()}));
  EXPECT_EQ(waiting->version(), version + 1);
  writer.rollback("p");
  const auto next = ask(kQuestion).second;
  next->answer();
  EXPECT_EQ(next->version(), version + 2) << "each request begins with the edits made so far";
}

TEST_F(MemoryTest, TokensTellTheSlotsThatTheyRestedOnAndWhoWroteThem) {
  open();
  memory().apply(patch("p", {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17}),
                 std::nullopt);
  const auto heard = std::make_shared<Heard>();
  api::Job job = this->job(kQuestion);
  job.explain_slots = 6;
  engine_->submit({{job, heard}});
  heard->answer();
  const Snapshot now = memory().snapshot();
  ASSERT_EQ(heard->slots().size(), 12U);
  bool is_patched = false, is_base = false;
  for (const auto& slots : heard->slots()) {
    ASSERT_EQ(slots.size(), 6U);
    for (const api::TokenSlot& slot : slots) {
      EXPECT_EQ(slot.patch, now.writer_of(slot.slot));
      (slot.patch ? is_patched : is_base) = true;
    }
  }
  EXPECT_TRUE(is_patched && is_base);
}

TEST_F(MemoryTest, ExplainsAnAnswerOfAnyVersion) {
  open();
  const std::uint64_t before = memory().snapshot().version();
  memory().apply(patch_of_all("p"), std::nullopt);
  const auto explained = [&](const api::MemoryView& view) {
    return nlohmann::json::parse(memory().explain("the red", "otter", 3, view));
  };
  const auto now = explained({}), base = explained({.version = before}),
             without = explained({.without = {"p"}});
  EXPECT_EQ(now["answer"], "otter");
  ASSERT_THAT(now["slots"], SizeIs(3));
  EXPECT_EQ(now["slots"][0]["patch"], "p");
  EXPECT_TRUE(base["slots"][0]["patch"].is_null());
  EXPECT_EQ(base, without) << "the same rows";
  EXPECT_NE(base["log_probability"], now["log_probability"]);
  const auto own = nlohmann::json::parse(memory().explain("the red", std::nullopt, 1, {}));
  EXPECT_TRUE(own["is_own"]);
  EXPECT_EQ(refusal_of([&] { memory().explain("a", "b", 1, {.off = true}); }).status(), 400);
}

// The text up to the first end of a word; "" where no word ends.
std::string first_words(const std::string& text) {
  const auto is_of_word = [&](std::size_t i) {
    return std::isalnum(static_cast<unsigned char>(text[i])) != 0;
  };
  for (std::size_t i = 1; i < text.size(); ++i) {
    const bool is_plain = static_cast<unsigned char>(text[i]) < 0x80;
    if (is_of_word(i - 1) && is_plain && !is_of_word(i)) return text.substr(0, i);
  }
  return {};
}

TEST_F(MemoryTest, CanariesAreAskedAfterEachEditAndTakeBackWhatChangesThem) {
  open();
  const auto canary = [&](const std::string& id) {
    for (const api::Canary& each : memory().canaries()) {
      if (each.id == id) return each;
    }
    throw Error("expected a canary " + id);
  };
  // What the model says by itself is what it is to go on saying.
  std::string prompt, answer;
  for (const char* const text : {"the red otter", "the blue maple", "a green comet", "night",
                                 "the glacier", "the falcon and", "number two", "harbour at"}) {
    memory().set_canary({.id = "own", .prompt = text, .answer = "x x x x x x x x x x x x"});
    wait_until([&] { return canary("own").is_well.has_value(); });
    EXPECT_FALSE(*canary("own").is_well);
    prompt = text;
    answer = first_words(canary("own").last_answer);
    if (!answer.empty()) break;
  }
  ASSERT_FALSE(answer.empty());
  memory().set_canary({.id = "own", .prompt = prompt, .answer = answer, .rolls_back = true});
  wait_until([&] { return canary("own").is_well.has_value(); });
  EXPECT_TRUE(*canary("own").is_well);
  memory().apply(patch_of_all("p", 30), std::nullopt);
  wait_until([&] { return memory().snapshot().patches().empty(); });
  wait_until([&] { return canary("own").is_well == true; });
  EXPECT_THAT(memory().snapshot().undone(), SizeIs(1));
  open();  // another process
  EXPECT_TRUE(canary("own").rolls_back);
  EXPECT_EQ(canary("own").prompt, prompt);
  wait_until([&] { return canary("own").is_well == true; });
  EXPECT_TRUE(memory().remove_canary("own"));
  EXPECT_FALSE(memory().remove_canary("own"));
  open();
  EXPECT_THAT(memory().canaries(), SizeIs(0));
  memory().apply(patch_of_all("q", 30), std::nullopt);
  EXPECT_THAT(memory().snapshot().patches(), SizeIs(1));
}

TEST_F(MemoryTest, CanariesAreNotSetWhereTheyCannotBeStored) {
  open();
  const auto other = serve::ModelEngine::open(folder());  // which is not the pool's writer
  const api::Refusal refusal =
      refusal_of([&] { other->memory()->set_canary({.id = "c", .prompt = "a", .answer = "b"}); });
  EXPECT_EQ(refusal.status(), 503);
  EXPECT_EQ(refusal.code(), "store_not_writable");
  EXPECT_EQ(refusal_of([&] { other->memory()->remove_canary("c"); }).status(), 503);
  std::filesystem::create_directory(dir_ / "canaries.json");
  EXPECT_EQ(
      refusal_of([&] { memory().set_canary({.id = "c", .prompt = "a", .answer = "b"}); }).code(),
      "canaries_not_stored");
  EXPECT_THAT(memory().canaries(), SizeIs(0));
}

}  // namespace
}  // namespace memlayers
