// SPDX-License-Identifier: Apache-2.0
// Growth of models on the disk: what stays keeps its bits, and a failure at any
// moment leaves the folder before or the one after.
#include <gtest/gtest.h>

#include <filesystem>
#include <list>
#include <memory>

#include "edit/grown.h"
#include "io/folder.h"
#include "io/model_config.h"
#include "memlayers/checkpoint.h"
#include "memlayers/grow.h"
#include "memlayers/store.h"
#include "nn/model_folder.h"
#include "pool/store_parts.h"
#include "support/memory_file_system.h"
#include "support/store_testing.h"
#include "support/temp_dir.h"
#include "support/testing.h"
#include "support/tiny_model.h"
#include "train/row_state_files.h"

namespace memlayers {
namespace {

using testing::error_of;
using testing::MemoryFileSystem;
using testing::read_file;
using testing::says;
using testing::TempDir;

// A model folder that serves while it grows and is edited.
class GrownModel : public ::testing::Test {
 protected:
  GrownModel() {
    std::filesystem::create_directory(model());
    Generator generator = testing::tiny_generator();
    save_model(generator.model(), model());
    testing::write_file(model() + "/README.md", "mine");
  }
  std::string model() const { return dir_ / "model"; }
  std::string pool() const { return dir_ / "model/pool"; }
  static at::Tensor answer(Llama& model) {
    const c10::InferenceMode inference;
    return model->forward(torch::arange(40).remainder(300).view({2, 20}));
  }
  Patch patch(const std::string& id, std::int64_t slot) const {
    const Snapshot now = StoreReader::open(pool()).snapshot();
    Patch patch{.id = id, .pool = now.pool_id(), .width = now.width(), .slots = {slot}};
    const std::vector<float> row(static_cast<std::size_t>(now.width()), 5);
    const auto bytes = std::as_bytes(std::span(row));
    patch.rows.assign(bytes.begin(), bytes.end());
    return patch;
  }

