// SPDX-License-Identifier: Apache-2.0
// A model that serves from the files of its pool while they are edited.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "io/file_system.h"
#include "memlayers/store.h"
#include "support/temp_dir.h"
#include "support/testing.h"
#include "support/tiny_model.h"

namespace memlayers {
namespace {

using testing::TempDir;
using testing::tiny_generator;
using testing::tiny_tokenizer;

class LiveEdits : public ::testing::Test {
 protected:
  LiveEdits() {
    save_model(tiny_generator().model(), dir_.path());
    testing::write_file(dir_ / tiny_tokenizer()->file_name(), tiny_tokenizer()->file_bytes());
  }
  std::string pool() const { return dir_ / "pool"; }
  // Every row becomes `factor` times what the model was saved with.
  Patch scaled(const std::string& id, float factor) const {
    const at::Tensor rows = tiny_generator().model()->pool()->values.detach() * factor;
    const Snapshot now = StoreReader::open(pool()).snapshot();
    Patch patch{.id = id, .pool = now.pool_id(), .width = now.width()};
    for (std::int64_t slot = 0; slot < now.rows(); ++slot) patch.slots.push_back(slot);
    const auto* data = static_cast<const std::byte*>(rows.const_data_ptr());
    patch.rows.assign(data, data + rows.nbytes());
    return patch;
  }
  std::vector<std::int32_t> answer(Generator& generator,
                                   const std::function<bool(const std::string&)>& on_text = {}) {
    GenerateOptions options;
    options.max_tokens = 20;
    options.ignore_eos = true;
    const Generation made = generator.generate(
        {"the red otter"}, options,
        [&](std::int64_t, const std::string& text) { return !on_text || on_text(text); })[0];
    version_ = made.pool_version;
    return made.tokens;
  }
  // What a model whose rows are in memory says.
  std::vector<std::int32_t> loaded_answer() {
    Generator generator(load_model(dir_.path()), tiny_tokenizer());
    return answer(generator);
  }

