// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/command_testing.h"
#include "io/folder.h"
#include "memlayers/store.h"
#include "support/altered_tensors.h"

namespace memlayers {
namespace {

using nlohmann::json;
using testing::expect_error;
using testing::Finished;
using testing::run_command;
using testing::says;
using testing::TempDir;

class PatchCommand : public ::testing::Test {
 protected:
  PatchCommand() { testing::write_model(model()); }
  std::string model() const { return dir_ / "model"; }
  // A patch file that sets all numbers of these slots to `value`.
  std::string file(const std::string& id, std::vector<std::int64_t> slots, float value) const {
    const Snapshot pool = StoreReader::open(dir_ / "model/pool").snapshot();
    Patch patch{.id = id, .pool = pool.pool_id(), .width = pool.width(), .slots = slots};
    const std::vector<float> rows(slots.size() * static_cast<std::size_t>(pool.width()), value);
    const auto bytes = std::as_bytes(std::span(rows));
    patch.rows.assign(bytes.begin(), bytes.end());
    patch.notes["what"] = "all " + std::to_string(value);
    write_patch(dir_ / (id + ".safetensors"), patch);
    return dir_ / (id + ".safetensors");
  }
  Finished patch(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), "patch");
    return run_command(arguments);
  }
  std::string digest() const {
    const Finished done = run_command({"inspect", model(), "--digest", "--json"});
    return json::parse(done.out)["pool"]["digest"];
  }
  std::vector<json> lines(const Finished& done) const {
    EXPECT_EQ(done.code, 0) << done.err;
    std::vector<json> found;
    std::istringstream text(done.out);
    for (std::string line; std::getline(text, line);) found.push_back(json::parse(line));
    return found;
  }
  TempDir dir_;
};

TEST_F(PatchCommand, AppliesRollsBackAndGivesThePoolThatTheOthersMake) {
  const std::string before = digest(), a = file("aa", {1, 2}, 1), b = file("bb", {2, 3}, 2);
  const auto applied = lines(patch({"apply", model(), a, b, "--json"}));
  ASSERT_EQ(applied.size(), 2U);
  EXPECT_EQ(applied[0]["patch"], "aa");
  EXPECT_EQ(applied[1]["conflicts"],
            json::parse(R"([{"slot": 2, "earlier": "aa", "later": "bb"}])"));
  const std::string both = digest();
  EXPECT_NE(both, before);
  EXPECT_TRUE(lines(patch({"apply", model(), a, "--json"}))[0]["was_there"]);
  EXPECT_EQ(digest(), both) << "applying twice is applying once";
  EXPECT_EQ(patch({"rollback", model(), "a"}).code, 0);  // the beginning of an id
  const std::string only_b = digest();
  EXPECT_EQ(patch({"rollback", model(), "bb"}).code, 0);
  EXPECT_EQ(digest(), before);
  EXPECT_EQ(patch({"reapply", model(), "bb"}).code, 0);
  EXPECT_EQ(digest(), only_b);
  const auto list = lines(patch({"list", model(), "--json"}));
  ASSERT_EQ(list.size(), 2U);
  EXPECT_EQ(list[0]["id"], "bb");
  EXPECT_EQ(list[0]["state"], "applied");
  EXPECT_EQ(list[1]["state"], "rolled back");
  EXPECT_TRUE(says(patch({"list", model()}).out, {"bb", "rolled back", "2 rows of 36 patched"}));
}

TEST_F(PatchCommand, KeptPatchesAreFoldedAndTheFolderStaysComplete) {
  const std::string a = file("aa", {1, 2}, 1);
  ASSERT_EQ(patch({"apply", model(), a}).code, 0);
  const std::string patched = digest();
  ASSERT_EQ(patch({"keep", model(), "aa"}).code, 0);
  expect_error(patch({"rollback", model(), "aa"}), 1, "got one that is kept");
  EXPECT_EQ(patch({"compact", model(), "--part", "0"}).code, 0);
  EXPECT_EQ(digest(), patched);
  EXPECT_TRUE(lines(patch({"list", model(), "--json"})).empty());
  EXPECT_EQ(run_command({"inspect", model(), "--verify"}).code, 0);
  EXPECT_EQ(run_command({"generate", model(), "the red", "--max-tokens", "2"}).code, 0);
}

