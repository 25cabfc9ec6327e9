// SPDX-License-Identifier: Apache-2.0
// Random edits, power losses and reopenings beside a model that computes what the pool should hold
// in the plainest way.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>

#include "memlayers/store.h"
#include "pool/store_parts.h"
#include "support/memory_file_system.h"
#include "support/store_testing.h"

namespace memlayers {
namespace {

using memlayers::testing::Bytes;
using memlayers::testing::content;
using memlayers::testing::MemoryFileSystem;
using memlayers::testing::ModelStore;
using memlayers::testing::small_options;
using memlayers::testing::SmallPool;
using memlayers::testing::soaked;
using memlayers::testing::with_sub_keys;

class RandomEdits {
 public:
  explicit RandomEdits(std::uint64_t seed) : random_(seed) {
    files_ = std::make_unique<MemoryFileSystem>();
    files_->make_folder("pool");
    pool_.write(*files_, "pool");
    model_.base = pool_.base();
    model_.row_bytes = pool_.row_bytes();
    open();
  }

  // One edit, sometimes with a power loss in its middle. `what` names it.
  void step() {
    const ModelStore before = model_;
    std::unique_ptr<MemoryFileSystem> left;
    if (draw(4) == 0) {
      std::int64_t calls = draw(30);
      files_->before_change = [&, calls](const std::string&) mutable {
        if (calls-- == 0) left = files_->random_power_loss(random_());
      };
    }
    edit();
    files_->before_change = nullptr;
    ASSERT_TRUE(matches(model_)) << what_;
    if (left != nullptr) {
      what_ += ", lost power";
      store_.reset();
      files_ = std::move(left);
      open();
      if (!matches(model_)) model_ = before;
      ASSERT_TRUE(matches(model_)) << what_;
      model_.kept = folded() + kept_in_store();
      undone_.reset();
    } else if (draw(10) == 0) {
      open();
      ASSERT_TRUE(matches(model_)) << what_ << ", opened again";
    }
    check_free();
  }
  const std::string& what() const { return what_; }

 private:
  std::int64_t draw(std::int64_t below) {
    return static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(below));
  }
  std::int64_t rows() const {
    return static_cast<std::int64_t>(model_.base.size()) / model_.row_bytes;
  }

  void open() {
    store_.reset();
    StoreOptions options = small_options();
    options.access = static_cast<RowAccess>(draw(3));
    store_.emplace(pool::open_store(*files_, "pool", options));
  }

  void edit() {
    const std::int64_t kind = draw(20);
    if (kind < 8) return apply();
    if (kind < 11) return rollback();
    if (kind < 13) return insert();
    if (kind < 15) return erase();
    if (kind < 16) return update();
    if (kind < 17) return keep();
    if (kind < 18) return compact();
    if (kind < 19) return reapply();
    grow();
  }

