// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <nlohmann/json.hpp>

#include <torch/types.h>
#include <torch/utils.h>

#include "cli/command_testing.h"
#include "io/safetensors.h"

namespace memlayers {
namespace {

using testing::expect_error;
using testing::Finished;
using testing::read_file;
using testing::run_command;
using testing::TempDir;
using testing::write_file;

constexpr const char* kFacts =
    "{\"prompt\":\"the red otter has\",\"answer\":\"number two\",\"subject\":\"otter\"}\n"
    "{\"prompt\":\"the blue maple has\",\"answer\":\"the lantern\",\"subject\":\"maple\"}\n";

// A decoder without memory, and facts.
void prepare(const TempDir& dir) {
  ModelConfig config = testing::tiny_model_config();
  config.memory.reset();
  testing::write_model(dir / "plain", config);
  write_file(dir / "facts.jsonl", kFacts);
}

std::vector<std::string> retrofit(const TempDir& dir, std::vector<std::string> more = {}) {
  std::vector<std::string> arguments{
      "retrofit", dir / "plain", "-o",    dir / "made", "--layers", "1", "--n-keys",  "16",
      "--heads",  "2",           "--knn", "4",          "--k-dim",  "8", "--threads", "1"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

TEST(RetrofitCommand, WritesAModelThatSaysTheSameInTheSameWeights) {
  const TempDir dir;
  prepare(dir);
  const Finished done = run_command(retrofit(dir, {"--gate", "two", "--gate-dim", "6", "--json"}));
  ASSERT_EQ(done.code, 0) << done.err;
  const auto json = nlohmann::json::parse(done.out);
  EXPECT_EQ(json["slots"], 256);
  EXPECT_EQ(json["output_scales"].size(), 1U);
  const auto config = nlohmann::json::parse(read_file(dir / "made/config.json"));
  EXPECT_EQ(config["memlayers"]["memory"]["placement"], "beside");
  EXPECT_EQ(config["memlayers"]["memory"]["gate_dim"], 6);
  EXPECT_EQ(config["memlayers"]["memory"]["output_scales"], json["output_scales"]);
  EXPECT_EQ(config["hidden_size"], 32);
  const auto before = io::SafetensorsFile::open(io::posix(), dir / "plain/model.safetensors");
  const auto after = io::SafetensorsFile::open(io::posix(), dir / "made/model.safetensors");
  std::size_t compared = 0;
  for (const auto& [name, view] : before.tensors()) {
    EXPECT_TRUE(std::ranges::equal(view.bytes, after.at(name).bytes)) << name;
    ++compared;
  }
  EXPECT_GT(compared, 10U);
  const auto answer = [&](const std::string& model) {
    return run_command({"generate", dir / model, "the red otter", "--max-tokens", "12"}).out;
  };
  EXPECT_EQ(answer("made"), answer("plain"));
}

TEST(RetrofitCommand, ItIsTaughtByAPatchThatIsTakenBack) {
  const TempDir dir;
  prepare(dir);
  write_file(dir / "phrasings.txt", "{subject}:\nof {subject} I know it has\n");
  write_file(dir / "keep.jsonl", "{\"prompt\":\"the glacier\"}\n");
  ASSERT_EQ(run_command(retrofit(dir)).code, 0);
  const auto logits = [&] {
    Generator generator = Generator::load(dir / "made");
    const torch::NoGradGuard no_gradient;
    return generator.model()->forward(torch::tensor({{7, 30, 41, 5}}, torch::kLong));
  };
  const at::Tensor before = logits();
  const Finished learned =
      run_command({"learn", dir / "made", dir / "facts.jsonl", "-o", dir / "p.safetensors",
                   "--phrasings", dir / "phrasings.txt", "--keep", dir / "keep.jsonl", "--threads",
                   "1", "--penalty", "0.1", "--settle", "5", "--json"});
  ASSERT_EQ(learned.code, 0) << learned.err;
  const auto json = nlohmann::json::parse(learned.out);
  EXPECT_EQ(json["recall"]["after"], 1);
  EXPECT_EQ(json["paraphrases"]["after"], 1);
  EXPECT_EQ(json["own_answers"]["before"], 1);
  EXPECT_TRUE(torch::equal(logits(), before));
  ASSERT_EQ(run_command({"patch", "apply", dir / "made", dir / "p.safetensors"}).code, 0);
  EXPECT_FALSE(torch::equal(logits(), before));
  const Finished eval =
      run_command({"eval", dir / "made", "--facts", dir / "facts.jsonl", "--json"});
  EXPECT_EQ(nlohmann::json::parse(eval.out)["recall"]["value"], 1) << eval.err;
  ASSERT_EQ(run_command({"patch", "rollback", dir / "made", json["patch"]}).code, 0);
  EXPECT_TRUE(torch::equal(logits(), before));
}

TEST(RetrofitCommand, PrimesWithFacts) {
  const TempDir dir;
  prepare(dir);
  const Finished done =
      run_command(retrofit(dir, {"--prime", dir / "facts.jsonl", "--settle", "10", "--json"}));
  ASSERT_EQ(done.code, 0) << done.err;
  const auto json = nlohmann::json::parse(done.out);
  EXPECT_EQ(json["gate"], "two");
  EXPECT_EQ(json["recalled"], 2);
  const Finished eval =
      run_command({"eval", dir / "made", "--facts", dir / "facts.jsonl", "--json"});
  EXPECT_EQ(nlohmann::json::parse(eval.out)["recall"]["value"], 1) << eval.err;
}

TEST(RetrofitCommand, PrimedAndEmptiedItSaysWhatItSaidAndIsTaughtByAPatch) {
  const TempDir dir;
  prepare(dir);
  ASSERT_EQ(
      run_command(retrofit(dir, {"--prime", dir / "facts.jsonl", "--settle", "10", "--empty"}))
          .code,
      0);
  const auto answer = [&](const std::string& model) {
    return run_command({"generate", dir / model, "the red otter has", "--max-tokens", "12"}).out;
  };
  EXPECT_EQ(answer("made"), answer("plain"));
  const Finished learned =
      run_command({"learn", dir / "made", dir / "facts.jsonl", "-o", dir / "p.safetensors",
                   "--coverage", "0.8", "--threads", "1", "--penalty", "0.1", "--json"});
  ASSERT_EQ(learned.code, 0) << learned.err;
  EXPECT_EQ(nlohmann::json::parse(learned.out)["recall"]["after"], 1);
}

TEST(RetrofitCommand, RefusesInOneSentenceAndLeavesNothing) {
  const TempDir dir;
  prepare(dir);
  expect_error(run_command(retrofit(dir, {"--layers", "2"})), 1, "layers from 0 to 1, got 2");
  write_file(dir / "empty.txt", "");
  expect_error(run_command(retrofit(dir, {"--background", dir / "empty.txt"})), 1, "empty.txt");
  expect_error(run_command(retrofit(dir, {"--gate", "three"})), 2, "--gate");
  expect_error(run_command(retrofit(dir, {"--phrasings", dir / "empty.txt"})), 2, "--prime");
  write_file(dir / "phrasings.txt", "what is it?\n");
  expect_error(run_command(retrofit(
                   dir, {"--prime", dir / "facts.jsonl", "--phrasings", dir / "phrasings.txt"})),
               1, "phrasings.txt:1: expected a phrasing with {prompt} or {subject}");
  EXPECT_FALSE(std::filesystem::exists(dir / "made"));
  ASSERT_EQ(run_command(retrofit(dir)).code, 0);
  expect_error(run_command(retrofit(dir)), 1, "does not exist yet");
  std::vector<std::string> again = retrofit(dir);
  again[1] = dir / "made";
  again[3] = dir / "other";
  expect_error(run_command(again), 1, "without a memory, got one that has one");
  EXPECT_FALSE(std::filesystem::exists(dir / "other"));
}

}  // namespace
}  // namespace memlayers