TEST_F(PatchCommand, ShowsComparesMergesAndExports) {
  const std::string a = file("aa", {1, 2}, 1), b = file("bb", {2, 3}, 2);
  ASSERT_EQ(patch({"apply", model(), a}).code, 0);
  const json shown = lines(patch({"show", model(), "aa", "--json"}))[0];
  EXPECT_EQ(shown["notes"]["what"], "all 1.000000");
  EXPECT_EQ(shown["slots"][0]["slot"], 1);
  EXPECT_EQ(shown["slots"][0]["writer"], "aa");
  EXPECT_NEAR(shown["slots"][0]["norm"], std::sqrt(32.0), 1e-5);
  EXPECT_EQ(shown["slots"][0]["from_pool"], 0.0);
  const json other = lines(patch({"show", model(), b, "--json"}))[0];
  EXPECT_EQ(other["slots"][0]["writer"], "aa");
  EXPECT_NEAR(other["slots"][0]["from_pool"], std::sqrt(32.0), 1e-5);
  EXPECT_TRUE(says(patch({"show", model(), b}).out, {"patch bb: 2 rows", "the base"}));
  const json compared = lines(patch({"diff", model(), "aa", b, "--json"}))[0];
  EXPECT_EQ(compared["only_first"], json::parse("[1]"));
  EXPECT_EQ(compared["different"], json::parse("[2]"));
  ASSERT_EQ(patch({"merge", model(), "aa", b, "-o", dir_ / "m.safetensors"}).code, 0);
  EXPECT_EQ(read_patch(dir_ / "m.safetensors").slots, (std::vector<std::int64_t>{1, 2, 3}));
  expect_error(patch({"merge", model(), "aa", b, "-o", dir_ / "m.safetensors"}), 1,
               "expected a file that does not exist yet");
  ASSERT_EQ(patch({"export", model(), "aa", "-o", dir_ / "e.safetensors"}).code, 0);
  EXPECT_EQ(read_patch(dir_ / "e.safetensors").rows, read_patch(a).rows);
}

TEST_F(PatchCommand, SubKeysAreAppliedShownComparedAndRefusedAsRowsAre) {
  const auto with_key = [&](const std::string& id, SubKeyPlace place) {
    Patch with = read_patch(file(id, {1}, 1));
    with.sub_keys = {.width = 8, .places = {place}, .numbers = std::vector<float>(8, 0.5F)};
    write_patch(dir_ / (id + ".safetensors"), with);
    return dir_ / (id + ".safetensors");
  };
  const std::string a = with_key("aa", {1, 0, 1, 5}), b = with_key("bb", {1, 0, 1, 5});
  const auto applied = lines(patch({"apply", model(), a, b, "--json"}));
  EXPECT_EQ(applied[1]["conflicts"][1]["sub_key"],
            json::parse(R"({"layer": 1, "head": 0, "half": 1, "index": 5})"));
  EXPECT_TRUE(says(patch({"list", model()}).out, {"sub-keys", "1 row of 36 patched, 1 sub-key"}));
  const json shown = lines(patch({"show", model(), "aa", "--json"}))[0];
  EXPECT_EQ(shown["sub_keys"][0]["index"], 5);
  EXPECT_EQ(shown["sub_keys"][0]["writer"], "bb");
  EXPECT_NEAR(shown["sub_keys"][0]["norm"], std::sqrt(2.0), 1e-6);
  EXPECT_TRUE(says(patch({"show", model(), "bb"}).out, {"1 row of 32 float32, 1 sub-key"}));
  const json compared = lines(patch({"diff", model(), "aa", "bb", "--json"}))[0];
  EXPECT_EQ(compared["sub_keys"]["same"].size(), 1U);
  EXPECT_TRUE(says(patch({"diff", model(), "aa", "bb"}).out, {"1.0.1.5"}));
  ASSERT_EQ(patch({"export", model(), "aa", "-o", dir_ / "e.safetensors"}).code, 0);
  EXPECT_EQ(read_patch(dir_ / "e.safetensors").sub_keys, read_patch(a).sub_keys);
  const json pool = json::parse(run_command({"inspect", model(), "--json"}).out)["pool"];
  EXPECT_EQ(pool["patched_sub_keys"], 1);
  EXPECT_EQ(patch({"rollback", model(), "aa"}).code, 0);
  expect_error(patch({"apply", model(), with_key("cc", {0, 0, 1, 5})}), 1,
               "got sub-key 5 of layer 0");
  expect_error(patch({"apply", model(), with_key("dd", {1, 0, 1, 6})}), 1,
               "got sub-key 6 of layer 1");
  const auto said = [&](const char* access) {
    const Finished done = run_command(
        {"generate", model(), "the red", "--max-tokens", "8", "--ignore-eos", "--pool", access});
    EXPECT_EQ(done.code, 0) << done.err;
    return done.out;
  };
  EXPECT_EQ(said("pread"), said("mapped"));
  EXPECT_EQ(said("memory"), said("mapped"));
}

