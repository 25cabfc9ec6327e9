// SPDX-License-Identifier: Apache-2.0
// TOML and --set to TrainConfig and back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <set>

#include "io/config_keys.h"
#include "io/nearest.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/testing.h"

namespace memlayers {
namespace {

using memlayers::testing::expect_error;
using memlayers::testing::TempDir;
using memlayers::testing::write_file;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char* kLeast = "[data]\ntrain = [\"a.txt\"]\n[train]\nsteps = 10\n";

TrainConfig load(const std::string& text, const std::vector<std::string>& overrides = {}) {
  const TempDir dir;
  write_file(dir / "demo.toml", text);
  return load_train_config(dir / "demo.toml", overrides);
}

// Of a file that is `kLeast` and then this.
void expect_refused(const std::string& text, const std::string& message) {
  expect_error([&] { load(kLeast + text); }, HasSubstr("demo.toml" + message));
}

void expect_set_refused(const std::string& text, const std::string& message) {
  expect_error([&] { load(kLeast, {text}); }, HasSubstr(message));
}

TEST(LoadTrainConfig, TakesEveryKindOfValue) {
  const TrainConfig config = load(R"(
out = "runs/a"
init = "models/b"

[model]
dim = 64
heads = 4
kv_heads = 2
rope_theta = 500000      # an integer where a number is wanted
norm_eps = 1e-6
tie_embeddings = false
dtype = "bfloat16"

[memory]
layers = [1, 3]
variant = "peer"
placement = "beside"
value_proj = true
row_dtype = "bfloat16"

[data]
train = ["a.jsonl", "b"]
valid = "c.txt"          # one string is a list of one
format = "jsonl"
pack = false

[train]
epochs = 0.5
schedule = "linear"
value_optimizer = "sgd"
master_rows = true
clip = 0
sample_prompts = ["What is \"it\"?", ""]
)");
  EXPECT_EQ(config.out, "runs/a");
  EXPECT_EQ(config.init, "models/b");
  EXPECT_EQ(config.model.dim, 64);
  EXPECT_EQ(config.model.kv_heads, 2);
  EXPECT_EQ(config.model.head_dim, std::nullopt);
  EXPECT_EQ(config.model.rope.theta, 500000);
  EXPECT_EQ(config.model.norm_eps, 1e-6);
  EXPECT_FALSE(config.model.tie_embeddings);
  EXPECT_EQ(config.model.dtype, DenseType::kBFloat16);
  ASSERT_TRUE(config.model.memory);
  EXPECT_THAT(config.model.memory->layers.value(), ElementsAre(1, 3));
  EXPECT_EQ(config.model.memory->variant, MemoryVariant::kPeer);
  EXPECT_EQ(config.model.memory->placement, MemoryPlacement::kBeside);
  EXPECT_EQ(config.model.memory->value_proj, true);
  EXPECT_EQ(config.model.memory->row_dtype, RowType::kBFloat16);
  EXPECT_THAT(config.data.train, ElementsAre("a.jsonl", "b"));
  EXPECT_THAT(config.data.valid, ElementsAre("c.txt"));
  EXPECT_EQ(config.data.format, DataFormat::kJsonl);
  EXPECT_FALSE(config.data.pack);
  EXPECT_EQ(config.train.epochs, 0.5);
  EXPECT_EQ(config.train.steps, std::nullopt);
  EXPECT_EQ(config.train.schedule, Schedule::kLinear);
  EXPECT_EQ(config.train.value_optimizer, PoolOptimizer::kSgd);
  EXPECT_TRUE(config.train.master_rows);
  EXPECT_EQ(config.train.clip, std::nullopt);
  EXPECT_THAT(config.train.sample_prompts, ElementsAre("What is \"it\"?", ""));
}

TEST(LoadTrainConfig, KnowsEveryOptimizerOfRowsByItsName) {
  const std::pair<const char*, PoolOptimizer> names[] = {
      {"adamw", PoolOptimizer::kAdamW},
      {"sgd", PoolOptimizer::kSgd},
      {"rowwise_adamw", PoolOptimizer::kRowwiseAdamW},
      {"rowwise_adagrad", PoolOptimizer::kRowwiseAdagrad},
      {"dense_adamw", PoolOptimizer::kDenseAdamW}};
  for (const auto& [name, kind] : names) {
    const std::string line = std::string("value_optimizer = \"") + name + "\"";
    const TrainConfig config = load(kLeast + line + "\n");
    EXPECT_EQ(config.train.value_optimizer, kind);
    EXPECT_EQ(load(to_toml(config)).train.value_optimizer, kind);
  }
}

TEST(LoadTrainConfig, HasNoMemoryWithoutItsSection) {
  EXPECT_FALSE(load(kLeast).model.memory);
  const TrainConfig defaults = load(std::string(kLeast) + "[memory]\n");
  ASSERT_TRUE(defaults.model.memory);
  EXPECT_EQ(defaults.model.memory->layers, std::nullopt);
  EXPECT_THAT(load(std::string(kLeast) + "[memory]\nlayers = []\n").model.memory->layers.value(),
              IsEmpty());
}

TEST(LoadTrainConfig, TakesOverridesInOrder) {
  const TrainConfig config =
      load(kLeast, {"model.dim=128", "model.dim=64", "memory.layers=[1,2]", "out=runs/x y",
                    "data.train=b.txt", "train.lr=1e-4", "model.tie_embeddings=false",
                    "memory.variant=plain", "data.tokenizer=\"quoted\"", "train.clip=0"});
  EXPECT_EQ(config.model.dim, 64);
  EXPECT_THAT(config.model.memory->layers.value(), ElementsAre(1, 2));
  EXPECT_EQ(config.model.memory->variant, MemoryVariant::kPlain);
  EXPECT_EQ(config.out, "runs/x y");
  EXPECT_THAT(config.data.train, ElementsAre("b.txt"));
  EXPECT_EQ(config.data.tokenizer, "quoted");
  EXPECT_EQ(config.train.lr, 1e-4);
  EXPECT_FALSE(config.model.tie_embeddings);
  EXPECT_EQ(config.train.clip, std::nullopt);
}

TEST(LoadTrainConfig, TakesTextThatLooksLikeAnotherTypeWhereTextIsWanted) {
  const TrainConfig config = load(kLeast, {"out=2026", "init=2026-11-24", "data.train=7"});
  EXPECT_EQ(config.out, "2026");
  EXPECT_EQ(config.init, "2026-11-24");
  EXPECT_THAT(config.data.train, ElementsAre("7"));
}

TEST(LoadTrainConfig, NamesTheNearestKeyForAnUnknownOne) {
  expect_refused("leanring_rate = 1",
                 ":5: unknown key [train] leanring_rate; did you mean [train] lr?");
  expect_refused("weightdecay = 1",
                 ":5: unknown key [train] weightdecay; did you mean [train] weight_decay?");
  expect_refused("batch_size = 1",
                 ":5: unknown key [train] batch_size; did you mean [train] batch_tokens?");
  expect_refused("[model]\ndims = 1", ":6: unknown key [model] dims; did you mean [model] dim?");
  expect_refused("[model]\nknn = 1", ":6: unknown key [model] knn; did you mean [memory] knn?");
  expect_refused("[memory]\ntop_k = 1",
                 ":6: unknown key [memory] top_k; did you mean [memory] knn?");
  expect_refused("[memmory]\nknn = 1", ":5: unknown section [memmory]; did you mean [memory]?");
  expect_error([] { load("output = \"a\"\n"); },
               HasSubstr("demo.toml:1: unknown key output; did you mean out?"));
  expect_set_refused("model.dmi=3",
                     "--set model.dmi: unknown key [model] dmi; did you mean [model] dim?");
  expect_set_refused("dim=3", "--set dim: unknown key dim; did you mean [model] dim?");
  expect_set_refused("a.b.c=3", "--set a.b.c: unknown key [a] b.c; did you mean ");
}

TEST(LoadTrainConfig, NamesKeyAndTypeOfAWrongValue) {
  expect_refused("[model]\ndim = \"abc\"",
                 ":6: [model] dim: expected an integer, got the string \"abc\"");
  expect_refused("[model]\ndim = 1.5", ":6: [model] dim: expected an integer, got the number 1.5");
  expect_refused("[model]\ndim = true", ":6: [model] dim: expected an integer, got true");
  expect_refused("[model]\ndim = [1]", ":6: [model] dim: expected an integer, got the list [ 1 ]");
  expect_refused("[model]\ndim = 2026-11-24",
                 ":6: [model] dim: expected an integer, got a date or time");
  expect_refused("[model]\ndim = {a = 1}", ":6: [model] dim: expected an integer, got a table");
  expect_refused("lr = \"1e-3\"", ":5: [train] lr: expected a number, got the string");
  expect_refused("[memory]\ngate = 1",
                 ":6: [memory] gate: expected true or false, got the integer 1");
  expect_refused("[memory]\nlayers = [1, \"a\"]",
                 ":6: [memory] layers: expected a list of integers");
  expect_refused("[memory]\nlayers = 1",
                 ":6: [memory] layers: expected a list of integers, got the integer 1");
  expect_refused(
      "[memory]\nvariant = \"plus\"",
      ":6: [memory] variant: expected \"memory+\" or \"plain\" or \"peer\" or \"ngram\", got "
      "the string \"plus\"");
  expect_error([] { load("out = 3\n"); },
               HasSubstr(":1: out: expected a string, got the integer 3"));
  expect_error([] { load("model = 3\n"); }, HasSubstr(":1: unknown key model; did you mean "));
  expect_set_refused("model.dim=abc",
                     "--set model.dim: [model] dim: expected an integer, got the string \"abc\"");
  expect_set_refused("train.steps=1e3", "[train] steps: expected an integer, got the number 1000");
  expect_set_refused("model.dim", "--set model.dim: expected key=value, got no \"=\"");
}

TEST(LoadTrainConfig, NamesFileAndLineOfWhatIsNotToml) {
  expect_refused("= 3", ":5: expected TOML, got: ");
  expect_refused("lr = 1\nlr = 2", ":6: expected TOML, got: ");
  expect_error([] { load("out = \"\xff\"\n"); }, HasSubstr("demo.toml:1: expected TOML, got: "));
  expect_error([] { load_train_config("none/demo.toml", {}); },
               HasSubstr("none/demo.toml: cannot open: No such file or directory"));
}

TEST(LoadTrainConfig, ChecksValues) {
  expect_refused("[memory]\nknn = 200", ": [memory] knn: expected at most n_keys (128), got 200");
  expect_refused("pool_folder = \"\"", ": [train] pool_folder: expected a folder, got \"\"");
  expect_refused("lr = nan", ": [train] lr: expected a number from 0 to 1000, got nan");
  expect_error([] { load("[train]\nsteps = 1\n"); },
               HasSubstr("demo.toml: [data] train: expected at least one file, got none"));
}

TEST(LoadTrainConfig, SurvivesCutsAndDeepNesting) {
  const std::string text = to_toml(load(kLeast, {"memory.knn=3"}));
  for (std::size_t size = 0; size < text.size(); size += 7) {
    try {
      load(text.substr(0, size));
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("demo.toml"));
    }
  }
  expect_error([] { load("out = " + std::string(100'000, '[')); }, HasSubstr("demo.toml:1: "));
}

TEST(ToToml, ReadsBackToTheSameForEveryKey) {
  TrainConfig config = load(kLeast);
  config.out = "a \"quoted\"\\ path\n\t\x01 \u00fc'";
  config.init = "";
  config.model.memory = MemoryConfig{
      .layers = {{0, 7}}, .v_dim = 64, .value_proj = true, .row_dtype = RowType::kBFloat16};
  config.model.kv_heads = 4;
  config.model.head_dim = 10;
  config.model.rope = {.theta = 1.0 / 3,
                       .type = "llama3",
                       .factor = 8.5,
                       .low_freq_factor = 0.1,
                       .high_freq_factor = 1e22,
                       .original_context = 77};
  config.data.valid = {"it's", "\"\"\"", ""};
  config.data.cache = "c";
  config.train.lr = 1e-300;
  config.train.value_clip = 0.1;
  config.train.clip.reset();
  config.train.seed = std::numeric_limits<std::int64_t>::min() + 1;
  config.train.value_weight_decay = 5e-324;
  config.train.sample_prompts = {"\u4f60\u597d", "a\r\nb"};
  for (const bool has_memory : {true, false}) {
    if (!has_memory) config.model.memory.reset();
    const TrainConfig again = load(to_toml(config));
    for (const io::ConfigKey& key : io::config_keys()) {
      EXPECT_EQ(key.get(again), key.get(config)) << key.full_name();
    }
    EXPECT_EQ(to_toml(again), to_toml(config));
    EXPECT_EQ(again.model.memory.has_value(), has_memory);
  }
}

TEST(DescribeTrainConfig, IsAConfigurationOfAllDefaults) {
  const std::string text = describe_train_config();
  for (const io::ConfigKey& key : io::config_keys()) {
    EXPECT_THAT(text, HasSubstr("\n" + (key.section.empty() ? "" : "[" + key.section + "]\n")));
    EXPECT_THAT(text, HasSubstr(key.name + " ="));
    EXPECT_THAT(text, HasSubstr("# " + key.sentence + " (" + key.type + ")"));
  }
  const TrainConfig config = load(text, {"data.train=a", "train.steps=1"});
  TrainConfig defaults;
  defaults.model.memory.emplace();
  defaults.data.train = {"a"};
  defaults.train.steps = 1;
  EXPECT_EQ(to_toml(config), to_toml(defaults));
}

TEST(ConfigKeys, AreAllNamedOnceAndSettable) {
  std::set<std::string> names;
  for (const io::ConfigKey& key : io::config_keys()) {
    EXPECT_TRUE(names.insert(key.full_name()).second) << key.full_name();
    TrainConfig config;
    config.model.memory.emplace();
    expect_error([&] { key.set(config, std::monostate()); }, HasSubstr("expected " + key.type));
  }
}

TEST(Nearest, IsTheFirstWithTheFewestEdits) {
  EXPECT_EQ(io::nearest("knm", {"heads", "knn", "k_dim"}), "knn");
  EXPECT_EQ(io::nearest("", {"abc", "ab"}), "ab");
  EXPECT_EQ(io::nearest("x", {"a", "b"}), "a");
  EXPECT_EQ(io::nearest("x", {}), "");
}

}  // namespace
}  // namespace memlayers