  TempDir dir_;
};

TEST_F(GrownModel, SaysTheSameAndKeepsItsPatchesToBeRolledBack) {
  Llama bare = load_model(model());
  const SubKeyGrid grid = sub_key_grid(bare->config());
  Patch first = patch("first", 3);
  first.sub_keys = {.width = grid.width,
                    .places = {{.layer = grid.layers.front(), .half = 1, .index = 2}},
                    .numbers = std::vector<float>(static_cast<std::size_t>(grid.width), 0.5F)};
  Store::open(pool(), {.sub_keys = grid}).apply(first);
  Store::open(pool()).apply(patch("second", 7));
  Store::open(pool()).rollback("second");
  Llama before = load_model(model());
  grow_folder(model(), 8, 1);
  grow_folder(model(), 9, 2);
  grow_folder(model(), 11, 3, dir_ / "copy");
  EXPECT_EQ(read_file(dir_ / "copy/README.md"), "mine");
  EXPECT_EQ(io::posix().list(dir_.path()), (std::vector<std::string>{"copy", "model"}));
  for (const std::string& folder : {model(), dir_ / "copy"}) {
    Llama after = load_model(folder), opened = open_model(folder);
    EXPECT_EQ(after->config().memory->open_keys, 6);
    EXPECT_TRUE(torch::equal(answer(after), answer(before)));
    EXPECT_TRUE(torch::equal(answer(opened), answer(before)));
    Store store = Store::open(folder + "/pool");
    EXPECT_EQ(store.snapshot().patches().at(0).id, "first");
    EXPECT_EQ(*store.snapshot().sub_keys(), first.sub_keys);
    EXPECT_EQ(store.snapshot().undone().at(0).id, "second");
    store.reapply("second");
    store.rollback("second");
    store.rollback("first");
    opened->pool()->refresh();
    EXPECT_TRUE(torch::equal(answer(opened), answer(bare)));
    store.snapshot().verify();
  }
  EXPECT_TRUE(
      torch::equal(load_model(model())->pool()->values.slice(0, 0, 36), bare->pool()->values));
}

TEST_F(GrownModel, GivesNewRowsTheBitsOfANewPool) {
  grow_folder(model(), 9, 4);
  const MemoryPool fresh(PoolOptions{.n_keys = 9, .width = 32, .seed = 4});
  EXPECT_TRUE(
      torch::equal(load_model(model())->pool()->values.slice(0, 36), fresh->values.slice(0, 36)));
}

TEST_F(GrownModel, ServesOnAndSeesLaterEditsAndNoNewSlot) {
  Llama serving = open_model(model());
  const at::Tensor before = answer(serving);
  const std::uint64_t version = serving->pool()->snapshot()->version();
  grow_folder(model(), 9, 1);
  EXPECT_TRUE(serving->pool()->refresh());
  EXPECT_GT(serving->pool()->snapshot()->version(), version);
  EXPECT_TRUE(torch::equal(answer(serving), before));
  Store store = Store::open(pool());
  std::vector<Patch> patches;
  for (std::int64_t slot = 36; slot < 81; ++slot) {
    store.apply(patch("new-" + std::to_string(slot), slot));
  }
  EXPECT_TRUE(serving->pool()->refresh());
  EXPECT_TRUE(torch::equal(answer(serving), before)) << "a new slot was read";
  for (std::int64_t slot = 0; slot < 36; ++slot) {
    store.apply(patch("old-" + std::to_string(slot), slot));
  }
  EXPECT_TRUE(serving->pool()->refresh());
  Llama fresh = open_model(model());
  EXPECT_FALSE(torch::equal(answer(serving), before));
  EXPECT_TRUE(torch::equal(answer(serving), answer(fresh)));
}

TEST_F(GrownModel, IsRefusedWhileAnotherWriterHasThePoolAndHoldsItItself) {
  Store store = Store::open(pool());
  EXPECT_TRUE(says(error_of([&] { grow_folder(model(), 9, 1); }), {"LOCK", "found one at work"}));
  EXPECT_NO_THROW(grow_folder(model(), 9, 1, dir_ / "copy")) << "a copy is no edit";
  store.apply(patch("p", 1));
}

// A writer that had opened the lock's file before growth exchanged the folders, and got the lock
// after, has it of the new folder too.
TEST_F(GrownModel, HasTheLockThatItHadBefore) {
  Store::open(pool()).apply(patch("p", 1));
  std::filesystem::create_hard_link(pool() + "/LOCK", dir_ / "lock");
  grow_folder(model(), 9, 1);
  const auto held = io::posix().lock(dir_ / "lock");
  ASSERT_NE(held, nullptr);
  EXPECT_TRUE(says(error_of([&] { Store::open(pool()); }), {"found one at work"}));
}

TEST_F(GrownModel, ThroughALinkTheFolderItselfGrows) {
  std::filesystem::create_directory_symlink(model(), dir_ / "link");
  grow_folder(dir_ / "link", 9, 1);
  EXPECT_TRUE(std::filesystem::is_symlink(dir_ / "link"));
  EXPECT_EQ(load_model(model())->config().memory->n_keys, 9);
}

TEST_F(GrownModel, WhatAKilledGrowthLeftIsNoModelAndIsRemovedByTheNext) {
  std::filesystem::create_directory(dir_ / "run");
  std::filesystem::rename(model(), dir_ / "run/step-8");
  std::filesystem::copy(dir_ / "run/step-8", dir_ / "run/step-8.next-71-0123abcd",
                        std::filesystem::copy_options::recursive);
  {  // complete, as what was there before the exchange is
    io::FolderWriter writer(io::posix(), dir_ / "run/step-9");
    writer.write_text("config.json", "{}");
    writer.commit();
  }
  std::filesystem::rename(dir_ / "run/step-9/MANIFEST.json",
                          dir_ / "run/step-8.next-71-0123abcd/MANIFEST.json");
  std::filesystem::remove_all(dir_ / "run/step-9");
  EXPECT_TRUE(list_checkpoints(dir_ / "run").empty());
  grow_folder(dir_ / "run/step-8", 9, 1);
  EXPECT_EQ(io::posix().list(dir_ / "run"), std::vector<std::string>{"step-8"});
  EXPECT_EQ(resolve_model_folder(dir_ / "run"), dir_ / "run/step-8");
}

TEST_F(GrownModel, WithoutExchangeTheFolderStaysAndTheErrorNamesTheWayOut) {
  class NoExchange : public MemoryFileSystem {
   public:
    void exchange(const std::string& one, const std::string& other) override {
      io::FileSystem::exchange(one, other);
    }
  } files;
  files.make_folder("d");
  files.make_folder("d/m");
  Generator generator = testing::tiny_generator();
  save_model(files, generator.model(), "d/m");
  files.open("d/m/pool/LOCK", io::OpenMode::kCreate);
  const auto names = files.files();
  EXPECT_TRUE(says(error_of([&] { edit::grow_folder(files, "d/m", 9, 1); }),
                   {"d/m: cannot be grown in place", "-o names a new folder", "exchange"}));
  EXPECT_EQ(files.files(), names);
}

TEST_F(GrownModel, WhatCannotGrowIsRefusedBeforeAnythingIsWritten) {
  EXPECT_TRUE(says(error_of([&] { grow_folder(model(), 6, 1); }), {"n_keys", "6", "got 6"}));
  EXPECT_TRUE(says(error_of([&] { grow_folder(dir_ / "none", 9, 1); }), {"without a pool"}));
  testing::write_file(model() + "/trainer.json",
                      R"({"format": "memlayers.trainer", "version": 1})");
  EXPECT_TRUE(says(error_of([&] { grow_folder(model(), 9, 1); }), {"trainer.json", "version 2"}));
  EXPECT_EQ(io::posix().list(dir_.path()), std::vector<std::string>{"model"});
}

// In memory, where every call can fail and the power can be lost before any.
class GrowthThatFails : public ::testing::Test {
 protected:
  GrowthThatFails() {
    files_.make_folder("d");
    files_.make_folder("d/m");
    Generator generator = testing::tiny_generator();
    save_model(files_, generator.model(), "d/m");
    files_.open("d/m/pool/LOCK", io::OpenMode::kCreate);
    train::write_usage(files_, "d/m", torch::ones({36}, at::kLong), 8);
    pool::open_store(files_, "d/m/pool").update(5, std::as_bytes(std::span(row_)));
    for (const char* folder : {"d", "d/m", "d/m/pool"}) files_.sync_folder(folder);
    before_ = content(files_);
    MemoryFileSystem other(files_);
    edit::grow_folder(other, "d/m", 9, 1);
    after_ = content(other);
    EXPECT_NE(before_, after_);
  }
  // Configuration, dense weights, counted reads, rows and patches.
  static std::string content(MemoryFileSystem& files) {
    const Snapshot pool = open_model(files, "d/m")->pool()->snapshot().value();
    return io::read_text(files, "d/m/config.json") + io::read_text(files, "d/m/model.safetensors") +
           io::read_text(files, "d/m/usage.safetensors") + pool.digest() + pool.patches().at(0).id;
  }
  // What is left is the folder before or after.
  void check(MemoryFileSystem& left, const std::string& where) {
    std::string found;
    try {
      found = content(left);
      if (++checks_ % 20 == 1) left_.push_back({left, where});
    } catch (const Error& error) {
      ADD_FAILURE() << where << ": " << error.what();
    }
    EXPECT_TRUE(found == before_ || found == after_) << where;
    was_before_ += found == before_ ? 1 : 0;
    was_after_ += found == after_ ? 1 : 0;
  }

