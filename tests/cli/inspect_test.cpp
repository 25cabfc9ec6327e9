// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "cli/command_testing.h"
#include "pool/chunks.h"
#include "support/altered_rows.h"
#include "train/run_testing.h"

namespace memlayers {
namespace {

using testing::expect_error;
using testing::Finished;
using testing::run_command;
using testing::says;
using testing::TempDir;

class InspectCommand : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = new TempDir;
    testing::write_model(*shared_ / "model");
    ModelConfig dense = testing::tiny_model_config();
    dense.memory.reset();
    testing::write_model(*shared_ / "dense", dense);
  }
  static void TearDownTestSuite() { delete shared_; }
  static TempDir* shared_;
  TempDir dir_;
};
TempDir* InspectCommand::shared_ = nullptr;

TEST_F(InspectCommand, TheDigestIsThatOfTheRowsInMemory) {
  const Finished done =
      run_command({"inspect", *shared_ / "model", "--digest", "--verify", "--json", "--tensors"});
  ASSERT_EQ(done.code, 0) << done.err;
  EXPECT_EQ(done.err, "");
  const auto json = nlohmann::json::parse(done.out);
  Llama model = load_model(*shared_ / "model");
  const at::Tensor rows = model->pool()->values;
  const pool::RowsView view{static_cast<const std::byte*>(rows.const_data_ptr()), rows.size(0),
                            rows.size(1), RowType::kFloat32};
  EXPECT_EQ(json["pool"]["digest"], pool::digest(view));
  EXPECT_EQ(json["pool"]["slots"], 36);
  EXPECT_EQ(json["pool"]["width"], 32);
  EXPECT_EQ(json["parameters"]["pool"], 36 * 32);
  EXPECT_EQ(json["verified"], true);
  std::int64_t numbers = 0;
  for (const auto& tensor : json["tensors"]) {
    std::int64_t n = 1;
    for (const auto& extent : tensor["shape"]) n *= extent.get<std::int64_t>();
    numbers += n;
  }
  std::int64_t expected = 0;
  for (const auto& [name, tensor] : model->dense_parameters()) expected += tensor.numel();
  EXPECT_EQ(numbers, expected);
  EXPECT_EQ(json["parameters"]["dense"].get<std::int64_t>() +
                json["parameters"]["memory"].get<std::int64_t>(),
            expected);
}

TEST_F(InspectCommand, ShowsTheSameInWords) {
  const Finished done = run_command({"inspect", *shared_ / "model"});
  EXPECT_EQ(done.code, 0) << done.err;
  EXPECT_TRUE(says(done.out, {"hidden_size", "memory.n_keys", "pool slots", "FLOPs per token"}));
}

TEST_F(InspectCommand, ADenseModelHasNoDigest) {
  EXPECT_EQ(run_command({"inspect", *shared_ / "dense", "--verify"}).code, 0);
  expect_error(run_command({"inspect", *shared_ / "dense", "--digest"}), 1, "without memory");
}

TEST_F(InspectCommand, VerifySeesAnAlteredRowAndAMissingChunk) {
  std::filesystem::copy(*shared_ / "model", dir_ / "m", std::filesystem::copy_options::recursive);
  const std::string folder = dir_ / "m/pool";
  std::string chunk;
  for (const std::string& name : io::posix().list(folder)) {
    if (name.rfind("chunk-", 0) == 0) chunk = io::join(folder, name);
  }
  std::string bytes = testing::read_file(chunk);
  bytes[4096 + 17] = static_cast<char>(bytes[4096 + 17] ^ 1);  // rows begin on the second page
  testing::write_file(chunk, bytes);
  expect_error(run_command({"inspect", dir_ / "m", "--verify"}), 1, chunk);
  io::posix().unlink(chunk);
  expect_error(run_command({"inspect", dir_ / "m"}), 1, folder);
}

// With right checksums, or with none that could tell.
TEST_F(InspectCommand, VerifySeesNumbersThatCannotBe) {
  testing::write_facts(dir_ / "facts.jsonl");
  TrainConfig config = testing::tiny_config(dir_ / "run", dir_ / "facts.jsonl");
  config.train.steps = 1;
  Trainer(config).run();
  const std::string whole = dir_ / "run/step-1", broken = dir_ / "broken";
  const auto expect_found = [&](const std::string& file, const std::string& sentence,
                                const std::function<void(const std::string& path)>& damage) {
    std::filesystem::remove_all(broken);
    std::filesystem::copy(whole, broken, std::filesystem::copy_options::recursive);
    damage(io::join(broken, file));
    testing::close_again(broken);
    const Finished done = run_command({"inspect", broken, "--verify"});
    expect_error(done, 1, io::join(broken, file).substr(0, broken.size()));
    EXPECT_TRUE(says(done.err, {sentence})) << file;
  };
  const auto of = [](const std::string& tensor) {
    return [tensor](const std::string& path) { testing::fill_tensor(path, tensor, 0xff); };
  };
  const auto rows = [](const std::string& path) { testing::fill_rows(path, 0xff); };
  expect_found("model.safetensors", "model.norm.weight\": expected finite weights",
               of("model.norm.weight"));
  expect_found("pool/chunk-0-1.safetensors", "expected finite numbers", rows);
  expect_found("optimizer/exp_avg-0-1.safetensors", "exp_avg-0-1.safetensors", rows);
  expect_found("optimizer/exp_avg_sq-0-1.safetensors", "exp_avg_sq-0-1.safetensors", rows);
  expect_found("optimizer/rows.safetensors",
               "rows.safetensors: tensor steps: expected numbers of at least 0", of("steps"));
  expect_found("optimizer/dense.safetensors",
               "tensor exp_avg.model.norm.weight: expected finite numbers",
               of("exp_avg.model.norm.weight"));
  expect_found("usage.safetensors",
               "usage.safetensors: tensor reads: expected numbers of at least 0", of("reads"));
  EXPECT_EQ(run_command({"inspect", whole, "--verify"}).code, 0);
}

TEST_F(InspectCommand, SubKeysAndAPoolOfAnotherSizeAreNamed) {
  const auto copy_here = [&](const std::string& name) {
    std::filesystem::copy(*shared_ / "model", dir_ / name,
                          std::filesystem::copy_options::recursive);
  };
  copy_here("keys");
  auto json = nlohmann::json::parse(testing::read_file(dir_ / "keys/config.json"));
  json["memlayers"]["memory"]["n_keys"] = 7;
  testing::write_file(dir_ / "keys/config.json", json.dump());
  expect_error(run_command({"inspect", dir_ / "keys"}), 1, "by memory n_keys of config.json");

  ModelConfig larger = testing::tiny_model_config();
  larger.memory->n_keys = 7;
  testing::write_model(dir_ / "larger", larger);
  copy_here("pool");
  std::filesystem::remove_all(dir_ / "pool/pool");
  std::filesystem::rename(dir_ / "larger/pool", dir_ / "pool/pool");
  expect_error(run_command({"inspect", dir_ / "pool"}), 1, "expected 36 rows of 32");
}

}  // namespace
}  // namespace memlayers
