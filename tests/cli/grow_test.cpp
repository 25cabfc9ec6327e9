// SPDX-License-Identifier: Apache-2.0
#include <map>
#include <nlohmann/json.hpp>

#include "cli/command_testing.h"
#include "io/folder.h"
#include "io/safetensors.h"
#include "memlayers/grow.h"
#include "memlayers/store.h"

namespace memlayers {
namespace {

using testing::expect_error;
using testing::Finished;
using testing::run_command;
using testing::TempDir;

TEST(GrowCommand, GivesAModelThatSaysTheSame) {
  TempDir dir;
  testing::write_model(dir / "model");
  const Finished done =
      run_command({"grow", dir / "model", "--n-keys", "9", "-o", dir / "larger", "--json"});
  ASSERT_EQ(done.code, 0) << done.err;
  EXPECT_EQ(nlohmann::json::parse(done.out)["slots"], 81);
  const std::vector<std::string> ask{"the red otter", "--max-tokens", "20", "--ignore-eos"};
  const auto answer = [&](const std::string& model) {
    std::vector<std::string> arguments{"generate", model};
    arguments.insert(arguments.end(), ask.begin(), ask.end());
    return run_command(arguments).out;
  };
  EXPECT_EQ(answer(dir / "larger"), answer(dir / "model"));
  Llama before = load_model(dir / "model"), after = load_model(dir / "larger");
  EXPECT_EQ(after->pool()->id, before->pool()->id);
  EXPECT_TRUE(torch::equal(after->pool()->values.slice(0, 0, 36), before->pool()->values));
  const torch::NoGradGuard no_grad;
  const at::Tensor tokens = torch::randint(0, 300, {3, 20}, torch::kLong);
  EXPECT_TRUE(torch::equal(after->forward(tokens), before->forward(tokens)));
  EXPECT_TRUE(torch::equal(open_model(dir / "larger")->forward(tokens), before->forward(tokens)));
  after->open_keys();
  EXPECT_FALSE(torch::equal(after->forward(tokens), before->forward(tokens)))
      << "new slots that nobody can read would test nothing";
}

TEST(GrowCommand, InPlaceTheModelAndItsPatchesStayWhatTheyWere) {
  TempDir dir;
  testing::write_model(dir / "model");
  const std::string model = dir / "run/step-3", pool = io::join(model, "pool");
  std::filesystem::create_directory(dir / "run");
  {
    io::FolderWriter checkpoint(io::posix(), model);
    std::filesystem::copy(dir / "model", io::parent(checkpoint.file("config.json")),
                          std::filesystem::copy_options::recursive);
    checkpoint.commit();
  }
  const std::vector<float> row(32, 1);
  Store::open(pool).update(7, std::as_bytes(std::span(row)));
  const std::string id = StoreReader::open(pool).snapshot().patches().at(0).id;
  Llama before = load_model(model);
  const Finished done = run_command({"grow", dir / "run", "--n-keys", "9", "--json"});
  ASSERT_EQ(done.code, 0) << done.err;
  const auto json = nlohmann::json::parse(done.out);
  EXPECT_EQ(json["model"], model);
  EXPECT_EQ(json["n_keys_before"], 6);
  EXPECT_EQ(json["open_keys"], 6);
  Llama after = load_model(model);
  const torch::NoGradGuard no_grad;
  const at::Tensor tokens = torch::randint(0, 300, {3, 20}, torch::kLong);
  EXPECT_TRUE(torch::equal(after->forward(tokens), before->forward(tokens)));
  EXPECT_EQ(run_command({"patch", "rollback", dir / "run", id}).code, 0);
  EXPECT_EQ(run_command({"inspect", dir / "run", "--verify"}).code, 0);
  const Finished again = run_command({"grow", dir / "run", "--n-keys", "12"});
  EXPECT_TRUE(testing::says(again.out, {"144 slots (was 81)", "init = "}));
  EXPECT_EQ(io::posix().list(dir / "run"), std::vector<std::string>{"step-3"});
}

TEST(GrowCommand, PatchesOfTheSmallerPoolStillFit) {
  TempDir dir;
  testing::write_model(dir / "model");
  Store store = Store::open(dir / "model/pool");
  const std::vector<float> row(32, 1);
  const auto bytes = std::as_bytes(std::span(row));
  store.update(7, bytes);
  Patch patch = store.snapshot().patch(store.snapshot().patches().at(0).id);
  ASSERT_EQ(run_command({"grow", dir / "model", "--n-keys", "8", "-o", dir / "larger"}).code, 0);
  const Snapshot grown = StoreReader::open(dir / "larger/pool").snapshot();
  EXPECT_EQ(0, std::memcmp(grown.row(7), bytes.data(), bytes.size())) << "patches are grown too";
  patch.id = "again";
  patch.slots = {5};
  Store::open(dir / "larger/pool").apply(patch);
}

TEST(GrowCommand, TrainingOpensTheNewSlots) {
  TempDir dir;
  testing::write_model(dir / "model");
  testing::write_file(dir / "facts.jsonl",
                      "{\"prompt\": \"the red\", \"answer\": \"otter\"}\n"
                      "{\"prompt\": \"the blue\", \"answer\": \"maple\"}\n");
  ASSERT_EQ(run_command({"grow", dir / "model", "--n-keys", "12", "-o", dir / "larger"}).code, 0);
  testing::write_file(dir / "c.toml", "out = \"" + (dir / "run") + "\"\ninit = \"" +
                                          (dir / "larger") + "\"\n[data]\ntrain = [\"" +
                                          (dir / "facts.jsonl") +
                                          "\"]\n[train]\nsteps = 3\nbatch_tokens = 64\n");
  const Finished trained = run_command({"train", dir / "c.toml"});
  ASSERT_EQ(trained.code, 0) << trained.err;
  const Llama model = load_model(dir / "run/step-3"), before = load_model(dir / "larger");
  EXPECT_FALSE(model->config().memory->open_keys);
  EXPECT_EQ(before->config().memory->open_keys, 6);
  const at::Tensor changed = (model->pool()->values != before->pool()->values).any(1).slice(0, 36);
  EXPECT_TRUE(changed.any().item<bool>()) << "no new slot was read";
}

TEST(GrowCommand, WhatCannotGrowIsRefused) {
  TempDir dir;
  testing::write_model(dir / "model");
  ModelConfig dense = testing::tiny_model_config();
  dense.memory.reset();
  testing::write_model(dir / "dense", dense);
  expect_error(run_command({"grow", dir / "model", "--n-keys", "6", "-o", dir / "x"}), 2,
               "expected more than the model's 6, got 6");
  expect_error(run_command({"grow", dir / "model", "--n-keys", "8", "-o", dir / "dense"}), 1,
               "expected a folder that does not exist yet");
  expect_error(run_command({"grow", dir / "dense", "--n-keys", "8", "-o", dir / "x"}), 1,
               "without a pool");
  EXPECT_FALSE(std::filesystem::exists(dir / "x"));
  EXPECT_THROW(grow(open_model(dir / "model"), 8, 0), c10::ValueError);
  EXPECT_THROW(grow(load_model(dir / "model"), 6, 0), c10::ValueError);
  EXPECT_THROW(grow(load_model(dir / "dense"), 8, 0), c10::ValueError);
}

TEST(GrowCommand, AGrownModelDrawsNothingButWhatIsNew) {
  TempDir dir;
  testing::write_model(dir / "model");
  const Llama model = load_model(dir / "model");
  torch::manual_seed(5);
  const at::Tensor wanted = torch::rand({4});
  torch::manual_seed(5);
  const Llama grown = grow(model, 8, 11);
  EXPECT_TRUE(torch::rand({4}).equal(wanted)) << "torch's generator was used";
  const Llama fresh(grown->config(), 11);  // of a new pool of that seed
  const at::Tensor rows = grown->pool()->values;
  EXPECT_TRUE(rows.slice(0, 0, 36).equal(model->pool()->values));
  EXPECT_TRUE(rows.slice(0, 36).equal(fresh->pool()->values.slice(0, 36)));
}

void write_reads(const std::string& model, const at::Tensor& reads) {
  io::write_safetensors(
      io::posix(), io::join(model, "usage.safetensors"),
      {{"reads",
        io::ElementType::kI64,
        {reads.numel()},
        {static_cast<const std::byte*>(reads.const_data_ptr()), reads.nbytes()}}});
}

TEST(GrowCommand, TellsTheSlotsThatWereNeverReadAndChangesNothing) {
  TempDir dir;
  testing::write_model(dir / "model");
  at::Tensor reads = torch::ones({36}, torch::kLong);
  reads[4] = reads[30] = 0;
  expect_error(run_command({"grow", dir / "model", "--shrink-unused"}), 1, "usage.safetensors");
  write_reads(dir / "model", reads);
  const Finished done = run_command({"grow", dir / "model", "--shrink-unused", "--json"});
  ASSERT_EQ(done.code, 0) << done.err;
  const auto json = nlohmann::json::parse(done.out);
  EXPECT_EQ(json["unused"], 2);
  EXPECT_EQ(json["unused_slots"], (std::vector{4, 30}));
  const Finished shown = run_command({"grow", dir / "model", "--shrink-unused"});
  EXPECT_TRUE(testing::says(shown.out, {"never read", "5.6 %", "nothing was changed"}));
  expect_error(run_command({"grow", dir / "model", "--shrink-unused", "-o", dir / "x"}), 2,
               "--revive");
  expect_error(run_command({"grow", dir / "model", "--revive", "-o", dir / "x"}), 2,
               "--shrink-unused");
  expect_error(run_command({"grow", dir / "model", "-o", dir / "x"}), 2, "--n-keys");
  EXPECT_FALSE(io::posix().exists(dir / "x"));
}

TEST(GrowCommand, NamesReadsBelowZero) {
  TempDir dir;
  testing::write_model(dir / "model");
  at::Tensor reads = torch::ones({36}, torch::kLong);
  reads[4] = -2;
  write_reads(dir / "model", reads);
  expect_error(run_command({"grow", dir / "model", "--shrink-unused"}), 1,
               "usage.safetensors: reads: expected counts of at least 0, got -2");
}

TEST(GrowCommand, RevivesUnusedSlotsWithRowsOfBusyOnesInANewModel) {
  TempDir dir;
  testing::write_model(dir / "model");
  at::Tensor reads = torch::ones({36}, torch::kLong);
  reads[4] = reads[30] = 0;
  reads[9] = 100;
  reads[2] = 50;
  write_reads(dir / "model", reads);
  const Finished done = run_command(
      {"grow", dir / "model", "--shrink-unused", "--revive", "--noise", "0.1", "-o", dir / "new"});
  ASSERT_EQ(done.code, 0) << done.err;
  const at::Tensor before = load_model(dir / "model")->pool()->values.detach();
  const at::Tensor after = load_model(dir / "new")->pool()->values.detach();
  const std::map<std::int64_t, std::int64_t> from{{4, 9}, {30, 2}};
  for (std::int64_t slot = 0; slot < 36; ++slot) {
    const auto found = from.find(slot);
    if (found == from.end()) {
      EXPECT_TRUE(torch::equal(after[slot], before[slot])) << slot;
      continue;
    }
    const at::Tensor busy = before[found->second];
    const double distance = ((after[slot] - busy).norm() / busy.norm()).item<double>();
    EXPECT_GT(distance, 0.05) << slot;
    EXPECT_LT(distance, 0.2) << slot;
  }
}

TEST(GrowCommand, RefusesNoiseThatLeavesRowsWhichAreNotFinite) {
  TempDir dir;
  testing::write_model(dir / "model");
  at::Tensor reads = torch::ones({36}, torch::kLong);
  reads[4] = 0;
  write_reads(dir / "model", reads);
  expect_error(run_command({"grow", dir / "model", "--shrink-unused", "--revive", "--noise",
                            "1e308", "-o", dir / "new"}),
               1, "noise: expected one that leaves rows finite, got 1e+308");
  EXPECT_FALSE(io::posix().exists(dir / "new"));
}

}  // namespace
}  // namespace memlayers
