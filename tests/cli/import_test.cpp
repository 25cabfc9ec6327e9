// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "cli/command_testing.h"
#include "support/tiny_gguf.h"

namespace memlayers {
namespace {

using testing::expect_error;
using testing::Finished;
using testing::run_command;
using testing::TempDir;

std::string write_tiny(const std::string& path, const testing::TinyGguf& model = {}) {
  testing::GgufBytes file = model.file();
  testing::add_byte_tokenizer(file);
  testing::write_file(path, file.bytes());
  return path;
}

TEST(ImportCommand, MakesAFolderThatSaysWhatTheFileSays) {
  const TempDir dir;
  const std::string file = write_tiny(dir / "tiny.gguf"), out = dir / "tiny";
  const Finished done = run_command({"import", file, "-o", out, "--json"});
  ASSERT_EQ(done.code, 0) << done.err;
  const auto json = nlohmann::json::parse(done.out);
  EXPECT_EQ(json["dtype"], "float32");
  EXPECT_EQ(json["parameters"], 8 * 8 + 3 * 8 + 2 * 64 + 2 * 32 + 3 * 96);
  EXPECT_EQ(run_command({"inspect", out, "--verify"}).code, 0);
  for (const std::vector<std::string>& verb : std::vector<std::vector<std::string>>{
           {"generate", "ab", "--max-tokens", "4", "--ignore-eos"}, {"tokenize", "ab c"}}) {
    std::vector<std::string> of_file = verb, of_folder = verb;
    of_file.insert(of_file.begin() + 1, file);
    of_folder.insert(of_folder.begin() + 1, out);
    const Finished one = run_command(of_file), other = run_command(of_folder);
    EXPECT_EQ(one.code, 0) << one.err;
    EXPECT_EQ(one.out, other.out);
    EXPECT_NE(one.out, "");
  }
  EXPECT_EQ(run_command({"inspect", file}).code, 0);
  const Finished narrow =
      run_command({"import", file, "-o", dir / "narrow", "--dtype", "bfloat16"});
  EXPECT_TRUE(testing::says(narrow.out, {"bfloat16"})) << narrow.err;
}

TEST(ImportCommand, IntoEightAndFourBitsIsWhatQuantizeMakes) {
  const TempDir dir;
  const std::string file = write_tiny(dir / "tiny.gguf", {.dim = 32, .ff_dim = 64});
  ASSERT_EQ(run_command({"import", file, "-o", dir / "plain"}).code, 0);
  for (const std::string type : {"int8", "int4"}) {
    const std::string out = dir / type, quantized = dir / ("quantized-" + type);
    const Finished done = run_command({"import", file, "-o", out, "--dtype", type, "--json"});
    ASSERT_EQ(done.code, 0) << done.err;
    EXPECT_EQ(nlohmann::json::parse(done.out)["dtype"], type);
    ASSERT_EQ(run_command({"quantize", dir / "plain", "--weights", type, "-o", quantized}).code, 0);
    for (const char* name : {"model.safetensors", "config.json", "tokenizer.json"}) {
      EXPECT_EQ(testing::read_file(out + "/" + name), testing::read_file(quantized + "/" + name))
          << name;
    }
  }
}

TEST(ExportCommand, WritesAFileThatSaysWhatTheModelSays) {
  const TempDir dir;
  const std::string file = write_tiny(dir / "tiny.gguf"), out = dir / "out.gguf";
  ASSERT_EQ(run_command({"import", file, "-o", dir / "tiny"}).code, 0);
  const Finished done = run_command({"export", dir / "tiny", "-o", out, "--type", "f32", "--json"});
  ASSERT_EQ(done.code, 0) << done.err;
  EXPECT_EQ(nlohmann::json::parse(done.out)["type"], "F32");
  const std::vector<std::string> rest{"ab", "--max-tokens", "4", "--ignore-eos"};
  std::vector<std::string> before{"generate", file}, after{"generate", out};
  before.insert(before.end(), rest.begin(), rest.end());
  after.insert(after.end(), rest.begin(), rest.end());
  EXPECT_EQ(run_command(before).out, run_command(after).out);
}

TEST(ExportCommand, TakesASentencePieceModel) {
  const TempDir dir;
  ModelConfig dense = testing::tiny_model_config();
  dense.memory.reset();
  testing::write_model(dir / "dense", dense);
  ASSERT_EQ(run_command({"export", dir / "dense", "-o", dir / "x.gguf", "--type", "f32"}).code, 0);
  for (const std::string text : {"the red fox", "", " two  spaces", "new\nline \u00e9"}) {
    EXPECT_EQ(run_command({"tokenize", dir / "dense", text, "--ids"}).out,
              run_command({"tokenize", dir / "x.gguf", text, "--ids"}).out)
        << text;
  }
  const std::vector<std::string> rest{"the red", "--max-tokens", "6", "--ignore-eos"};
  std::vector<std::string> before{"generate", dir / "dense"}, after{"generate", dir / "x.gguf"};
  before.insert(before.end(), rest.begin(), rest.end());
  after.insert(after.end(), rest.begin(), rest.end());
  EXPECT_EQ(run_command(before).out, run_command(after).out);
}

TEST(ExportCommand, RefusesWhatGgufHasNot) {
  const TempDir dir;
  testing::write_model(dir / "memory");
  expect_error(run_command({"export", dir / "memory", "-o", dir / "x.gguf"}), 1, "memory layers");
  ModelConfig dense = testing::tiny_model_config();
  dense.memory.reset();
  testing::write_model(dir / "dense", dense);
  expect_error(run_command({"export", dir / "dense", "-o", dir / "dense"}), 1,
               "does not exist yet");
  expect_error(run_command({"export", dir / "dense", "-o", dir / "x", "--type", "q4_0"}), 2,
               "q4_0");
  EXPECT_FALSE(std::filesystem::exists(dir / "x.gguf"));
}

TEST(ImportCommand, RefusesWhatIsThereAndWhatIsNoFile) {
  const TempDir dir;
  const std::string file = write_tiny(dir / "tiny.gguf");
  expect_error(run_command({"import", file, "-o", file}), 1, "does not exist yet");
  expect_error(run_command({"import", dir / ".", "-o", dir / "x"}), 1, "got a folder");
  expect_error(run_command({"import", dir / "no.gguf", "-o", dir / "x"}), 1, "no.gguf");
  expect_error(run_command({"import", file}), 2, "--out is required");
  expect_error(run_command({"import", file, "-o", dir / "x", "--dtype", "float16"}), 2, "float16");
  testing::write_file(dir / "web.gguf", "<!DOCTYPE html>");
  expect_error(run_command({"import", dir / "web.gguf", "-o", dir / "x"}), 1, "got a web page");
  expect_error(run_command({"generate", dir / "web.gguf", "a"}), 1, "got a web page");
  EXPECT_FALSE(std::filesystem::exists(dir / "x"));
}

}  // namespace
}  // namespace memlayers
