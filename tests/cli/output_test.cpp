// SPDX-License-Identifier: Apache-2.0
// Standard output that cannot be written, and what other people's files would do to a terminal.
#include <csignal>
#include <nlohmann/json.hpp>

#include "cli/command_testing.h"
#include "memlayers/store.h"
#include "train/run_testing.h"

namespace memlayers {
namespace {

using testing::expect_error;
using testing::Finished;
using testing::run_command;
using testing::run_unheard;
using testing::says;
using testing::TempDir;
using testing::write_file;

class Output : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = new TempDir;
    testing::write_model(model());
    write_file(*shared_ / "new.jsonl",
               "{\"prompt\":\"the red otter has\",\"answer\":\"number two\"}\n");
  }
  static void TearDownTestSuite() { delete shared_; }
  static std::string model() { return *shared_ / "model"; }
  static std::vector<std::string> learn(const std::string& out) {
    const std::string facts = *shared_ / "new.jsonl";
    return {"learn", model(), facts,  "-o",           out,   "--steps",   "2", "--settle",
            "0",     "--lr",  "1e-2", "--background", facts, "--threads", "1"};
  }
  static TempDir* shared_;
  TempDir dir_;
};
TempDir* Output::shared_ = nullptr;

TEST_F(Output, TrainingEndsWithItsCheckpointAlthoughNobodyReads) {
  testing::write_facts(dir_ / "facts.jsonl");
  for (const bool is_full : {false, true}) {
    const std::string out = dir_ / (is_full ? "full" : "unheard");
    write_file(dir_ / "c.toml", to_toml(testing::tiny_config(out, dir_ / "facts.jsonl")));
    const std::vector<std::string> train{"train", dir_ / "c.toml", "--json"};
    const Finished done =
        is_full ? run_command(train, {.output = "/dev/full"}) : run_unheard(train);
    EXPECT_EQ(done.code, 1);
    EXPECT_TRUE(says(done.err, {"memlayers: error: standard output: cannot write: ",
                                is_full ? "No space left" : "Broken pipe"}));
    EXPECT_TRUE(std::filesystem::exists(out + "/step-8/MANIFEST.json"));
  }
}

TEST_F(Output, APatchIsWrittenAlthoughNobodyReads) {
  const Finished done = run_unheard(learn(dir_ / "p.safetensors"));
  EXPECT_EQ(done.code, 1);
  EXPECT_TRUE(says(done.err, {"standard output: cannot write: Broken pipe"}));
  EXPECT_FALSE(read_patch(dir_ / "p.safetensors").slots.empty());
  const Finished applied = run_unheard({"patch", "apply", model(), dir_ / "p.safetensors"});
  EXPECT_EQ(applied.code, 1);
  EXPECT_EQ(StoreReader::open(model() + "/pool").snapshot().patches().size(), 1U);
}

TEST_F(Output, AVerbThatOnlyPrintsIsEndedQuietly) {
  for (const std::vector<std::string>& verb :
       {std::vector<std::string>{"inspect", model()}, {"patch", "list", model()}}) {
    const Finished done = run_unheard(verb);
    EXPECT_EQ(done.code, -SIGPIPE);
    EXPECT_EQ(done.err, "");
  }
}

TEST_F(Output, NamesOfAPatchDoNotReachTheTerminalAsTheyAre) {
  testing::write_model(dir_ / "model");
  const Snapshot pool = StoreReader::open(dir_ / "model/pool").snapshot();
  Patch patch{.id = "\x1b[2J\nred", .pool = pool.pool_id(), .width = pool.width(), .slots = {3}};
  patch.rows.resize(static_cast<std::size_t>(pool.row_bytes()));
  patch.notes["what"] = "\x1b[31m" + std::string(1'000'000, 'x');
  write_patch(dir_ / "p.safetensors", patch);
  const auto is_harmless = [](const Finished& done) {
    EXPECT_EQ(done.code, 0) << done.err;
    EXPECT_EQ((done.out + done.err).find('\x1b'), std::string::npos) << done.out << done.err;
    EXPECT_LT(done.out.size(), 2000U);
    EXPECT_TRUE(says(done.out, {R"(\x1b[2J\nred)"}));
  };
  is_harmless(run_command({"patch", "apply", dir_ / "model", dir_ / "p.safetensors"}));
  is_harmless(run_command({"patch", "list", dir_ / "model"}));
  is_harmless(run_command({"patch", "show", dir_ / "model", dir_ / "p.safetensors"}));
  patch.slots = {999};
  write_patch(dir_ / "far.safetensors", patch);
  expect_error(run_command({"patch", "apply", dir_ / "model", dir_ / "far.safetensors"}), 1,
               R"(patch \x1b[2J\nred: expected)");
}

TEST_F(Output, AnErrorIsOneLineWhateverItsPathHolds) {
  expect_error(run_command({"inspect", dir_ / "no\x1b[2J\nfolder"}), 1, R"(no\x1b[2J\nfolder)");
}

}  // namespace
}  // namespace memlayers