  // And grows on, once the growth before it is over: what it works on is nobody's to remove.
  void grow_what_was_left() {
    EXPECT_FALSE(left_.empty());
    for (auto& [left, where] : left_) {
      try {
        edit::grow_folder(left, "d/m", 10, 1);
        EXPECT_EQ(open_model(left, "d/m")->config().memory->n_keys, 10) << where;
        for (const std::string& path : left.files()) EXPECT_TRUE(path.starts_with("d/m/")) << path;
      } catch (const Error& error) {
        ADD_FAILURE() << where << ": " << error.what();
      }
    }
  }

  struct Left {
    MemoryFileSystem files;
    std::string where;
  };
  std::list<Left> left_;
  std::vector<float> row_ = std::vector<float>(32, 3);
  MemoryFileSystem files_;
  std::string before_, after_;
  std::int64_t checks_ = 0, was_before_ = 0, was_after_ = 0;
};

TEST_F(GrowthThatFails, WithThePowerLeavesTheFolderBeforeOrAfter) {
  std::int64_t calls = 0;
  files_.before_change = [&](const std::string& path) {
    ++calls;
    files_.for_each_power_loss(testing::soaked(4, 100), [&](MemoryFileSystem& left) {
      check(left, "before a change of " + path);
    });
  };
  edit::grow_folder(files_, "d/m", 9, 1);
  files_.before_change = nullptr;
  EXPECT_EQ(content(files_), after_);
  files_.for_each_power_loss(8, [&](MemoryFileSystem& left) {
    EXPECT_EQ(content(left), after_) << "what was acknowledged is lost";
  });
  grow_what_was_left();
  EXPECT_GT(calls, 30);
  EXPECT_GT(was_before_, 50);
  EXPECT_GT(was_after_, 10);
}

TEST_F(GrowthThatFails, AtAnyCallIsAnErrorAndLeavesTheFolderBeforeOrAfter) {
  std::int64_t failed = 0;
  for (const auto fault : {MemoryFileSystem::Fault::kOnce, MemoryFileSystem::Fault::kFullDisk}) {
    bool has_failed = true;
    for (std::int64_t call = 1; has_failed; call += testing::soaked(9, 1)) {
      MemoryFileSystem files(files_);
      files.fail_at(call, fault);
      bool was_done = true;
      try {
        edit::grow_folder(files, "d/m", 9, 1);
      } catch (const Error&) {
        was_done = false;
      }
      has_failed = files.has_failed();
      files.fail_never();
      failed += has_failed ? 1 : 0;
      EXPECT_TRUE(!was_done || content(files) == after_) << call;
      check(files, "call " + std::to_string(call));
    }
  }
  grow_what_was_left();
  EXPECT_GT(failed, testing::soaked(12, 80));
}

}  // namespace
}  // namespace memlayers