  TempDir dir_;
  std::uint64_t version_ = 0;
};

TEST_F(LiveEdits, AMappedModelGivesTheBitsOfOneInMemory) {
  const c10::InferenceMode inference;
  Llama mapped = open_model(dir_.path()), loaded = load_model(dir_.path());
  const at::Tensor tokens = torch::randint(0, 300, {2, 17}, torch::kLong);
  EXPECT_TRUE(torch::equal(mapped->forward(tokens), loaded->forward(tokens)));
}

TEST_F(LiveEdits, TheNextRequestSeesAnEditAndARollback) {
  Generator generator = Generator::load(dir_.path());
  const auto before = answer(generator);
  EXPECT_EQ(before, loaded_answer());
  Store store = Store::open(pool());
  const Committed committed = store.apply(scaled("p", -30));
  const auto after = answer(generator);
  EXPECT_EQ(version_, committed.version);
  EXPECT_NE(after, before) << "a patch that changes nothing would test nothing";
  EXPECT_EQ(after, loaded_answer()) << "load_model() reads patches too";
  store.rollback("p");
  EXPECT_EQ(answer(generator), before);
  EXPECT_FALSE(generator.store_error());
}

TEST_F(LiveEdits, ARequestInFlightKeepsTheVersionItBeganWith) {
  Generator generator = Generator::load(dir_.path());
  const auto before = answer(generator);
  const std::uint64_t version = version_;
  Store store = Store::open(pool());
  bool is_edited = false;
  const auto during = answer(generator, [&](const std::string&) {
    if (!is_edited) store.apply(scaled("p", -30));
    is_edited = true;
    // Another request comes and sees the edit, with the same model.
    Generator other(generator.model(), tiny_tokenizer());
    GenerateOptions options;
    options.max_tokens = 1;
    EXPECT_GT(other.generate({"a"}, options)[0].pool_version, version);
    return true;
  });
  ASSERT_TRUE(is_edited);
  EXPECT_EQ(during, before);
  EXPECT_EQ(version_, version);
  EXPECT_NE(answer(generator), before);
}

TEST_F(LiveEdits, RequestsOfSeveralThreadsEachSeeOneVersion) {
  Generator generator = Generator::load(dir_.path());
  std::map<std::uint64_t, std::vector<std::int32_t>> wanted;
  Store store = Store::open(pool());
  for (int i = 0; i < 3; ++i) {
    store.apply(scaled("p" + std::to_string(i), static_cast<float>(-20 * i)));
    const auto tokens = answer(generator);
    wanted[version_] = tokens;
  }
  for (int i = 0; i < 3; ++i) store.rollback("p" + std::to_string(i));
  // Versions differ from now on, their rows are those of p0 to p2 again.
  std::atomic<bool> is_done = false;
  std::vector<std::jthread> readers;
  std::mutex mutex;
  std::set<std::vector<std::int32_t>> seen;
  const auto bare = answer(generator);
  for (int thread = 0; thread < 2; ++thread) {
    readers.emplace_back([&] {
      GenerateOptions options;
      options.max_tokens = 20;
      options.ignore_eos = true;
      while (!is_done) {
        const auto tokens = generator.generate({"the red otter"}, options)[0].tokens;
        const std::lock_guard lock(mutex);
        seen.insert(tokens);
      }
    });
  }
  for (int round = 0; round < 5; ++round) {
    for (int i = 0; i < 3; ++i) store.reapply("p" + std::to_string(i));
    for (int i = 3; i-- > 0;) store.rollback("p" + std::to_string(i));
  }
  is_done = true;
  readers.clear();
  for (const auto& tokens : seen) {
    EXPECT_TRUE(
        tokens == bare ||
        std::ranges::any_of(wanted, [&](const auto& known) { return known.second == tokens; }))
        << "an answer of no version";
  }
}

TEST_F(LiveEdits, EditsThatCannotBeFollowedLeaveTheVersionBefore) {
  Generator generator = Generator::load(dir_.path());
  Store::open(pool()).apply(scaled("p", -30));
  const auto before = answer(generator);
  const std::string path = dir_ / "pool/log-1", log = io::read_text(io::posix(), path);
  Store::open(pool()).rollback("p");
  const std::string longer = io::read_text(io::posix(), path);
  const auto changed = std::ranges::mismatch(log, longer).in2;
  ASSERT_NE(changed, longer.end());
  const auto at = changed - longer.begin() + 20;  // inside the record of the rollback
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);  // in place
    file.seekp(at);
    file.put(static_cast<char>(longer[static_cast<std::size_t>(at)] ^ 1));
  }
  EXPECT_EQ(answer(generator), before);
  ASSERT_TRUE(generator.store_error());
  EXPECT_TRUE(testing::says(*generator.store_error(), {path}));
}

TEST_F(LiveEdits, AModelThatServesIsNotSavedOrQuantized) {
  Llama model = open_model(dir_.path());
  TempDir other;
  EXPECT_THROW(save_model(model, other.path()), c10::ValueError);
  EXPECT_THROW(model->quantize_pool(RowType::kInt8), c10::ValueError);
}

TEST_F(LiveEdits, AStoreOfOtherRowsIsRefused) {
  const auto store = std::make_shared<StoreReader>(StoreReader::open(pool()));
  EXPECT_THROW(MemoryPool(PoolOptions{.n_keys = 7, .width = 32, .store = store}), c10::ValueError);
  EXPECT_THROW(MemoryPool(PoolOptions{.n_keys = 6, .width = 31, .store = store}), c10::ValueError);
  EXPECT_THROW(
      MemoryPool(PoolOptions{.n_keys = 6, .width = 32, .folder = dir_.path(), .store = store}),
      c10::ValueError);
  EXPECT_NO_THROW(MemoryPool(PoolOptions{.n_keys = 5, .width = 32, .store = store}));
}

}  // namespace
}  // namespace memlayers
