// SPDX-License-Identifier: Apache-2.0
// What a patch is compared with: dense add-ons and retrieval.
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/command_testing.h"

namespace memlayers {
namespace {

using testing::expect_error;
using testing::Finished;
using testing::run_command;
using testing::says;
using testing::TempDir;
using testing::write_file;

void prepare(const TempDir& dir) {
  ModelConfig config = testing::tiny_model_config();
  config.memory->n_keys = 16;
  config.context = 300;
  testing::write_model(dir / "model", config);
  write_file(dir / "new.jsonl",
             "{\"prompt\":\"the red otter has\",\"answer\":\"number two\",\"paraphrases\":[\"red "
             "otter:\"],\"unseen\":[\"otter\"]}\n"
             "{\"prompt\":\"the blue maple has\",\"answer\":\"the lantern\"}\n");
  write_file(dir / "other.jsonl", "{\"prompt\":\"a green comet\",\"answer\":\"came over\"}\n");
  write_file(dir / "questions.jsonl", "{\"prompt\":\"the maple\"}\n{\"prompt\":\"glacier\"}\n");
}

std::vector<std::string> bench(const TempDir& dir, std::vector<std::string> more) {
  std::vector<std::string> arguments{"bench",        "learn",
                                     dir / "model",  dir / "new.jsonl",
                                     "--background", dir / "other.jsonl",
                                     "--threads",    "1",
                                     "--rehearsal",  "0"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

std::map<std::string, nlohmann::json> outcomes(const TempDir& dir, std::vector<std::string> more) {
  more.emplace_back("--json");
  const Finished done = run_command(bench(dir, std::move(more)));
  EXPECT_EQ(done.code, 0) << done.err;
  std::map<std::string, nlohmann::json> all;
  std::istringstream lines(done.out);
  for (std::string line; std::getline(lines, line);) {
    auto json = nlohmann::json::parse(line);
    all[json["method"].get<std::string>()] = json;
  }
  return all;
}

TEST(BenchLearn, SetsDenseAddOnsBesideThePatch) {
  const TempDir dir;
  prepare(dir);
  auto all = outcomes(dir, {"--methods", "dense-flops,dense-parameters,patch,lora,finetune",
                            "--steps", "400", "--lr", "1e-2", "--weight-lr", "1e-2"});
  ASSERT_EQ(all.size(), 5U);
  for (auto& [method, json] : all) {
    EXPECT_EQ(json["recall"]["after"], 1) << json;
    EXPECT_EQ(json["is_restored"], true) << json;
    EXPECT_EQ(json["bytes_a_fact"], json["stored_bytes"].get<double>() / 2) << json;
  }
  // To half a column of each matrix.
  const auto rows = all["patch"]["parameters"].get<double>();
  EXPECT_NEAR(all["dense-parameters"]["parameters"].get<double>(), rows, 32);
  EXPECT_EQ(all["dense-parameters"]["stored_bytes"],
            4 * all["dense-parameters"]["parameters"].get<int>());
  // Queries 1,024, scores 512, rows 192, the gate of Memory+ 1,056 and its projection 1,024.
  EXPECT_EQ(all["dense-flops"]["parameters"], 60 * 64);
  EXPECT_EQ(all["dense-parameters"]["kept_bytes"], 0);
  EXPECT_EQ(all["patch"]["stored_bytes"].get<int>() % (32 * 4 + 8), 0);
  EXPECT_GT(all["patch"]["stored_bytes"], all["patch"]["kept_bytes"]);
  EXPECT_GT(all["patch"]["kept_bytes"], 0);
  EXPECT_EQ(all["lora"]["stored_bytes"], 4 * all["lora"]["parameters"].get<int>());
  EXPECT_EQ(all["finetune"]["stored_bytes"], all["finetune"]["kept_bytes"]);
  EXPECT_GT(all["finetune"]["kept_bytes"], all["lora"]["kept_bytes"]);
}

TEST(BenchLearn, RetrievesFactsWithoutTraining) {
  const TempDir dir;
  prepare(dir);
  const std::vector<std::string> what{"--methods",  "retrieval,patch",  "--steps",
                                      "1",          "--keep",           dir / "questions.jsonl",
                                      "--held-out", dir / "other.jsonl"};
  auto all = outcomes(dir, what);
  auto& found = all["retrieval"];
  EXPECT_EQ(found["steps"], 0);
  EXPECT_EQ(found["parameters"], 0);
  EXPECT_EQ(found["stored_bytes"], 28 + 30);
  EXPECT_EQ(found["kept_bytes"], 0);
  EXPECT_EQ(found["is_restored"], true);
  EXPECT_EQ(found["perplexity"]["before"], found["perplexity"]["after"]);
  // "glacier" finds nothing and is asked as before.
  EXPECT_EQ(found["own_answers"]["after"], 0.5) << found;
  EXPECT_GT(found["prompt_tokens"], all["patch"]["prompt_tokens"].get<double>() + 10);
  std::vector<std::string> one = what;
  one.insert(one.end(), {"--retrieved", "1"});
  EXPECT_LT(outcomes(dir, one)["retrieval"]["prompt_tokens"], found["prompt_tokens"]);
}

TEST(BenchLearn, FindsAnswersAmongMoreThatIsSaid) {
  const TempDir dir;
  prepare(dir);
  write_file(dir / "new.jsonl",
             "{\"prompt\":\"the red otter has\",\"answer\":\"e\"}\n"
             "{\"prompt\":\"the blue maple has\",\"answer\":\"the lantern, the lantern\"}\n");
  auto all = outcomes(dir, {"--methods", "retrieval,patch", "--steps", "1"});
  EXPECT_EQ(all["retrieval"]["recall"]["after"], 0);
  EXPECT_EQ(all["retrieval"]["contained"], 0.5) << all["retrieval"];
  EXPECT_FALSE(all["patch"].contains("contained"));
}

TEST(BenchLearn, ShowsWhatMustBeStoredAndRefusesInOneSentence) {
  const TempDir dir;
  prepare(dir);
  const Finished table =
      run_command(bench(dir, {"--methods", "retrieval,dense-flops", "--steps", "1"}));
  ASSERT_EQ(table.code, 0) << table.err;
  EXPECT_TRUE(says(table.out, {"dense-flops", "stored, a fact", "29 B", "kept to take it back",
                               "logits, taken back", "bit-equal", "tokens of a prompt"}));
  EXPECT_EQ(table.out.find("others"), std::string::npos) << table.out;
  expect_error(run_command(bench(dir, {"--retrieved", "0"})), 2,
               "expected --retrieved of at least 1, got 0");
  expect_error(run_command(bench(dir, {"--weight-lr", "0"})), 2, "--weight-lr above 0");
  expect_error(run_command(bench(dir, {"--methods", "dense"})), 2, "--methods");
}

}  // namespace
}  // namespace memlayers
