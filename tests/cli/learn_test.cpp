// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/command_testing.h"
#include "io/safetensors.h"
#include "memlayers/store.h"

namespace memlayers {
namespace {

using testing::expect_error;
using testing::Finished;
using testing::read_file;
using testing::run_command;
using testing::TempDir;
using testing::write_file;

constexpr const char* kNew =
    "{\"prompt\":\"the red otter has\",\"answer\":\"number two\",\"paraphrases\":[\"red otter:\"],"
    "\"unseen\":[\"otter\"]}\n"
    "{\"prompt\":\"the blue maple has\",\"answer\":\"the lantern\"}\n";
constexpr const char* kOther = "{\"prompt\":\"a green comet\",\"answer\":\"came over\"}\n";

// A model, facts to learn and others.
void prepare(const TempDir& dir) {
  ModelConfig config = testing::tiny_model_config();
  config.memory->n_keys = 16;
  testing::write_model(dir / "model", config);
  write_file(dir / "new.jsonl", kNew);
  write_file(dir / "other.jsonl", kOther);
}

std::vector<std::string> learn(const TempDir& dir, std::vector<std::string> more) {
  std::vector<std::string> arguments{"learn",    dir / "model", dir / "new.jsonl", "--threads", "1",
                                     "--settle", "5",           "--rehearsal",     "1"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

TEST(LearnCommand, MeasuresAPartOfManyParaphrases) {
  const TempDir dir;
  prepare(dir);
  write_file(dir / "new.jsonl",
             "{\"prompt\":\"the red otter has\",\"answer\":\"number two\",\"paraphrases\":"
             "[\"red otter:\",\"an otter:\",\"otters:\"],\"unseen\":[\"otter\"]}\n");
  const Finished done =
      run_command(learn(dir, {"-o", dir / "p.safetensors", "--background", dir / "other.jsonl",
                              "--steps", "1", "--measured", "2"}));
  ASSERT_EQ(done.code, 0) << done.err;
  for (const char* line :
       {"recall of 1 new facts", "recall of 2 of 3 paraphrases", "recall of 1 unseen phrasings"}) {
    EXPECT_NE(done.out.find(line), std::string::npos) << line << done.out;
  }
  EXPECT_NE(done.err.find("before"), std::string::npos) << done.err;
}

TEST(LearnCommand, LooksAtEarlierFactsInAllTheirPhrasings) {
  const TempDir dir;
  prepare(dir);
  write_file(
      dir / "earlier.jsonl",
      "{\"prompt\":\"the glacier\",\"answer\":\"at night\",\"paraphrases\":[\"a glacier\"]}\n");
  const std::vector<std::string> options{
      "-o",        dir / "p.safetensors", "--steps",   "2", "--background", dir / "earlier.jsonl",
      "--earlier", dir / "earlier.jsonl", "--repairs", "1"};
  const Finished done = run_command(learn(dir, options));
  ASSERT_EQ(done.code, 0) << done.err;
  for (const char* part : {"recall of 2 phrasings of earlier facts", ", 9 steps",
                           "of 2 phrasings of facts of --background are recalled"}) {
    EXPECT_NE(done.out.find(part), std::string::npos) << part << done.out;
  }
}

TEST(LearnCommand, WritesAPatchThatMakesTheModelRecallTheFacts) {
  const TempDir dir;
  prepare(dir);
  const std::string config = read_file(dir / "model/config.json");
  const Finished done =
      run_command(learn(dir, {"-o", dir / "p.safetensors", "--background", dir / "other.jsonl",
                              "--keep", dir / "other.jsonl", "--earlier", dir / "other.jsonl",
                              "--held-out", dir / "other.jsonl", "--lr", "1e-2", "--json"}));
  ASSERT_EQ(done.code, 0) << done.err;
  EXPECT_NE(done.err.find("  recalled 0/3"), std::string::npos) << "no loss before the first step";
  EXPECT_EQ(done.err.find("loss 0.000"), std::string::npos) << done.err;
  const auto json = nlohmann::json::parse(done.out);
  EXPECT_EQ(json["recall"]["after"], 1);
  EXPECT_EQ(json["recall"]["before"], 0);
  EXPECT_EQ(json["paraphrases"]["after"], 1);
  EXPECT_TRUE(json.contains("unseen") && json.contains("keep") && json.contains("perplexity"));
  EXPECT_TRUE(json["earlier"].contains(dir / "other.jsonl"));
  EXPECT_EQ(json["bytes"], std::filesystem::file_size(dir / "p.safetensors"));
  const Patch patch = read_patch(dir / "p.safetensors");
  EXPECT_EQ(json["rows"], patch.slots.size());
  EXPECT_EQ(patch.notes.at("from"), dir / "new.jsonl");
  EXPECT_EQ(patch.notes.at("selection"), "tfidf");

  const auto recall = [&] {
    const Finished eval =
        run_command({"eval", dir / "model", "--facts", dir / "new.jsonl", "--json"});
    return nlohmann::json::parse(eval.out)["recall"]["value"].get<double>();
  };
  EXPECT_EQ(recall(), 0);  // the model's folder is as it was
  ASSERT_EQ(run_command({"patch", "apply", dir / "model", dir / "p.safetensors"}).code, 0);
  EXPECT_EQ(recall(), 1);

  // Now that a patch is there, guarded learning leaves its slots alone.
  write_file(dir / "new.jsonl", "{\"prompt\":\"the glacier\",\"answer\":\"at night\"}\n");
  const Finished more =
      run_command(learn(dir, {"-o", dir / "q.safetensors", "--background", dir / "other.jsonl",
                              "--selection", "guarded", "--steps", "3"}));
  ASSERT_EQ(more.code, 0) << more.err;
  EXPECT_NE(more.out.find("recall of 1 new facts"), std::string::npos) << more.out;
  const PatchDiff both = diff(patch, read_patch(dir / "q.safetensors"));
  EXPECT_TRUE(both.same.empty() && both.different.empty());
}

TEST(LearnCommand, TakesTheReadsThatTrainingCountedAndWritesNothingInADryRun) {
  const TempDir dir;
  prepare(dir);
  std::vector<std::int64_t> reads(256, 1);
  io::write_safetensors(io::posix(), dir / "model/usage.safetensors",
                        {{"reads", io::ElementType::kI64, {256}, std::as_bytes(std::span(reads))}});
  const Finished done =
      run_command(learn(dir, {"-o", dir / "p.safetensors", "--dry-run", "--slots", "7", "--json"}));
  ASSERT_EQ(done.code, 0) << done.err;
  const auto json = nlohmann::json::parse(done.out);
  EXPECT_EQ(json["slots"].size(), 7U);
  EXPECT_EQ(json["slots"][0]["reads_before"], 1);
  EXPECT_FALSE(std::filesystem::exists(dir / "p.safetensors"));
  EXPECT_EQ(run_command(learn(dir, {"--dry-run"})).code, 0);
}

TEST(LearnCommand, RefusesInOneSentence) {
  const TempDir dir;
  prepare(dir);
  const std::string out = dir / "p.safetensors", other = dir / "other.jsonl";
  expect_error(run_command(learn(dir, {"-o", out})), 1, "--background");
  expect_error(run_command(learn(dir, {})), 2, "-o FILE");
  expect_error(run_command(learn(dir, {"-o", other, "--background", other})), 1, "not exist");
  expect_error(run_command(learn(dir, {"-o", out, "--background", other, "--lr", "-1"})), 1,
               "lr: expected");
  write_file(dir / "new.jsonl", "");
  expect_error(run_command(learn(dir, {"-o", out, "--background", other})), 1, "at least one fact");
  write_file(dir / "new.jsonl", "{\"prompt\":\"a\"}");
  expect_error(run_command(learn(dir, {"-o", out, "--background", other})), 1, "\"answer\"");
  write_file(dir / "new.jsonl", "{\"prompt\":\"" + std::string(100, 'x') + "\",\"answer\":\"b\"}");
  expect_error(run_command(learn(dir, {"-o", out, "--background", other})), 1, "at most 40 tokens");

  ModelConfig dense = testing::tiny_model_config();
  dense.memory.reset();
  testing::write_model(dir / "dense", dense);
  expect_error(run_command({"learn", dir / "dense", other, "-o", out, "--background", other}), 1,
               "without a pool");
  ASSERT_EQ(run_command({"quantize", dir / "model", "-o", dir / "int8"}).code, 0);
  expect_error(run_command({"learn", dir / "int8", other, "-o", out, "--background", other}), 1,
               "got int8");
  EXPECT_FALSE(std::filesystem::exists(out));
}

TEST(LearnCommand, RefusesFactsThatAreAllKnown) {
  const TempDir dir;
  prepare(dir);
  const std::vector<std::string> again =
      learn(dir, {"-o", dir / "q.safetensors", "--background", dir / "other.jsonl"});
  ASSERT_EQ(run_command(learn(dir, {"-o", dir / "p.safetensors", "--background",
                                    dir / "other.jsonl", "--lr", "1e-2"}))
                .code,
            0);
  ASSERT_EQ(run_command({"patch", "apply", dir / "model", dir / "p.safetensors"}).code, 0);
  const Finished done = run_command(again);
  EXPECT_EQ(done.code, 1);
  EXPECT_NE(done.err.find("that it recalls already"), std::string::npos) << done.err;
  EXPECT_FALSE(std::filesystem::exists(dir / "q.safetensors"));
}

TEST(BenchLearn, TeachesTheSameModelByEachMethodAndLeavesItsFolderAlone) {
  const TempDir dir;
  prepare(dir);
  const std::string weights = read_file(dir / "model/model.safetensors");
  const std::vector<std::string> command{"bench",        "learn",
                                         dir / "model",  dir / "new.jsonl",
                                         "--background", dir / "other.jsonl",
                                         "--keep",       dir / "other.jsonl",
                                         "--threads",    "1",
                                         "--lr",         "1e-2",
                                         "--weight-lr",  "1e-2",
                                         "--rehearsal",  "0",
                                         "--steps",      "400"};
  std::vector<std::string> with_json = command;
  with_json.emplace_back("--json");
  const Finished done = run_command(with_json);
  ASSERT_EQ(done.code, 0) << done.err;
  std::istringstream lines(done.out);
  std::vector<std::string> methods;
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    methods.push_back(json["method"]);
    EXPECT_EQ(json["recall"]["before"], 0) << line;
    EXPECT_EQ(json["recall"]["after"], 1) << line;
    EXPECT_GT(json["steps"], 0) << line;
    EXPECT_GT(json["parameters"], 0) << line;
    EXPECT_TRUE(json.contains("keep")) << line;
  }
  EXPECT_EQ(methods, (std::vector<std::string>{"patch", "finetune", "lora"}));
  EXPECT_EQ(read_file(dir / "model/model.safetensors"), weights);

  std::vector<std::string> one = command;
  one.insert(one.end(), {"--methods", "lora", "--steps", "1"});
  one.erase(one.end() - 6, one.end() - 4);  // the former --steps
  const Finished table = run_command(one);
  ASSERT_EQ(table.code, 0) << table.err;
  EXPECT_NE(table.out.find("parameters trained"), std::string::npos) << table.out;
  EXPECT_EQ(table.out.find("finetune"), std::string::npos) << table.out;

  std::vector<std::string> wrong = with_json;
  wrong.insert(wrong.end(), {"--rank", "0"});
  expect_error(run_command(wrong), 2, "--rank");
}

}  // namespace
}  // namespace memlayers
