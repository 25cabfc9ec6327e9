// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "cli/command_testing.h"
#include "memlayers/ops.h"

namespace memlayers {
namespace {

using testing::expect_error;
using testing::Finished;
using testing::run_command;
using testing::TempDir;

TEST(QuantizeCommand, WritesAModelWhosePoolReadsAsTheQuantizedRowsOfTheOther) {
  const TempDir dir;
  testing::write_model(dir / "model");
  for (const char* rows : {"int8", "int4"}) {
    const std::string out = dir / rows;
    const Finished done =
        run_command({"quantize", dir / "model", "--rows", rows, "-o", out, "--json"});
    ASSERT_EQ(done.code, 0) << done.err;
    const auto json = nlohmann::json::parse(done.out);
    EXPECT_EQ(json["pool_bytes_before"], 36 * 32 * 4);
    Llama model = load_model(out), before = load_model(dir / "model");
    const RowType type = model->config().memory->row_dtype;
    EXPECT_STREQ(row_type_name(type), rows);
    EXPECT_TRUE(torch::equal(model->pool()->values, quantize_rows(before->pool()->values, type)));
    EXPECT_EQ(json["pool_bytes"], model->pool()->values.nbytes());
    EXPECT_EQ(run_command({"inspect", out, "--verify", "--digest"}).code, 0);
    const Finished answer = run_command({"generate", out, "the red", "--max-tokens", "3"});
    EXPECT_EQ(answer.code, 0) << answer.err;
  }
}

TEST(QuantizeCommand, RefusesWhatIsThereWhatHasNoPoolAndWhatIsQuantized) {
  const TempDir dir;
  testing::write_model(dir / "model");
  expect_error(run_command({"quantize", dir / "model", "-o", dir / "model"}), 1, "not exist");
  expect_error(run_command({"quantize", dir / "model", "-o", dir / "x", "--rows", "int3"}), 2,
               "int3");
  ModelConfig dense = testing::tiny_model_config();
  dense.memory.reset();
  testing::write_model(dir / "dense", dense);
  expect_error(run_command({"quantize", dir / "dense", "-o", dir / "x"}), 1, "without a pool");
  ASSERT_EQ(run_command({"quantize", dir / "model", "-o", dir / "int8"}).code, 0);
  expect_error(run_command({"quantize", dir / "int8", "-o", dir / "x"}), 1, "got int8");
  EXPECT_FALSE(std::filesystem::exists(dir / "x"));
}

}  // namespace
}  // namespace memlayers
