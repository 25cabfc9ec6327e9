// SPDX-License-Identifier: Apache-2.0
// A model that serves from the files of its pool while they are edited.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
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
  explicit LiveEdits(const ModelConfig& config = testing::tiny_model_config()) {
    save_model(tiny_generator(config).model(), dir_.path());
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
  // The patch, and all sub-keys in reverse order and `factor` times as large.
  static Patch with_sub_keys(Patch patch, float factor) {
    for (auto& [number, layer] : tiny_generator().model()->memory_layers()) {
      const at::Tensor keys = (layer->keys.detach().flip(2) * factor).contiguous();
      patch.sub_keys.width = keys.size(3);
      const auto* numbers = keys.const_data_ptr<float>();
      patch.sub_keys.numbers.insert(patch.sub_keys.numbers.end(), numbers, numbers + keys.numel());
      for (std::int64_t head = 0; head < keys.size(0); ++head) {
        for (std::int64_t half = 0; half < 2; ++half) {
          for (std::int64_t index = 0; index < keys.size(2); ++index) {
            patch.sub_keys.places.push_back({number, head, half, index});
          }
        }
      }
    }
    return patch;
  }
  Store open_store() const {
    StoreOptions options;
    options.sub_keys = sub_key_grid(testing::tiny_model_config());
    return Store::open(pool(), options);
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

TEST_F(LiveEdits, TheNextRequestSeesSubKeysAndOneInFlightKeepsThose) {
  Generator generator = Generator::load(dir_.path());
  const auto before = answer(generator);
  Store store = open_store();
  // Rows that differ enough for the choice of slots to show.
  store.apply(scaled("rows", -30));
  const auto with_rows = answer(generator);
  Patch keys{.id = "keys", .pool = store.snapshot().pool_id(), .width = store.snapshot().width()};
  keys = with_sub_keys(keys, 3);
  bool is_edited = false;
  const auto during = answer(generator, [&](const std::string&) {
    if (!is_edited) store.apply(keys);
    return is_edited = true;
  });
  ASSERT_TRUE(is_edited);
  EXPECT_EQ(during, with_rows);
  const auto after = answer(generator);
  EXPECT_NE(after, with_rows) << "a patch that changes nothing would test nothing";
  EXPECT_EQ(after, loaded_answer());
  store.rollback("rows");  // below the other
  EXPECT_EQ(answer(generator), loaded_answer());
  store.rollback("keys");
  EXPECT_EQ(answer(generator), before);
  store.reapply("rows");
  EXPECT_EQ(answer(generator), with_rows);
  store.reapply("keys");
  store.keep("keys");
  store.compact();
  EXPECT_EQ(answer(generator), after);
}

TEST_F(LiveEdits, ARequestThatMeetsALostPageFailsAndNothingElse) {
  Generator generator = Generator::load(dir_.path());
  const auto before = answer(generator);
  const TempDir other;
  std::filesystem::copy(dir_.path(), other.path(), std::filesystem::copy_options::recursive);
  Generator whole = Generator::load(other.path());
  const std::string chunk = pool() + "/chunk-0-0.safetensors";
  ASSERT_EQ(::truncate(chunk.c_str(), 4096), 0);
  for (int again = 0; again < 2; ++again) {
    try {
      answer(generator);
      ADD_FAILURE() << "an answer from rows that are lost";
    } catch (const Error& error) {
      EXPECT_TRUE(testing::says(error.what(), {chunk, "of the mapped file"}));
    }
    EXPECT_EQ(answer(whole), before);
  }
}

TEST_F(LiveEdits, SequencesOfDifferentVersionsInOneStepGiveWhatEachGivesAlone) {
  Llama model = open_model(dir_.path());
  GenerateOptions options;
  options.max_tokens = 15;
  options.ignore_eos = true;
  options.logprobs = 2;
  const std::vector<std::int32_t> prompt{5, 6, 7};
  std::map<std::int64_t, std::vector<double>> given;
  const auto run = [&](Decoder& decoder, std::int64_t steps) {
    for (; steps > 0 && !decoder.is_idle(); --steps) {
      for (const DecodedToken& made : decoder.step()) {
        given[made.sequence].push_back(*made.token);
        for (const auto& [token, logprob] : made.logprobs->top) {
          given[made.sequence].push_back(logprob);
        }
      }
    }
  };
  const auto alone = [&](const Snapshot& rows) {
    Decoder decoder(model, tiny_tokenizer());
    const std::int64_t sequence = decoder.join(prompt, options, {.rows = rows});
    given.clear();
    run(decoder, 100);
    return given[sequence];
  };
  Store store = Store::open(pool());
  const Snapshot first = *model->pool()->snapshot();
  store.apply(scaled("p", -30));
  model->pool()->refresh();
  const Snapshot second = *model->pool()->snapshot();
  store.apply(scaled("q", 4));
  model->pool()->refresh();
  const Snapshot third = *model->pool()->snapshot();
  const std::vector<double> wanted[]{alone(first), alone(second), alone(third)};
  ASSERT_NE(wanted[0], wanted[1]) << "a patch that changes nothing would test nothing";
  ASSERT_NE(wanted[1], wanted[2]);

  given.clear();
  Decoder decoder(model, tiny_tokenizer());
  const std::int64_t now = decoder.join(prompt, options);
  run(decoder, 2);
  const std::int64_t old = decoder.join(prompt, options, {.rows = first});
  const std::int64_t between = decoder.join(prompt, options, {.rows = second});
  store.rollback("q");  // what is in flight keeps its version
  model->pool()->refresh();
  const std::int64_t newest = decoder.join(prompt, options),
                     also_old = decoder.join(prompt, options, {.rows = first});
  EXPECT_EQ(decoder.pool_version(now), third.version());
  EXPECT_EQ(decoder.pool_version(old), first.version());
  EXPECT_EQ(decoder.pool_version(newest), model->pool()->snapshot()->version());
  EXPECT_FALSE(decoder.pool_version(99));
  run(decoder, 100);
  EXPECT_EQ(given[now], wanted[2]);
  EXPECT_EQ(given[old], wanted[0]);
  EXPECT_EQ(given[between], wanted[1]);
  EXPECT_EQ(given[newest], wanted[1]) << "the rows of the second version again";
  EXPECT_EQ(given[also_old], wanted[0]);
}

// The lookups' dtype, normalisation and 8-bit copy.
struct KeysOfATypeTest : LiveEdits, ::testing::WithParamInterface<bool> {
  static ModelConfig config() {
    ModelConfig config = testing::tiny_model_config();
    if (GetParam()) {
      config.dtype = DenseType::kBFloat16;
      config.memory->qk_norm = !config.memory->qk_norm;
    }
    return config;
  }
  KeysOfATypeTest() : LiveEdits(config()) {}
  // Logits of a prompt, and of a sequence that begins with many tokens and goes on one at a time.
  static at::Tensor logits(Llama model) {
    const c10::InferenceMode inference;
    torch::manual_seed(1);
    const at::Tensor tokens = torch::randint(0, 300, {2, 17}, torch::kLong);
    std::vector<at::Tensor> all{model->forward(tokens).flatten(0, 1)};
    const at::Tensor ids = tokens[0].to(torch::kInt);
    const std::span<const std::int32_t> sequence(ids.const_data_ptr<std::int32_t>(), 17);
    KvCache cache(*model, 20);
    for (const auto& next :
         {sequence.first(13), sequence.subspan(13, 1), sequence.subspan(14, 1)}) {
      const SequenceTokens part{&cache, next};
      all.push_back(model->step_logits(model->step({&part, 1})));
    }
    return torch::cat(all);
  }
};
INSTANTIATE_TEST_SUITE_P(Types, KeysOfATypeTest, ::testing::Bool());

TEST_P(KeysOfATypeTest, OfPatchesGiveTheBitsOfAModelThatHasThem) {
  Llama changed = load_model(dir_.path());
  const at::Tensor before = logits(changed);
  EXPECT_TRUE(torch::equal(logits(open_model(dir_.path())), before));
  Store store = open_store();
  const Patch patch = with_sub_keys(
      Patch{.id = "k", .pool = store.snapshot().pool_id(), .width = store.snapshot().width()}, 2);
  const at::Tensor keys = changed->memory_layers()[0].second->keys.detach();
  keys.copy_(torch::tensor(patch.sub_keys.numbers).view(keys.sizes()));
  const TempDir other;
  save_model(changed, other.path());
  store.apply(patch);
  const at::Tensor wanted = logits(load_model(other.path()));
  EXPECT_FALSE(torch::equal(wanted, before));
  Llama served = open_model(dir_.path());
  EXPECT_TRUE(torch::equal(logits(served), wanted));
  EXPECT_TRUE(torch::equal(logits(load_model(dir_.path())), wanted));
  store.rollback("k");
  served->pool()->refresh();
  EXPECT_TRUE(torch::equal(logits(served), before));
  EXPECT_TRUE(torch::equal(logits(load_model(dir_.path())), before));
  const at::Tensor tokens = torch::zeros({1, 3}, torch::kLong);
  store.reapply("k");
  served->pool()->refresh();
  EXPECT_NO_THROW(served->forward(tokens)) << "with gradients, after a request without";
}

TEST_F(LiveEdits, SubKeysThatTheModelDoesNotHaveKeepItFromOpening) {
  StoreOptions options;
  options.sub_keys = SubKeyGrid{.layers = {0}, .heads = 1, .n_keys = 1, .width = 8};
  Store store = Store::open(pool(), options);
  Patch patch{.id = "k", .pool = store.snapshot().pool_id(), .width = store.snapshot().width()};
  patch.sub_keys = {.width = 8, .places = {SubKeyPlace{}}, .numbers = std::vector<float>(8)};
  store.apply(patch);
  try {
    open_model(dir_.path());
    ADD_FAILURE() << "opened";
  } catch (const Error& error) {
    EXPECT_TRUE(testing::says(error.what(), {"patch k", "sub-key 0 of layer 0"}));
  }
}

TEST_F(LiveEdits, RequestsOfSeveralThreadsEachSeeOneVersion) {
  Generator generator = Generator::load(dir_.path());
  std::map<std::uint64_t, std::vector<std::int32_t>> wanted;
  Store store = open_store();
  for (int i = 0; i < 3; ++i) {
    store.apply(with_sub_keys(scaled("p" + std::to_string(i), static_cast<float>(-20 * i)),
                              static_cast<float>(i + 1)));
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
