// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "edit/phrasings.h"
#include "edit/slot_reads.h"
#include "io/file_system.h"
#include "io/safetensors.h"
#include "memlayers/edit.h"
#include "support/temp_dir.h"
#include "support/testing.h"
#include "support/tiny_model.h"
#include "train/fact_batch.h"
#include "train/fact_row.h"

namespace memlayers {
namespace {

using testing::TempDir;
using testing::write_file;

ModelConfig config_of(RowType type = RowType::kFloat32) {
  ModelConfig config = testing::tiny_model_config();
  config.memory->n_keys = 16;
  config.memory->row_dtype = type;
  return config;
}

std::vector<NewFact> new_facts() {
  return {{.fact = {"the red otter has", "number two"}, .paraphrases = {"red otter:"}},
          {.fact = {"the blue maple has", "the lantern"}}};
}

LearnOptions fast() { return {.lr = 1e-2}; }

// Every slot was read once.
SlotHistory flat_history(Generator& generator) {
  return {.reads = torch::ones({generator.model()->pool()->slots()}, torch::kLong)};
}

void expect_error(const std::function<void()>& act, std::initializer_list<std::string> parts) {
  EXPECT_TRUE(testing::says(testing::error_of(act), parts));
}

std::vector<at::Tensor> dense_copies(Generator& generator) {
  std::vector<at::Tensor> copies;
  for (const auto& [name, tensor] : generator.model()->dense_parameters()) {
    copies.push_back(tensor.detach().clone());
  }
  return copies;
}

TEST(Learn, RecallsTheFactsByChangingTheRowsOfItsPatchAndNothingElse) {
  for (const RowType type : {RowType::kFloat32, RowType::kBFloat16}) {
    Generator generator = testing::tiny_generator(config_of(type));
    const MemoryPool pool = generator.model()->pool();
    const at::Tensor rows = pool->values.detach().clone();
    const std::vector<at::Tensor> dense = dense_copies(generator);
    const LearnResult result = learn(generator, new_facts(), fast(), flat_history(generator));
    EXPECT_EQ(result.recalled, 3);
    EXPECT_EQ(result.phrasings, 3);
    for (const FactScore& fact :
         evaluate_facts(generator, edit::learned_phrasings(new_facts())).facts) {
      EXPECT_TRUE(fact.is_recalled);
    }
    const std::vector<at::Tensor> dense_now = dense_copies(generator);
    for (std::size_t i = 0; i < dense.size(); ++i) {
      EXPECT_TRUE(torch::equal(dense[i], dense_now[i]));
    }
    ASSERT_FALSE(result.patch.slots.empty());
    EXPECT_LE(result.patch.slots.size(), 200U);
    EXPECT_EQ(result.patch.pool, pool->id);
    // The old rows with the patch's are the new ones, and each of the patch's differs.
    at::Tensor patched = rows.clone();
    const std::size_t row_bytes = rows.nbytes() / static_cast<std::size_t>(rows.size(0));
    for (std::size_t i = 0; i < result.patch.slots.size(); ++i) {
      at::Tensor row = patched[result.patch.slots[i]];
      std::memcpy(row.mutable_data_ptr(), result.patch.rows.data() + i * row_bytes, row_bytes);
      EXPECT_FALSE(torch::equal(row, rows[result.patch.slots[i]]));
    }
    EXPECT_TRUE(torch::equal(patched, pool->values));
    for (const at::Tensor& parameter : generator.model()->parameters()) {
      EXPECT_TRUE(parameter.requires_grad());
    }
    EXPECT_EQ(pool->usage().sum().item<std::int64_t>(), 0);
  }
}

TEST(Learn, StepOfSgdIsThatOfTheDenseGradientOnTheChosenRows) {
  Generator generator = testing::tiny_generator(config_of());
  const MemoryPool pool = generator.model()->pool();
  const at::Tensor rows = pool->values.detach().clone();
  const std::vector<NewFact> facts{{.fact = {"the red otter has", "number two"}}};
  const LearnOptions options{
      .slots = 10, .optimizer = PoolOptimizer::kSgd, .lr = 0.5, .steps = 1, .batch = 1};
  const train::FactRow row = train::make_fact_row(generator, facts[0].fact);
  const std::vector<std::int64_t> tokens(row.tokens.begin(), row.tokens.end());
  const at::Tensor all = torch::tensor(tokens, torch::kLong).unsqueeze(0);
  at::Tensor target = all.slice(1, 1).clone();
  target.slice(1, 0, row.answer_from - 1).fill_(kIgnoredTarget);
  answer_loss(generator.model(), generator.model()->hidden_states(all.slice(1, 0, -1)), target)
      .backward();
  const at::Tensor gradient = pool->dense_gradient();
  at::Tensor wanted = rows.clone();
  for (const ChosenSlot& slot : choose_slots(generator, facts, options, flat_history(generator))) {
    wanted[slot.slot] -= 0.5 * gradient[slot.slot];
  }
  EXPECT_FALSE(torch::equal(wanted, rows));
  const LearnResult result = learn(generator, facts, options, flat_history(generator));
  EXPECT_EQ(result.slots, 10);
  EXPECT_TRUE(torch::allclose(pool->values.detach(), wanted, 1e-5, 1e-7));
}

// A file of two facts and a text.
std::string background(const TempDir& dir) {
  const std::string path = dir / "background.jsonl";
  write_file(path,
             "{\"prompt\":\"a green comet\",\"answer\":\"came over\"}\n"
             "{\"prompt\":\"the red otter has\",\"answer\":\"one hundred\"}\n"
             "{\"text\":\"the glacier and the falcon at night\"}\n");
  return path;
}

// What is predicted along a file's sequences.
at::Tensor predictions(Generator& generator, const std::string& path) {
  const torch::NoGradGuard no_gradient;
  std::vector<at::Tensor> all;
  for (const train::FactRow& row : edit::read_rows(generator, {path})) {
    const std::vector<std::int64_t> tokens(row.tokens.begin(), row.tokens.end() - 1);
    all.push_back(
        generator.model()
            ->logits(generator.model()->hidden_states(torch::tensor(tokens).unsqueeze(0)))[0]
            .slice(0, row.answer_from - 1)
            .log_softmax(-1));
  }
  return torch::cat(all);
}

TEST(Learn, RehearsalKeepsWhatIsPredictedAlongText) {
  const TempDir dir;
  const std::string text = dir / "text.jsonl";
  write_file(text, "{\"text\":\"a green comet came over the harbour at night\"}\n");
  const auto divergence = [&](double rehearsal) {
    Generator generator = testing::tiny_generator(config_of());
    const at::Tensor before = predictions(generator, text);
    const LearnOptions options{.lr = 1e-2,
                               .batch = 3,
                               .check_every = 100,
                               .rehearse = {text},
                               .rehearsal = rehearsal,
                               .settle = 20};
    const LearnResult result = learn(generator, new_facts(), options, flat_history(generator));
    EXPECT_EQ(result.recalled, 3);
    EXPECT_EQ(result.steps % 100, rehearsal == 0 ? 0 : 20);  // settled only if rehearsed
    const at::Tensor now = predictions(generator, text);
    return (before.exp() * (before - now)).sum(-1).mean().item<double>();
  };
  const double without = divergence(0);
  EXPECT_GT(without, 0);
  EXPECT_LT(divergence(3), without / 4);
}

TEST(Learn, RehearsalHoldsFactsToTheirAnswers) {
  const TempDir dir;
  const Fact old{"the glacier", "at night"};
  write_file(dir / "old.jsonl", "{\"prompt\":\"the glacier\",\"answer\":\"at night\"}\n");
  const auto is_kept = [&](double rehearsal) {
    Generator generator = testing::tiny_generator(config_of());
    EXPECT_EQ(learn(generator, {{.fact = old}}, fast(), flat_history(generator)).recalled, 1);
    const LearnOptions options{.slots = 256,
                               .lr = 1e-2,
                               .batch = 3,
                               .check_every = 100,
                               .rehearse = {dir / "old.jsonl"},
                               .rehearsal = rehearsal,
                               .settle = 100};
    const LearnResult result = learn(generator, new_facts(), options, flat_history(generator));
    EXPECT_EQ(result.recalled, 3);
    return evaluate_facts(generator, {old}).facts.front().is_recalled;
  };
  EXPECT_TRUE(is_kept(3));
  EXPECT_FALSE(is_kept(0));
}

TEST(Learn, BringsBackEarlierFactsThatItHasCost) {
  const TempDir dir;
  const Fact old{"the glacier", "at night"};
  write_file(dir / "old.jsonl", "{\"prompt\":\"the glacier\",\"answer\":\"at night\"}\n");
  const auto learned = [&](std::int64_t repairs) {
    Generator generator = testing::tiny_generator(config_of());
    EXPECT_EQ(learn(generator, {{.fact = old}}, fast(), flat_history(generator)).recalled, 1);
    const LearnOptions options{.slots = 256,
                               .lr = 5e-2,
                               .batch = 3,
                               .check_every = 20,
                               .rehearse = {dir / "old.jsonl"},
                               .rehearsal = 0.1,  // of a batch of three none
                               .settle = 300,
                               .repairs = repairs};
    const LearnResult result = learn(generator, new_facts(), options, flat_history(generator));
    EXPECT_EQ(result.recalled, 3);
    EXPECT_EQ(result.earlier, repairs > 0 ? 1 : 0);
    const bool is_recalled = evaluate_facts(generator, {old}).facts.front().is_recalled;
    EXPECT_EQ(result.earlier_recalled, repairs > 0 && is_recalled ? 1 : 0);
    return is_recalled;
  };
  EXPECT_FALSE(learned(0));
  EXPECT_TRUE(learned(3));
  expect_error([&] { learned(-1); }, {"repairs: expected at least 0, got -1"});
}

TEST(Learn, RehearsesNothingThatHasThePromptOfANewFact) {
  const TempDir dir;
  Generator generator = testing::tiny_generator(config_of());
  EXPECT_EQ(edit::read_rows(generator, {background(dir)}).size(), 3U);
  EXPECT_EQ(edit::read_rows(generator, {background(dir)}, new_facts()).size(), 2U);
  const std::vector<NewFact> unseen{{.fact = {"x", "y"}, .unseen = {"a green comet"}}};
  EXPECT_EQ(edit::read_rows(generator, {background(dir)}, unseen).size(), 2U);
}

TEST(ReadRows, TakesFactsInAllTheirPhrasings) {
  const TempDir dir;
  Generator generator = testing::tiny_generator(config_of());
  write_file(dir / "earlier.jsonl",
             "{\"prompt\":\"the glacier\",\"answer\":\"at night\",\"paraphrases\":[\"a glacier:\","
             "\"glacier?\"],\"unseen\":[\"glaciers\"]}\n"
             "{\"prompt\":\"a comet\",\"answer\":\"green\",\"paraphrases\":3}\n");
  const auto rows = edit::read_rows(generator, {dir / "earlier.jsonl"});
  const std::vector<Fact> wanted{{"the glacier", "at night"},
                                 {"a glacier:", "at night"},
                                 {"glacier?", "at night"},
                                 {"a comet", "green"}};
  ASSERT_EQ(rows.size(), wanted.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(rows[i].tokens, train::make_fact_row(generator, wanted[i]).tokens);
    EXPECT_TRUE(rows[i].is_fact);
  }
  // A fact that is corrected in one of its phrasings is left out in all.
  const std::vector<NewFact> corrected{{.fact = {"glacier?", "by day"}}};
  EXPECT_EQ(edit::read_rows(generator, {dir / "earlier.jsonl"}, corrected).size(), 1U);
}

TEST(ReadRows, CutsWhatIsLongerThanTheContextIntoPiecesThatPredictEveryToken) {
  const TempDir dir;
  Generator generator = testing::tiny_generator(config_of());
  std::string words;
  for (int i = 0; i < 40; ++i) words += "the otter and the comet ";
  write_file(dir / "long.jsonl", "{\"text\":\"" + words + "\"}\n");
  const auto rows = edit::read_rows(generator, {dir / "long.jsonl"});
  std::vector<std::int32_t> whole = generator.tokenizer().encode(words);
  if (const auto bos = generator.tokenizer().bos()) whole.insert(whole.begin(), *bos);
  if (const auto eos = generator.tokenizer().eos()) whole.push_back(*eos);
  ASSERT_GT(rows.size(), 2U);
  std::vector<std::int32_t> predicted{whole.front()};
  for (const train::FactRow& row : rows) {
    EXPECT_LE(row.tokens.size(), 41U);  // the context's 40 and the last prediction
    EXPECT_EQ(row.answer_from, 1);
    EXPECT_EQ(row.tokens.front(), predicted.back());
    predicted.insert(predicted.end(), row.tokens.begin() + 1, row.tokens.end());
  }
  EXPECT_EQ(predicted, whole);
}

TEST(Learn, IsTheSameForTheSameSeed) {
  std::vector<Patch> patches;
  for (int run = 0; run < 2; ++run) {
    Generator generator = testing::tiny_generator(config_of());
    patches.push_back(learn(generator, new_facts(), {.batch = 2}, flat_history(generator)).patch);
  }
  EXPECT_EQ(patches[0].slots, patches[1].slots);
  EXPECT_EQ(patches[0].rows, patches[1].rows);
  EXPECT_NE(patches[0].id, patches[1].id);
}

TEST(Learn, OfWhatIsKnownChangesNothing) {
  Generator generator = testing::tiny_generator(config_of());
  learn(generator, new_facts(), fast(), flat_history(generator));
  const LearnResult again = learn(generator, new_facts(), fast(), flat_history(generator));
  EXPECT_EQ(again.steps, 0);
  EXPECT_TRUE(again.patch.slots.empty());
}

TEST(CountReads, CountsEveryTokenOnceWhateverIsReadTogether) {
  Generator generator = testing::tiny_generator(config_of());
  std::vector<std::vector<std::int32_t>> sequences{{1, 20, 30}, {1, 40, 50, 60}, {1, 25, 35}};
  at::Tensor sum = torch::zeros({256}, torch::kLong);
  for (const auto& sequence : sequences) sum += edit::count_reads(generator, {sequence});
  EXPECT_EQ(sum.sum().item<std::int64_t>(), 10 * 2 * 3);
  EXPECT_TRUE(torch::equal(edit::count_reads(generator, sequences), sum));
  // Longer than the context: in pieces.
  const std::vector<std::int32_t> longer(100, 20);
  EXPECT_EQ(edit::count_reads(generator, {longer}).sum().item<std::int64_t>(), 100 * 2 * 3);
}

TEST(ReadUsage, ReadsWhatIsThereAndRefusesWhatDoesNotFit) {
  const TempDir dir;
  EXPECT_FALSE(read_usage(dir.path(), 3).has_value());
  const std::vector<std::int64_t> reads{4, 0, 2};
  io::write_safetensors(io::posix(), dir / "usage.safetensors",
                        {{"reads", io::ElementType::kI64, {3}, std::as_bytes(std::span(reads))}});
  EXPECT_TRUE(torch::equal(*read_usage(dir.path(), 3), torch::tensor(reads, torch::kLong)));
  expect_error([&] { read_usage(dir.path(), 4); }, {"usage.safetensors", "reads", "[4]"});
}

TEST(ReadNewFacts, ReadsListsAndNamesLineAndFieldOfWhatIsWrong) {
  const TempDir dir;
  const std::string path = dir / "facts.jsonl";
  write_file(path,
             "{\"prompt\":\"a\",\"answer\":\"b\"}\n\n"
             "{\"prompt\":\"c\",\"answer\":\"d\",\"paraphrases\":[\"e\"],\"unseen\":[\"f\"]}\n");
  const std::vector<NewFact> facts = read_new_facts(path);
  ASSERT_EQ(facts.size(), 2U);
  EXPECT_EQ(facts[1].paraphrases, std::vector<std::string>{"e"});
  ASSERT_EQ(unseen_phrasings(facts).size(), 1U);
  EXPECT_EQ(unseen_phrasings(facts)[0].prompt, "f");
  EXPECT_EQ(unseen_phrasings(facts)[0].answer, "d");
  const auto refuses = [&](const std::string& content, const std::string& said) {
    write_file(path, content);
    expect_error([&] { read_new_facts(path); }, {"facts.jsonl", said});
  };
  refuses("", "at least one fact");
  refuses("{\"prompt\":\"a\"}", "\"answer\"");
  refuses("\n{\"prompt\":\"a\",\"answer\":\"\"}", ":2: answer: expected text");
  refuses("{\"prompt\":\"a\",\"answer\":\"b\",\"paraphrases\":\"c\"}",
          "paraphrases: expected a list");
  refuses("nonsense", ":1");
}

TEST(Learn, RefusesWhatItCannotDo) {
  Generator generator = testing::tiny_generator(config_of());
  const SlotHistory history = flat_history(generator);
  const auto refuses = [&](const std::vector<NewFact>& facts, const LearnOptions& options,
                           const SlotHistory& before, const std::string& said) {
    expect_error([&] { learn(generator, facts, options, before); }, {said});
  };
  refuses({}, {}, history, "at least one fact");
  refuses({{.fact = {std::string(100, 'x'), "y"}}}, {}, history, "at most 40 tokens");
  refuses(new_facts(), {.slots = 0}, history, "slots: expected at least 1");
  refuses(new_facts(), {.coverage = 0}, history, "coverage: expected a share above 0");
  refuses(new_facts(), {.coverage = 1.5}, history, "coverage: expected a share above 0");
  refuses(new_facts(), {.lr = -1}, history, "lr: expected a number above 0");
  refuses(new_facts(), {.steps = 0}, history, "steps: expected at least 1");
  refuses(new_facts(), {.batch = 0}, history, "batch: expected at least 1");
  refuses(new_facts(), {.check_every = 0}, history, "check_every: expected at least 1");
  refuses(new_facts(), {.rehearsal = -1}, history, "rehearsal: expected at least 0");
  refuses(new_facts(), {.settle = -1}, history, "settle: expected at least 0");
  refuses(new_facts(), {.rehearsal_weight = 0}, history, "rehearsal_weight: expected a number");
  refuses(new_facts(), {.optimizer = PoolOptimizer::kDenseAdamW}, history, "adam or sgd");
  refuses(new_facts(), {}, {}, "expected 256 whole numbers");
  refuses(new_facts(), {}, {.reads = torch::zeros({256}, torch::kLong)}, "only zeros");
  refuses(new_facts(), {}, {.reads = torch::full({256}, -1, torch::kLong)}, "one below 0");
  refuses(new_facts(), {.optimizer = PoolOptimizer::kSgd, .lr = 1e38}, history, "finite loss");

  ModelConfig dense = testing::tiny_model_config();
  dense.memory.reset();
  Generator without = testing::tiny_generator(dense);
  expect_error([&] { learn(without, new_facts(), {}, {}); }, {"without a pool"});
  expect_error([&] { count_reads(without, {"x.jsonl"}); }, {"without a pool"});
  Generator few_bits = testing::tiny_generator(config_of(RowType::kInt8));
  expect_error([&] { learn(few_bits, new_facts(), {}, history); }, {"got int8"});
}

TEST(Learn, RefusesAModelThatReadsItsRowsFromFiles) {
  const TempDir dir;
  save_model(testing::tiny_generator(config_of()).model(), dir.path());
  Generator generator(open_model(dir.path()), testing::tiny_tokenizer());
  const SlotHistory history = flat_history(generator);
  expect_error([&] { learn(generator, new_facts(), {}, history); }, {"all of its rows"});
}

}  // namespace
}  // namespace memlayers
