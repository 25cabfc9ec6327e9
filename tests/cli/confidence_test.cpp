// SPDX-License-Identifier: Apache-2.0
// memory_confidence and --gate-below, from the command line.
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/command_testing.h"

namespace memlayers {
namespace {

using testing::expect_error;
using testing::Finished;
using testing::run_command;
using testing::TempDir;
using testing::write_file;
using Json = nlohmann::json;

constexpr const char* kTaught = "the red otter has";
constexpr const char* kOther = "the green comet has";

class ConfidenceCommand : public ::testing::Test {
 protected:
  void SetUp() override {
    ModelConfig config = testing::tiny_model_config();
    config.memory.reset();
    testing::write_model(dir / "plain", config);
    write_file(dir / "facts.jsonl",
               "{\"prompt\":\"the red otter has\",\"answer\":\"number two\",\"subject\":\"red "
               "otter\"}\n");
    write_file(dir / "both.jsonl",
               "{\"prompt\":\"the red otter has\",\"answer\":\"number two\"}\n"
               "{\"prompt\":\"the green comet has\",\"answer\":\"number two\"}\n");
    run({"retrofit", dir / "plain", "-o", dir / "model", "--layers", "1", "--n-keys", "16",
         "--heads", "2", "--knn", "4", "--k-dim", "8"});
    run({"learn", dir / "model", dir / "facts.jsonl", "-o", dir / "p.safetensors", "--settle",
         "5"});
  }
  Finished run(const std::vector<std::string>& arguments) {
    std::vector<std::string> all = arguments;
    all.insert(all.end(), {"--threads", "1"});
    if (arguments.front() == "patch") all.resize(arguments.size());
    Finished done = run_command(all);
    EXPECT_EQ(done.code, 0) << done.err;
    return done;
  }
  void apply() { run({"patch", "apply", dir / "model", dir / "p.safetensors"}); }
  std::vector<Json> answers(const std::string& model, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments{"generate",     dir / model, kTaught, kOther,
                                       "--max-tokens", "6",         "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    std::istringstream lines(run(arguments).out);
    std::vector<Json> all;
    for (std::string line; std::getline(lines, line);) all.push_back(Json::parse(line));
    return all;
  }
  const TempDir dir;
};

TEST_F(ConfidenceCommand, GenerateTellsItAndClosesTheGate) {
  EXPECT_FALSE(answers("model")[0].contains("memory_confidence"));
  apply();
  const auto open = answers("model"), gated = answers("model", {"--gate-below", "0.5"}),
             plain = answers("plain");
  EXPECT_GT(open[0]["memory_confidence"], 0.5);
  EXPECT_LT(open[1]["memory_confidence"], 0.5);
  EXPECT_FALSE(open[0].contains("memory_is_off"));
  EXPECT_EQ(gated[0]["memory_is_off"], false);
  EXPECT_EQ(gated[1]["memory_is_off"], true);
  EXPECT_EQ(gated[0]["tokens"], open[0]["tokens"]);
  EXPECT_EQ(gated[1]["tokens"], plain[1]["tokens"]);
}

TEST_F(ConfidenceCommand, ExplainAndEvalTellIt) {
  apply();
  const Json json = Json::parse(run({"explain", dir / "model", kTaught, "--json"}).out);
  EXPECT_GT(json["memory_confidence"], 0.5);
  EXPECT_EQ(json["subject"]["match"], 1);
  EXPECT_EQ(json["subject"]["patch"].get<std::string>().size(), 36U);
  const std::string shown = run({"explain", dir / "model", kTaught}).out;
  EXPECT_NE(shown.find("memory confidence "), std::string::npos) << shown;
  EXPECT_NE(shown.find("of a subject's words"), std::string::npos) << shown;
  const Json scores = Json::parse(
      run({"eval", dir / "model", "--facts", dir / "both.jsonl", "--gate-below", "0.5", "--json"})
          .out);
  EXPECT_EQ(scores["memory_is_off"], 1);
  EXPECT_EQ(scores["recall"]["value"], 0.5);
}

TEST_F(ConfidenceCommand, RefusesAGateThatIsNone) {
  expect_error(run_command({"generate", dir / "model", "a", "--gate-below", "2"}), 2, "gate-below");
  expect_error(
      run_command({"eval", dir / "model", "--data", dir / "both.jsonl", "--gate-below", "0.5"}), 2,
      "--gate-below: expected --facts beside it, got none");
}

}  // namespace
}  // namespace memlayers
