// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/command_testing.h"
#include "memlayers/trainer.h"
#include "train/run_testing.h"

namespace memlayers {
namespace {

using Json = nlohmann::json;
using testing::expect_error;
using testing::Finished;
using testing::run_command;
using testing::TempDir;

class Plan : public ::testing::Test {
 protected:
  Plan() : config_(testing::tiny_config("run", "facts.jsonl")) {
    config_.model.memory->v_dim = 96;
    config_.model.memory->n_keys = 40;
  }
  std::string file() {
    io::write_atomic(io::posix(), dir_ / "plan.toml", to_toml(config_));
    return dir_ / "plan.toml";
  }
  std::vector<Json> plans(const std::vector<std::string>& more) {
    std::vector<std::string> words{"plan", file(), "--json"};
    words.insert(words.end(), more.begin(), more.end());
    const Finished done = run_command(words);
    EXPECT_EQ(done.code, 0) << done.err;
    std::vector<Json> lines;
    std::istringstream text(done.out);
    for (std::string line; std::getline(text, line);) lines.push_back(Json::parse(line));
    return lines;
  }

  TempDir dir_;
  TrainConfig config_;
};

TEST_F(Plan, SaysMemoryBytesAndTimeOfEveryClusterAskedFor) {
  const std::vector<Json> all =
      plans({"--nodes", "1,3", "--processes-per-node", "2", "--bandwidth-gbs", "1.25",
             "--latency-us", "20", "--memory-gb", "0.1"});
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0]["processes"], 2);
  EXPECT_EQ(all[1]["processes"], 6);
  std::int64_t dense = 0;
  Llama model(config_.model, 1);
  for (const auto& [name, tensor] : model->dense_parameters()) dense += tensor.numel();
  for (const Json& plan : all) {
    EXPECT_EQ(plan["dense_parameters"], dense);
    EXPECT_EQ(plan["fits"], true);
    const Json& memory = plan["memory_a_process"];
    EXPECT_EQ(memory["dense"], dense * (4 + 4 + 8 + 12));
    double total = 0;
    for (const char* part : {"dense", "rows", "row_state", "usage", "batch"}) {
      total += memory[part].get<double>();
    }
    EXPECT_NEAR(memory["total"].get<double>(), total, 1);
    for (const char* part : {"dense", "memory_layers", "updates", "exchange"}) {
      EXPECT_GT(plan["step_ms"][part].get<double>(), 0) << part;
    }
  }
  // 1,600 rows: 64 of the 96 columns at most of two processes (3 blocks), and their two moments.
  EXPECT_EQ(all[0]["memory_a_process"]["rows"], 1600 * 64 * 4);
  EXPECT_EQ(all[0]["memory_a_process"]["row_state"], 1600 * (64 * 8 + 4));
  EXPECT_EQ(all[0]["bytes_out_of_a_node"], 0);
  EXPECT_GT(all[1]["bytes_out_of_a_node"], 0);
}

// U of 32 columns, one block, is cut by itself: the second process has none of it.
TEST_F(Plan, CountsBothHalvesOfPeersRows) {
  config_.model.memory->variant = MemoryVariant::kPeer;
  config_.parallel.split = PoolSplitKind::kColumns;
  const std::vector<Json> all = plans({"--processes-per-node", "2"});
  ASSERT_EQ(all.size(), 1U);
  std::int64_t dense = 0;
  Llama model(config_.model, 1);
  for (const auto& [name, tensor] : model->dense_parameters()) dense += tensor.numel();
  EXPECT_EQ(all[0]["dense_parameters"], dense);
  EXPECT_EQ(all[0]["memory_a_process"]["rows"], 1600 * (32 + 64) * 4);
  // 128 tokens of a process choose 8 rows each, of which the other one has half the columns.
  EXPECT_EQ(all[0]["bytes_sent_a_process"]["pool"], 128 * (8 * 5 + 2 * (32 + 96) / 2) * 4);
  EXPECT_GT(all[0]["step_ms"]["memory_layers"].get<double>(), 0);
}

TEST_F(Plan, ForAModelWithoutMemoryThereIsNoPool) {
  const std::vector<Json> all = plans({"--processes-per-node", "2", "--set", "memory.layers=[]"});
  ASSERT_EQ(all.size(), 1U);
  const Json& plan = all[0];
  EXPECT_EQ(plan["memory_a_process"]["rows"], 0);
  EXPECT_EQ(plan["bytes_sent_a_process"]["pool"], 0);
  EXPECT_EQ(plan["step_ms"]["memory_layers"], 0);
  for (const char* part : {"dense", "updates", "exchange"}) {
    EXPECT_GT(plan["step_ms"][part].get<double>(), 0) << part;
  }
}

TEST_F(Plan, RefusesAClusterThatCannotBe) {
  const std::string config = file();
  expect_error(run_command({"plan", config, "--nodes", "2"}), 2, "--bandwidth-gbs");
  expect_error(run_command({"plan", config, "--nodes", "0"}), 2, "--nodes");
  expect_error(run_command({"plan", config, "--memory-gb", "-3"}), 2, "--memory-gb");
  expect_error(
      run_command({"plan", config, "--processes-per-node", "3", "--set", "parallel.groups=2"}), 1,
      "[parallel] groups: expected a number that divides the 3 processes, got 2");
  expect_error(run_command({"plan"}), 2, "CONFIG.toml");
  expect_error(run_command({"plan", dir_ / "nothing.toml"}), 1, "nothing.toml");
}

TEST_F(Plan, ReadableByPeople) {
  const Finished done = run_command({"plan", file(), "--processes-per-node", "2"});
  ASSERT_EQ(done.code, 0) << done.err;
  EXPECT_TRUE(testing::says(done.out, {"memory a process", "memory layers", "tokens/s"}));
}

}  // namespace
}  // namespace memlayers
