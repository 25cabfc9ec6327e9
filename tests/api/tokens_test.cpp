// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "api/token_text.h"
#include "support/api_client.h"

namespace memlayers::testing {
namespace {

using Json = nlohmann::json;

class Tokens : public ::testing::Test {
 protected:
  ApiClient client;
};

TEST_F(Tokens, OfATextInVllmsFields) {
  const Json tokens = client.post("/tokenize", {{"model", "letters"}, {"prompt", "ab"}});
  EXPECT_EQ(tokens["tokens"], Json({256, 97, 98}));
  EXPECT_EQ(tokens["count"], 3);
  EXPECT_EQ(tokens["max_model_len"], 512);
  EXPECT_TRUE(tokens["token_strs"].is_null());
  const Json bare = client.post(
      "/tokenize", {{"prompt", "ab"}, {"add_special_tokens", false}, {"return_token_strs", true}});
  EXPECT_EQ(bare["tokens"], Json({97, 98}));
  EXPECT_EQ(bare["token_strs"], Json({"a", "b"}));
  EXPECT_EQ(
      client.post("/tokenize", {{"messages", {{{"role", "user"}, {"content", "x"}}}}})["count"],
      19);
}

TEST_F(Tokens, OfATextInLlamaServersFields) {
  EXPECT_EQ(client.post("/tokenize", {{"content", "ab"}})["tokens"], Json({97, 98}));
  EXPECT_EQ(client.post("/tokenize", {{"content", "ab"}, {"add_special", true}})["tokens"],
            Json({256, 97, 98}));
  EXPECT_EQ(client.post("/tokenize", {{"content", "a\xC3\xA9"}, {"with_pieces", true}})["tokens"],
            Json({{{"id", 97}, {"piece", "a"}},
                  {{"id", 0xC3}, {"piece", {0xC3}}},
                  {{"id", 0xA9}, {"piece", {0xA9}}}}));
}

TEST_F(Tokens, ComeFromOneTextAtATime) {
  client.error("/tokenize", {{"prompt", "a"}, {"content", "b"}});
  client.error("/tokenize", Json::object());
  EXPECT_EQ(client.error("/tokenize", {{"prompt", 5}})["param"], "prompt");
  EXPECT_EQ(client.error("/tokenize", {{"prompt", "a"}, {"text", "b"}})["param"], "text");
}

TEST_F(Tokens, BecomeTextWithTheNamesOfSpecialOnes) {
  const Json text = client.post("/detokenize", {{"tokens", {256, 97, 98, 257}}});
  EXPECT_EQ(text["prompt"], "<s>ab</s>");
  EXPECT_EQ(text["content"], "<s>ab</s>");
  EXPECT_EQ(client.error("/detokenize", {{"tokens", {258}}})["param"], "tokens[0]");
  EXPECT_EQ(client.error("/detokenize", {{"tokens", "ab"}})["param"], "tokens");
}

TEST_F(Tokens, OfAConversationAsText) {
  const Json messages{{{"role", "user"}, {"content", "hi"}}};
  EXPECT_EQ(client.post("/apply-template", {{"messages", messages}})["prompt"],
            "[user]hi\n[assistant]");
  EXPECT_EQ(client.post("/apply-template",
                        {{"messages", messages}, {"add_generation_prompt", false}})["prompt"],
            "[user]hi\n");
  EXPECT_EQ(client.error("/apply-template", Json::object())["param"], Json());
}

TEST_F(Tokens, HaveATokenizerThatTellsOfItself) {
  const Json info = client.get("/tokenizer_info");
  EXPECT_EQ(info["bos_token"], "<s>");
  EXPECT_EQ(info["eos_token"], "</s>");
  EXPECT_TRUE(info["pad_token"].is_null());
  EXPECT_EQ(info["eos_token_id"], 257);
  EXPECT_EQ(info["vocab_size"], 258);
}

// A real one, with byte fallback: pieces keep their space, and bytes are bytes.
TEST(TokenTexts, AreWhatATokenAddsToAText) {
  const auto tokenizer = train_tokenizer({"the heron the stork the tern the heron"}, 300);
  const api::TokenTexts texts(*tokenizer);
  std::string text;
  const std::string source = " the heron \xF0\x9F\xA6\xA9";
  for (const std::int32_t id : tokenizer->encode(source)) text += texts(id).bytes;
  EXPECT_EQ(text.substr(text.find("the")), source.substr(1));
  EXPECT_TRUE(texts(*tokenizer->bos()).is_special);
  EXPECT_EQ(texts(*tokenizer->bos()).bytes, "<s>");
  EXPECT_EQ(texts(300).bytes, "<unused 300>");  // a model may have more tokens
  std::set<std::string> names;
  for (std::int32_t id = 0; id < tokenizer->vocab_size(); ++id) {
    if (texts(id).bytes.size() == 1 && static_cast<unsigned char>(texts(id).bytes[0]) >= 0x80) {
      EXPECT_TRUE(names.insert(texts.name(id)).second) << id;
    }
  }
  EXPECT_EQ(names.size(), 128U);
}

}  // namespace
}  // namespace memlayers::testing
