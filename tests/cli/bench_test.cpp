// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "cli/command_testing.h"

namespace memlayers {
namespace {

using Json = nlohmann::json;
using testing::expect_error;
using testing::Finished;
using testing::run_command;
using testing::says;

const std::vector<std::string> kTiny{"--dim",    "32", "--tokens",     "16", "--heads",  "2",
                                     "--knn",    "4",  "--k-dim",      "16", "--n-keys", "12",
                                     "--repeat", "2",  "--stream-mib", "1"};

// With the tiny sizes, but for the options that `more` gives.
Finished bench(const std::string& kind, const std::vector<std::string>& more = {}) {
  std::vector<std::string> arguments{"bench", kind};
  for (std::size_t i = 0; i < kTiny.size(); i += 2) {
    if (std::find(more.begin(), more.end(), kTiny[i]) != more.end()) continue;
    arguments.insert(arguments.end(), {kTiny[i], kTiny[i + 1]});
  }
  arguments.insert(arguments.end(), more.begin(), more.end());
  return run_command(arguments);
}

std::vector<Json> lines_of(const Finished& done) {
  EXPECT_EQ(done.code, 0) << done.err;
  std::vector<Json> lines;
  std::istringstream text(done.out);
  for (std::string line; std::getline(text, line);) lines.push_back(Json::parse(line));
  return lines;
}

// One line that names machine and options, and has these figures, all positive and finite.
void expect_case(const std::string& kind, const std::vector<std::string>& figures,
                 const std::vector<std::string>& more = {}) {
  std::vector<std::string> arguments = more;
  arguments.emplace_back("--json");
  const std::vector<Json> lines = lines_of(bench(kind, arguments));
  ASSERT_EQ(lines.size(), 1U);
  const Json& json = lines.front();
  EXPECT_EQ(json["bench"], kind);
  EXPECT_EQ(json["dim"], 32);
  EXPECT_EQ(json["tokens"], 16);
  EXPECT_EQ(json["slots"], 144);
  EXPECT_EQ(json["repeat"], 2);
  EXPECT_GE(json["threads"], 1);
  EXPECT_NE(json["cpu"], "");
  EXPECT_TRUE(
      std::set<std::string>({"portable", "avx2", "avx512", "avx512vnni"}).contains(json["isa"]));
  for (const std::string& name : figures) {
    ASSERT_TRUE(json.contains(name)) << name << " in " << json;
    const double value = json[name];
    EXPECT_TRUE(std::isfinite(value) && value > 0) << name << " in " << json;
  }
}

TEST(BenchCommand, LookupStandsBesideItsProducts) {
  expect_case("lookup", {"lookup_ms", "lookup_median_ms", "products_ms", "lookup_ratio",
                         "lookup_backward_ms", "backward_ratio", "gemm_gflops", "stream_gbs"});
  expect_case("lookup", {"lookup_ms", "products_ms"}, {"--dtype", "bfloat16"});
}

TEST(BenchCommand, AModelsAnswersStandBesideTheStream) {
  const testing::TempDir dir;
  testing::write_model(dir / "model");
  const auto run = [&](std::vector<std::string> more) {
    std::vector<std::string> all{"bench", "model",     dir / "model",  "--prompt",
                                 "16",    "--streams", "1,3",          "--repeat",
                                 "1",     "--json",    "--stream-mib", "1"};
    all.insert(all.end(), more.begin(), more.end());
    return run_command(all);
  };
  const Json json = lines_of(run({"--tokens", "4"})).at(0);
  for (const char* name : {"prompt_tokens_per_s", "decode_tokens_per_s", "decode_3_tokens_per_s",
                           "decode_share", "stream_gbs"}) {
    EXPECT_GT(json.at(name).get<double>(), 0) << name;
  }
  // Embeddings that are the output's too, two layers of which one is a memory of 2 x 3 rows.
  EXPECT_GT(json["decode_bytes"].get<double>(), 4 * (300 * 32 + 8 * 32 * 32));
  expect_error(run({"--tokens", "40"}), 1, "tokens: expected less than the model's context of 40");
}

TEST(BenchCommand, GatherStandsBesideABareReadOfTheSameRows) {
  const std::vector<std::string> figures{
      "gather_ms",           "gather_gbs",           "random_row_gbs",
      "gather_ratio",        "cached_gather_gbs",    "stream_gbs",
      "weights_backward_ms", "weights_backward_gbs", "gemm_gflops"};
  expect_case("gather", figures);
  expect_case("gather", figures, {"--variant", "peer"});
  expect_case("gather", figures, {"--dtype", "bfloat16", "--dist", "zipf", "--v-dim", "37"});
}

TEST(BenchCommand, UpdateStandsBesideTheStream) {
  const std::vector<std::string> figures{"update_ms",    "group_ms",          "update_bytes",
                                         "stream_gbs",   "update_gbs",        "update_ratio",
                                         "touched_rows", "stream_update_gbs", "random_update_gbs",
                                         "limit_ratio",  "random_row_gbs",    "gemm_gflops"};
  expect_case("update", figures);
  expect_case("update", figures, {"--optimizer", "sgd", "--dist", "zipf"});
  expect_case("update", figures, {"--dtype", "bfloat16", "--master-rows"});
}

TEST(BenchCommand, UpdateCountsTheBytesThatMustMove) {
  const Json json = lines_of(bench("update", {"--json"})).at(0);
  // A float32 row with two moments and a count, read and written; slots, weights and gradient rows.
  const double row = 32 * 3 * 4 + 4, factors = 16 * 8 * (8 + 4) + 16 * 32 * 4;
  EXPECT_EQ(json["update_bytes"], 2 * row * json["touched_rows"].get<double>() + factors);
}

TEST(BenchCommand, LayerHasItsPartsAndTheLimitOfReading) {
  const std::vector<std::string> figures{
      "forward_ms",      "backward_ms",        "select_ms",       "gather_ms",  "inference_ms",
      "inference_bytes", "inference_limit_ms", "inference_ratio", "stream_gbs", "lookup_ms",
      "gather_gbs",      "random_row_gbs",     "gemm_gflops"};
  expect_case("layer", figures);
  expect_case("layer", figures, {"--variant", "peer", "--dist", "zipf"});
  expect_case("layer", figures, {"--model-dtype", "bfloat16"});
  const Json json = lines_of(bench("layer", {"--tokens", "1", "--json"})).at(0);
  EXPECT_EQ(json["tokens"], 1);
  // Query, keys and their norms, gate and output; two heads of four slots read 4 to 8 rows.
  const double dense = 4 * (32 * 32 + 32 + 2 * 2 * 12 * 8 + 2 * 16 + 2 * (32 * 32 + 32));
  EXPECT_GE(json["inference_bytes"], dense + 4 * 32 * 4);
  EXPECT_LE(json["inference_bytes"], dense + 8 * 32 * 4);
  // In bfloat16 all of that takes half, but the keys, which are read in 8 bits, and the rows.
  const Json half =
      lines_of(bench("layer", {"--tokens", "1", "--model-dtype", "bfloat16", "--json"})).at(0);
  EXPECT_EQ(half["model_dtype"], "bfloat16");
  const double less = json["inference_bytes"].get<double>() - half["inference_bytes"].get<double>();
  EXPECT_NEAR(less, dense / 2 - 2 * 2 * 2 * 12 * 8, 4 * 32 * 4);
}

TEST(BenchCommand, StepIsTheSumOfItsParts) {
  expect_case("step", {"step_ms", "forward_ms", "backward_ms", "update_ms", "dense_update_ms",
                       "touched_rows", "tokens_per_s", "products_ms", "rows_ms", "limit_ms",
                       "limit_ratio", "stream_update_gbs", "lookup_ms", "gather_ms", "gather_gbs",
                       "stream_gbs", "random_row_gbs", "gemm_gflops"});
  expect_case("step", {"step_ms", "gather_ms"}, {"--variant", "peer"});
  expect_case("step", {"step_ms", "products_ms", "limit_ms"}, {"--model-dtype", "bfloat16"});
  const Json json = lines_of(bench("step", {"--repeat", "1", "--json"})).at(0);
  const double parts = json["forward_ms"].get<double>() + json["backward_ms"].get<double>() +
                       json["update_ms"].get<double>() + json["dense_update_ms"].get<double>();
  EXPECT_NEAR(json["step_ms"], parts, 1e-9 * parts);
  // Rows of 32 float32 are read twice; they and two moments are changed, with a count of steps.
  const double rows = 2 * json["touched_rows"].get<double>();
  const double bytes_ms = (rows * 4 * 32 / json["stream_gbs"].get<double>() +
                           rows * (3 * 4 * 32 + 4) / json["stream_update_gbs"].get<double>()) /
                          1e6;
  EXPECT_NEAR(json["rows_ms"], bytes_ms, 1e-9 * bytes_ms);
  const double limit = json["products_ms"].get<double>() + bytes_ms;
  EXPECT_NEAR(json["limit_ms"], limit, 1e-9 * limit);
  EXPECT_NEAR(json["limit_ratio"], parts / limit, 1e-9 * parts / limit);
}

TEST(BenchCommand, DecoderStandsBesideItsDenseTwin) {
  expect_case(
      "decoder",
      {"step_ms", "dense_step_ms", "step_ratio", "flops_a_token", "dense_flops_a_token",
       "decode_ms", "decode_bytes", "decode_ratio", "dense_decode_ms", "decode_tokens_per_s",
       "decode_4_tokens_per_s", "decode_16_tokens_per_s", "decode_limit_tokens_per_s"},
      {"--layers", "2", "--vocab", "50", "--context", "8"});
}

TEST(BenchCommand, SeveralValuesMakeACaseOfEachCombination) {
  const std::vector<Json> lines =
      lines_of(bench("lookup", {"--n-keys", "8,16", "--tokens", "3,5", "--repeat", "1", "--json"}));
  std::set<std::pair<int, int>> seen;
  for (const Json& json : lines) seen.emplace(json["n_keys"], json["tokens"]);
  EXPECT_EQ(lines.size(), 4U);
  EXPECT_EQ(seen, (std::set<std::pair<int, int>>{{8, 3}, {8, 5}, {16, 3}, {16, 5}}));
}

TEST(BenchCommand, PrintsATableForPeople) {
  const Finished done = bench("gather", {"--dist", "uniform,zipf", "--threads", "1"});
  EXPECT_EQ(done.code, 0) << done.err;
  EXPECT_TRUE(
      says(done.out, {"1 threads", "gather_ms", "random_row_gbs", "dist uniform", "dist zipf"}));
  EXPECT_EQ(done.out.find("median"), std::string::npos);
}

TEST(BenchCommand, SaysWhatIsWrongInOneLine) {
  expect_error(run_command({"bench"}), 2, "memlayers bench --help");
  expect_error(run_command({"bench", "lokup"}), 2, "memlayers bench --help");
  expect_error(bench("gather", {"--dtype", "float32,float7"}), 2,
               "--dtype: expected \"float32\" or \"bfloat16\"");
  expect_error(bench("gather", {"--dtype", "float7"}), 2, "got float7");
  expect_error(bench("step", {"--model-dtype", "int8"}), 2,
               "--model-dtype: expected \"float32\" or \"bfloat16\", got int8");
  expect_error(bench("gather", {"--model-dtype", "bfloat16"}), 2,
               "gather: --model-dtype: expected float32");
  expect_error(bench("lookup", {"--dtype", "int8"}), 2,
               "lookup: --dtype: expected float32 or bfloat16 (of queries and sub-keys), got int8");
  expect_error(bench("gather", {"--dist", "normal"}), 2, "--dist: expected uniform or zipf");
  expect_error(bench("update", {"--optimizer", "lion"}), 2, "got lion");
  expect_error(bench("lookup", {"--knn", "13"}), 2, "knn: expected at most n_keys (12), got 13");
  expect_error(bench("lookup", {"--k-dim", "15"}), 2, "k_dim: expected an even number, got 15");
  expect_error(bench("lookup", {"--tokens", "0"}), 2, "--tokens");
  expect_error(bench("lookup", {"--repeat", "0"}), 2, "--repeat");
  expect_error(bench("lookup", {"--tokens", "many"}), 2, "--tokens");
  expect_error(bench("step", {"--layers", "3"}), 2, "--layers");  // of a decoder
  for (const char* number : {"nan", "inf"}) {
    expect_error(bench("gather", {"--dist", "zipf", "--zipf-exponent", number}), 2,
                 "--zipf-exponent");
  }
  expect_error(bench("decoder", {"--context", "1"}), 2, "--context: expected 2 or more");
}

TEST(BenchCommand, RefusesOptionsThatWouldHaveNoEffect) {
  expect_error(bench("update", {"--master-rows"}), 2,
               "--master-rows: expected rows of bfloat16 (--dtype), got float32");
  expect_error(bench("lookup", {"--variant", "peer"}), 2, "no rows are read");
  expect_error(bench("lookup", {"--v-dim", "7"}), 2, "no rows are read");
  for (const char* kind : {"lookup", "gather", "layer"}) {
    expect_error(bench(kind, {"--optimizer", "sgd"}), 2, "no rows are updated");
    expect_error(bench(kind, {"--master-rows", "--dtype", "bfloat16"}), 2, "no rows are updated");
  }
}

TEST(BenchCommand, RefusesWhatDoesNotFitIntoTheMemory) {
  expect_error(bench("gather", {"--n-keys", "1000000"}), 1, "of free memory for the pool's rows");
  for (const char* kind : {"lookup", "gather", "update", "layer", "step"}) {
    expect_error(bench(kind, {"--tokens", "100000000000"}), 1,
                 "of free memory for a batch of 100000000000 tokens");
    expect_error(bench(kind, {"--tokens", "9000000000000000000"}), 1, "of free memory");
  }
  expect_error(bench("lookup", {"--tokens", "1", "--n-keys", "100000", "--k-dim", "100000000"}), 1,
               "of free memory for sub-keys and their gradient");
  expect_error(bench("decoder", {"--vocab", "2000000000"}), 1,
               "of free memory for the decoder's weights, gradients and moments");
  expect_error(bench("decoder", {"--vocab", "64", "--tokens", "100000000000"}), 1,
               "of free memory for the logits of 100000000000 tokens");
}

TEST(BenchCommand, HelpShowsAnExample) {
  const Finished help = run_command({"bench", "layer", "--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_TRUE(says(help.out, {"Example:", "--tokens 1", "--zipf-exponent"}));
}

TEST(BenchCommand, ParallelSaysWhereTheTimeOfAStepGoesAndWhatIsSent) {
  const std::vector<std::string> sizes{"--processes", "1,2,4", "--layers", "4",   "--vocab",  "64",
                                       "--context",   "16",    "--dim",    "64",  "--tokens", "64",
                                       "--heads",     "2",     "--knn",    "4",   "--k-dim",  "16",
                                       "--n-keys",    "8",     "--v-dim",  "128", "--repeat", "2"};
  std::vector<std::string> words{"bench", "parallel", "--json", "--threads", "1"};
  words.insert(words.end(), sizes.begin(), sizes.end());
  const std::vector<Json> lines = lines_of(run_command(words));
  ASSERT_EQ(lines.size(), 3U);
  const std::vector<int> processes{1, 2, 4};
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const Json& json = lines[i];
    const double R = processes[i];
    EXPECT_EQ(json["processes"], R);
    EXPECT_EQ(json["threads_a_process"], 1);
    const double sum = json["compute_ms"].get<double>() + json["exchange_ms"].get<double>() +
                       json["wait_ms"].get<double>();
    EXPECT_NEAR(sum, json["step_ms"].get<double>(), 1e-6);
    // Slots, weights and dots, 4 bytes each, to all others; two slices of a row's width each.
    const double layers = static_cast<double>(json["memory_layers"].size()), own = 64 / R;
    const double pool = layers * (own * 8 * (R - 1) * 12 + own * (R - 1) * 128 / R * 8);
    EXPECT_NEAR(json["least_pool_bytes"].get<double>(), pool, 1e-6);
    EXPECT_GE(json["bytes_sent"].get<double>(), json["least_bytes"].get<double>());
    EXPECT_LE(json["bytes_sent"].get<double>(), 1.2 * json["least_bytes"].get<double>());
  }
}

TEST(BenchCommand, ParallelCountsWhatPeerSends) {
  const std::vector<Json> lines = lines_of(run_command(
      {"bench", "parallel", "--json", "--threads", "1",    "--processes", "2",  "--layers",
       "2",     "--vocab",  "64",     "--context", "16",   "--dim",       "64", "--tokens",
       "64",    "--heads",  "2",      "--knn",     "4",    "--k-dim",     "16", "--n-keys",
       "8",     "--v-dim",  "64",     "--variant", "peer", "--repeat",    "1"}));
  ASSERT_EQ(lines.size(), 1U);
  const Json& json = lines[0];
  // Slots, dots, factors, dots, factors; inputs, sums, and the gradients of both.
  const double layers = static_cast<double>(json["memory_layers"].size());
  EXPECT_NEAR(json["least_pool_bytes"].get<double>(), layers * (32 * 8 * 20 + 32 * 32 * 16), 1e-6);
  EXPECT_GE(json["bytes_sent"].get<double>(), json["least_bytes"].get<double>());
  EXPECT_LE(json["bytes_sent"].get<double>(), 1.2 * json["least_bytes"].get<double>());
}

TEST(BenchCommand, ParallelRefusesWhatCannotBe) {
  expect_error(run_command({"bench", "parallel", "--split", "diagonal"}), 2, "--split");
  expect_error(run_command({"bench", "parallel", "--processes", "0"}), 2, "--processes");
}

}  // namespace
}  // namespace memlayers
