// SPDX-License-Identifier: Apache-2.0
#include "io/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "io/model_config_testing.h"
#include "support/expect_error.h"

namespace memlayers::io {
namespace {

using memlayers::testing::expect_error;
using memlayers::testing::TempDir;
using memlayers::testing::write_file;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::llama_config;
using testing::read_config;

ModelConfig with_generation(const std::string& text) {
  const TempDir dir;
  write_file(dir / "generation_config.json", text);
  ModelConfig config = read_config(llama_config().dump());
  read_generation_config(posix(), dir / "generation_config.json", config);
  return config;
}

TEST(ReadGenerationConfig, SaysWhereAGenerationEnds) {
  EXPECT_THAT(with_generation(R"({"eos_token_id": 7})").eos_tokens, ElementsAre(7));
  EXPECT_THAT(with_generation(R"({"eos_token_id": [2, 7]})").eos_tokens, ElementsAre(2, 7));
  // As in transformers: config.json's is not asked then.
  EXPECT_THAT(with_generation(R"({"eos_token_id": null})").eos_tokens, ElementsAre());
  EXPECT_THAT(with_generation("{}").eos_tokens, ElementsAre());
}

TEST(ReadGenerationConfig, PassesOverHowTokensAreDrawn) {
  const ModelConfig config = with_generation(
      R"({"eos_token_id": 7, "bos_token_id": 3, "do_sample": true, "temperature": 0.6, "top_p": 0.9,
          "max_length": 4096, "repetition_penalty": 1.1, "suppress_tokens": [], "min_length": 0,
          "no_repeat_ngram_size": 0, "encoder_repetition_penalty": 1.0, "token_healing": false,
          "transformers_version": "4.43.0"})");
  EXPECT_THAT(config.eos_tokens, ElementsAre(7));
}

TEST(ReadGenerationConfig, NamesWhatItRefuses) {
  const std::pair<const char*, const char*> wrong[] = {
      {R"({"eos_token_id": 128})", "eos_token_id: expected tokens from 0 to 127, got 128"},
      {R"({"eos_token_id": "end"})", "eos_token_id: expected an integer or a list"},
      {R"({"suppress_tokens": [3]})", "suppress_tokens: expected null or [], got [3]"},
      {R"({"forced_eos_token_id": 3})", "forced_eos_token_id: expected null, got 3"},
      {R"({"stop_strings": ["###"]})", "stop_strings: expected null or [], got [\"###\"]"},
      {R"({"min_new_tokens": 5})", "min_new_tokens: expected null or 0, got 5"},
      {R"({"no_repeat_ngram_size": 2})", "no_repeat_ngram_size: expected null or 0, got 2"},
      {R"({"encoder_repetition_penalty": 1.5})",
       "encoder_repetition_penalty: expected null or 1, got 1.5"},
      {R"({"token_healing": true})", "token_healing: expected null or false, got true"},
      {R"([])", "expected an object, got []"},
      {R"({)", "expected JSON"},
  };
  for (const auto& [text, message] : wrong) {
    expect_error([&] { with_generation(text); },
                 AllOf(HasSubstr("generation_config.json: "), HasSubstr(message)));
  }
}

}  // namespace
}  // namespace memlayers::io