TEST_F(PatchCommand, AFolderClosedByAManifestStaysComplete) {
  std::filesystem::create_directory(dir_ / "run");
  {
    io::FolderWriter whole(io::posix(), dir_ / "run/step-1");
    for (const auto& entry : std::filesystem::recursive_directory_iterator(model())) {
      if (!entry.is_regular_file()) continue;
      const std::string name = std::filesystem::relative(entry.path(), model());
      std::filesystem::copy_file(entry.path(), whole.file(name));
    }
    whole.commit();
  }
  const std::string a = file("aa", {1, 2}, 1);
  for (const auto& arguments : {std::vector<std::string>{"apply", dir_ / "run", a},
                                {"keep", dir_ / "run", "aa"},
                                {"compact", dir_ / "run", "--part", "0"}}) {
    const Finished done = patch(arguments);
    EXPECT_EQ(done.code, 0) << done.err;
    EXPECT_EQ(run_command({"inspect", dir_ / "run", "--verify"}).code, 0);
  }
}

TEST_F(PatchCommand, ARunGoesOnFromAPatchedCheckpoint) {
  testing::write_file(dir_ / "facts.jsonl",
                      "{\"prompt\": \"the red\", \"answer\": \"otter\"}\n"
                      "{\"prompt\": \"the blue\", \"answer\": \"maple\"}\n");
  testing::write_file(dir_ / "c.toml", "out = \"" + (dir_ / "run") + "\"\ninit = \"" + model() +
                                           "\"\n[data]\ntrain = [\"" + (dir_ / "facts.jsonl") +
                                           "\"]\n[train]\nsteps = 2\nbatch_tokens = 64\n");
  ASSERT_EQ(run_command({"train", dir_ / "c.toml"}).code, 0);
  // The run's pool is that of the model: patches fit, and training keeps what it does not read.
  ASSERT_EQ(patch({"apply", dir_ / "run", file("aa", {1, 2}, 1)}).code, 0);
  const Finished on = run_command({"train", dir_ / "c.toml", "--set", "train.steps=4"});
  EXPECT_EQ(on.code, 0) << on.err;
  EXPECT_EQ(run_command({"inspect", dir_ / "run/step-4", "--verify"}).code, 0);
}

TEST_F(PatchCommand, WhatDoesNotFitIsRefusedInOneSentenceAndChangesNothing) {
  const std::string before = digest();
  expect_error(patch({"apply", model(), file("far", {1, 36}, 1)}), 1, "slots in [0, 36), got 36");
  testing::alter_row_number(file("nan", {1}, 1), 0, NAN);
  expect_error(patch({"apply", model(), dir_ / "nan.safetensors"}), 1,
               "NaN or infinity in the row");
  expect_error(patch({"apply", model(), file("ok", {1}, 1), dir_ / "nan.safetensors"}), 1, "NaN");
  expect_error(patch({"apply", model(), file("ok", {1}, 1), file("far", {36}, 1)}), 1, "got 36");
  Patch other = read_patch(file("oo", {1}, 1));
  other.pool = "another";
  write_patch(dir_ / "other", other);
  expect_error(patch({"apply", model(), dir_ / "other"}), 1, "got one for pool another");
  expect_error(patch({"show", model(), dir_ / "other"}), 1, "got one for pool another");
  other = read_patch(file("ww", {1}, 1));
  other.width = 31;
  other.rows.resize(31 * 4);
  write_patch(dir_ / "narrow", other);
  expect_error(patch({"apply", model(), dir_ / "narrow"}), 1, "expected rows of 32 float32");
  testing::write_file(dir_ / "text", "no patch");
  expect_error(patch({"apply", model(), dir_ / "text"}), 1, dir_ / "text");
  expect_error(patch({"apply", model(), file("ok", {1}, 1), dir_ / "text"}), 1, dir_ / "text");
  expect_error(patch({"rollback", model(), "zz"}), 1, "found none");
  expect_error(patch({"apply", dir_ / "nowhere", dir_ / "ok.safetensors"}), 1, "no such file");
  expect_error(patch({"apply", model()}), 2, "");
  expect_error(patch({}), 2, "");
  EXPECT_EQ(digest(), before);
}

}  // namespace
}  // namespace memlayers