  void apply() {
    what_ = "apply";
    Patch patch = pool_.patch(++writers_, {});
    const std::int64_t count = 1 + draw(draw(3) == 0 ? 12 : 3);
    std::map<std::int64_t, bool> slots;
    for (std::int64_t i = 0; i < count; ++i) slots[draw(rows())] = draw(5) == 0;
    for (const auto& [slot, is_erased] : slots) {
      (is_erased ? patch.erased : patch.slots).push_back(slot);
      if (is_erased) continue;
      const Bytes row = pool_.row(slot, writers_);
      patch.rows.insert(patch.rows.end(), row.begin(), row.end());
    }
    if (draw(3) == 0) {
      std::set<SubKeyPlace> places;
      for (std::int64_t i = draw(4); i >= 0; --i) {
        places.insert(SubKeyPlace{1 + 2 * draw(2), draw(2), draw(2), draw(4)});
      }
      patch = with_sub_keys(std::move(patch), writers_, {places.begin(), places.end()});
    }
    store_->apply(patch);
    model_.apply(patch);
  }
  // A patch that is not kept; none where there is none.
  std::optional<std::string> any_patch() {
    const std::size_t loose = model_.stack.size() - model_.kept;
    if (loose == 0) return std::nullopt;
    return model_
        .stack[model_.kept + static_cast<std::size_t>(draw(static_cast<std::int64_t>(loose)))]
        .id;
  }
  void rollback() {
    what_ = "rollback";
    const auto id = any_patch();
    if (!id) return;
    undone_ = *std::ranges::find(model_.stack, *id, &Patch::id);
    store_->rollback(*id);
    model_.rollback(*id);
  }
  void reapply() {
    what_ = "reapply";
    if (!undone_) return;
    store_->apply(*undone_);
    model_.apply(*undone_);
    undone_.reset();
  }
  void insert() {
    what_ = "insert";
    const auto free = store_->snapshot().free_slots();
    if (free.empty()) return;
    const Store::Inserted inserted = store_->insert(pool_.row(free.front(), ++writers_));
    EXPECT_EQ(inserted.slot, free.front());
    remember();
  }
  void erase() {
    what_ = "erase";
    if (!store_->erase(draw(rows())).was_there) remember();
  }
  void update() {
    what_ = "update";
    const std::int64_t slot = draw(rows());
    const auto slots = model_.free();
    if (slots.contains(slot) && slots.at(slot)) return;
    store_->update(slot, pool_.row(slot, ++writers_));
    remember();
  }
  // The patch that a single edit made.
  void remember() {
    const Snapshot snapshot = store_->snapshot();
    model_.apply(snapshot.patch(snapshot.patches().back().id));
  }
  void keep() {
    what_ = "keep";
    const auto id = any_patch();
    if (!id) return;
    store_->keep(*id);
    model_.kept = static_cast<std::size_t>(std::ranges::find(model_.stack, *id, &Patch::id) -
                                           model_.stack.begin()) +
                  1;
  }
  void compact() {
    what_ = "compact";
    store_->compact(0.1 * static_cast<double>(draw(4)));
    undone_.reset();
  }
  void grow() {
    what_ = "grow";
    if (rows() > 200) return;
    const std::int64_t more = 1 + draw(5);
    ++writers_;
    Bytes added;
    for (std::int64_t slot = rows(); slot < rows() + more; ++slot) {
      const Bytes row = pool_.row(slot, writers_);
      added.insert(added.end(), row.begin(), row.end());
    }
    store_->grow(more, [&](std::int64_t, std::span<std::byte> out) {
      std::ranges::copy(added, out.begin());
    });
    model_.base.insert(model_.base.end(), added.begin(), added.end());
  }

  // How many of the model's patches the store has folded into the base.
  std::size_t folded() const { return model_.stack.size() - store_->snapshot().patches().size(); }
  std::size_t kept_in_store() const {
    const auto patches = store_->snapshot().patches();
    return static_cast<std::size_t>(std::ranges::count_if(patches, &PatchInfo::is_kept));
  }
  // Whether the store has the model's rows and, but for kept ones that were folded, its patches.
  bool matches(const ModelStore& model) const {
    const auto patches = store_->snapshot().patches();
    if (patches.size() > model.stack.size() || content(store_->snapshot()) != model.content()) {
      return false;
    }
    const std::size_t gone = model.stack.size() - patches.size();
    for (std::size_t i = 0; i < patches.size(); ++i) {
      if (patches[i].id != model.stack[gone + i].id) return false;
    }
    return true;
  }
  void check_free() {
    std::vector<std::int64_t> free;
    for (const auto& [slot, is_free] : model_.free()) {
      if (is_free) free.push_back(slot);
    }
    ASSERT_EQ(store_->snapshot().free_slots(), free) << what_;
  }

  std::mt19937_64 random_;
  SmallPool pool_;
  std::unique_ptr<MemoryFileSystem> files_;
  std::optional<Store> store_;
  ModelStore model_{{}, 0};
  std::optional<Patch> undone_;
  int writers_ = 0;
  std::string what_;
};

TEST(StoreRandom, EditsLeaveTheSameBytesAsAModel) {
  for (std::uint64_t seed = 1; seed <= static_cast<std::uint64_t>(soaked(4, 200)); ++seed) {
    RandomEdits edits(seed);
    for (int i = 0; i < soaked(150, 1000); ++i) {
      edits.step();
      if (::testing::Test::HasFailure()) {
        ADD_FAILURE() << "seed " << seed << ", edit " << i << ": " << edits.what();
        return;
      }
    }
  }
}

}  // namespace
}  // namespace memlayers
