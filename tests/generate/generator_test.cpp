// SPDX-License-Identifier: Apache-2.0
#include "memlayers/generator.h"

#include <gtest/gtest.h>

#include <limits>
#include <set>
#include <thread>

#include "memlayers/evaluate.h"
#include "support/temp_dir.h"
#include "support/testing.h"
#include "support/tiny_model.h"

namespace memlayers {
namespace {

using testing::error_of;
using testing::says;
using testing::tiny_generator;
using testing::tiny_model_config;
using testing::tiny_tokenizer;

const std::vector<std::string> kPrompts{"the red otter", "a", "the glacier and the falcon, the"};

GenerateOptions drawing(std::int64_t max_tokens) {
  GenerateOptions options;
  options.max_tokens = max_tokens;
  options.temperature = 1;
  options.seed = 9;
  options.ignore_eos = true;
  return options;
}

TEST(Generator, GreedyIsTheMostLikelyTokenOfAForwardPassWithoutACache) {
  Generator generator = tiny_generator();
  GenerateOptions options;
  options.max_tokens = 12;
  options.ignore_eos = true;
  const Generation result = generator.generate({kPrompts[0]}, options)[0];
  std::vector<std::int32_t> tokens = tiny_tokenizer()->encode(kPrompts[0]);
  tokens.insert(tokens.begin(), tiny_tokenizer()->bos().value());
  EXPECT_EQ(result.prompt_tokens, static_cast<std::int64_t>(tokens.size()));
  ASSERT_EQ(result.tokens.size(), 12U);
  std::set<std::int32_t> different;
  const torch::NoGradGuard no_gradient;
  for (const std::int32_t token : result.tokens) {
    const at::Tensor input = torch::tensor(tokens, torch::kInt).to(torch::kLong).unsqueeze(0);
    EXPECT_EQ(generator.model()->forward(input)[0][-1].argmax().item<std::int64_t>(), token);
    tokens.push_back(token);
    different.insert(token);
  }
  EXPECT_GT(different.size(), 2U) << "a model that says one thing would test nothing";
  EXPECT_EQ(result.text, tiny_tokenizer()->decode(tokens).substr(kPrompts[0].size()));
}

TEST(Generator, ARowOfABatchGivesWhatItGivesByItself) {
  Generator generator = tiny_generator();
  for (const double temperature : {0.0, 1.0}) {
    GenerateOptions options = drawing(20);
    options.temperature = temperature;
    const auto batch = generator.generate(kPrompts, options);
    ASSERT_EQ(batch.size(), 3U);
    for (std::size_t row = 0; row < 3U; ++row) {
      const Generation single = generator.generate({kPrompts[row]}, options)[0];
      EXPECT_EQ(single.tokens, batch[row].tokens) << "row " << row;
      EXPECT_EQ(single.text, batch[row].text);
      EXPECT_EQ(single.prompt_tokens, batch[row].prompt_tokens);
    }
  }
}

TEST(Generator, ARowDrawsTheSameWhateverItsNeighboursAre) {
  Generator generator = tiny_generator();
  const auto first = generator.generate({kPrompts[0], kPrompts[1]}, drawing(15));
  const auto second = generator.generate({kPrompts[2], kPrompts[1], kPrompts[0]}, drawing(15));
  EXPECT_EQ(first[1].tokens, second[1].tokens);
  EXPECT_EQ(first[0].tokens, second[2].tokens);
}

TEST(Generator, StreamedTextIsTheFinalText) {
  Generator generator = tiny_generator();
  for (const std::vector<std::string>& stop :
       {std::vector<std::string>{}, {"e"}, {"th", " a"}, {"no such text"}}) {
    GenerateOptions options = drawing(30);
    options.stop = stop;
    std::vector<std::string> streamed(kPrompts.size());
    const auto results =
        generator.generate(kPrompts, options, [&](std::int64_t row, const auto& t) {
          EXPECT_FALSE(t.empty());
          streamed[static_cast<std::size_t>(row)] += t;
          return true;
        });
    for (std::size_t row = 0; row < kPrompts.size(); ++row) {
      EXPECT_EQ(streamed[row], results[row].text);
      for (const std::string& s : stop) {
        EXPECT_EQ(results[row].text.find(s), std::string::npos) << s;
      }
    }
  }
}

TEST(Generator, AStopStringCutsTheTextAndEndsTheRow) {
  Generator generator = tiny_generator();
  GenerateOptions options = drawing(30);
  const Generation whole = generator.generate({kPrompts[0]}, options)[0];
  ASSERT_GT(whole.text.size(), 12U);
  // A piece from the middle of what comes without stopping, so that it comes for certain.
  options.stop = {whole.text.substr(whole.text.size() / 2, 5)};
  const Generation cut = generator.generate({kPrompts[0]}, options)[0];
  EXPECT_EQ(cut.finish, FinishReason::kStop);
  EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find(options.stop[0])));
  EXPECT_LT(cut.tokens.size(), whole.tokens.size());
  EXPECT_EQ(whole.finish, FinishReason::kLength);
}

TEST(Generator, EndsAtTheEndTokenUnlessToldNotTo) {
  Generator generator = tiny_generator();
  const std::int32_t eos = tiny_tokenizer()->eos().value();
  GenerateOptions options = drawing(30);
  options.temperature = 3;
  int ended = 0;
  for (options.seed = 0; options.seed < 40; ++options.seed) {  // among so many draws some are EOS
    options.ignore_eos = true;
    const Generation on = generator.generate({"the"}, options)[0];
    options.ignore_eos = false;
    const Generation result = generator.generate({"the"}, options)[0];
    EXPECT_EQ(std::count(result.tokens.begin(), result.tokens.end(), eos), 0);
    EXPECT_EQ(on.tokens.size(), 30U);
    const auto end = std::find(on.tokens.begin(), on.tokens.end(), eos);
    EXPECT_EQ(result.tokens, std::vector<std::int32_t>(on.tokens.begin(), end));
    if (end != on.tokens.end()) {
      ++ended;
      EXPECT_EQ(result.finish, FinishReason::kStop);
    }
  }
  EXPECT_GT(ended, 0);
}

// As in transformers, where the tokenizer's EOS ends nothing.
TEST(Generator, WhereTheModelNamesEndTokensThoseAloneEnd) {
  ModelConfig config = tiny_model_config();
  Generator plain = tiny_generator(config);
  const std::int32_t second = plain.generate({"the"}, drawing(8))[0].tokens.at(1);
  config.eos_tokens = {second};
  GenerateOptions options = drawing(8);
  options.ignore_eos = false;
  const Generation result = tiny_generator(config).generate({"the"}, options)[0];
  EXPECT_LE(result.tokens.size(), 1U);
  EXPECT_EQ(result.finish, FinishReason::kStop);

  const std::int32_t eos = tiny_tokenizer()->eos().value();
  options = drawing(30);
  options.temperature = 3;
  options.ignore_eos = false;
  config.eos_tokens = {second == 0 ? 1 : 0};
  Generator other = tiny_generator(config);
  bool has_eos = false;
  for (options.seed = 0; options.seed < 40; ++options.seed) {  // among so many draws some are EOS
    const std::vector<std::int32_t> tokens = other.generate({"the"}, options)[0].tokens;
    has_eos = has_eos || std::count(tokens.begin(), tokens.end(), eos) > 0;
  }
  EXPECT_TRUE(has_eos);
}

TEST(Generator, StopsAtMaxTokensAndAtTheEndOfTheContext) {
  Generator generator = tiny_generator();
  EXPECT_EQ(generator.generate({"the"}, drawing(7))[0].tokens.size(), 7U);
  const Generation none = generator.generate({"the"}, drawing(0))[0];
  EXPECT_TRUE(none.tokens.empty());
  EXPECT_EQ(none.text, "");
  // Rows of different lengths each run into their own end.
  const auto results = generator.generate(kPrompts, drawing(1000));
  for (const Generation& result : results) {
    EXPECT_EQ(result.prompt_tokens + static_cast<std::int64_t>(result.tokens.size()), 40);
    EXPECT_EQ(result.finish, FinishReason::kLength);
  }
}

TEST(Generator, APromptThatFillsTheContextGivesNothingAloneOrInABatch) {
  Generator generator = tiny_generator();
  const std::vector<std::int32_t> full(40, 5), shorter(38, 5);
  const auto batch = generator.generate_tokens({full, shorter}, drawing(10));
  EXPECT_TRUE(batch[0].empty());
  EXPECT_EQ(batch[1].size(), 2U);
  EXPECT_TRUE(generator.generate_tokens({full}, drawing(10))[0].empty());
}

TEST(Generator, ARowEndsWhenTheReaderSaysSo) {
  Generator generator = tiny_generator();
  int pieces = 0;
  const auto results = generator.generate({kPrompts[0], kPrompts[1]}, drawing(20),
                                          [&](std::int64_t row, const std::string&) {
                                            pieces += row == 0;
                                            return row != 0;
                                          });
  EXPECT_EQ(pieces, 1);
  EXPECT_EQ(results[0].finish, FinishReason::kStop);
  EXPECT_EQ(results[1].tokens.size(), 20U);
}

TEST(Generator, TheSeedDecidesTheDraws) {
  Generator generator = tiny_generator();
  GenerateOptions options = drawing(20);
  const auto tokens = [&] { return generator.generate({"the"}, options)[0].tokens; };
  const auto first = tokens();
  EXPECT_EQ(first, tokens());
  options.seed = 10;
  EXPECT_NE(first, tokens());
}

TEST(Generator, TokensAndTextGoTheSameWay) {
  Generator generator = tiny_generator();
  std::vector<std::int32_t> prompt = tiny_tokenizer()->encode("the");
  prompt.insert(prompt.begin(), tiny_tokenizer()->bos().value());
  EXPECT_EQ(generator.generate_tokens({prompt}, drawing(10))[0],
            generator.generate({"the"}, drawing(10))[0].tokens);
  EXPECT_TRUE(generator.generate_tokens({}, drawing(10)).empty());
}

TEST(Generator, LogitsThatTheTokenizerHasNoTokensForAreNeverTaken) {
  ModelConfig config = tiny_model_config();
  config.vocab_size = 2000;  // most of a random model's draws would be beyond the tokenizer's 300
  Generator generator = tiny_generator(config);
  for (const Generation& result : generator.generate(kPrompts, drawing(30))) {
    for (const std::int32_t token : result.tokens) EXPECT_LT(token, 300);
  }
}

TEST(Generator, LogitsThatAreNotFiniteAreAnError) {
  Generator generator = tiny_generator();
  const torch::NoGradGuard no_grad;
  generator.model()->dense_parameters().back().second.fill_(std::numeric_limits<float>::max());
  const std::string wanted = "logits: expected finite numbers";
  EXPECT_TRUE(says(error_of([&] { generator.generate(kPrompts, {}); }), {wanted}));
  EXPECT_TRUE(says(error_of([&] { generator.generate(kPrompts, drawing(3)); }), {wanted}));
  EXPECT_TRUE(says(error_of([&] { evaluate_facts(generator, {{"the red", "otter"}}); }), {wanted}));
  const testing::TempDir dir;
  testing::write_file(dir / "text.txt", "the red otter");
  EXPECT_TRUE(says(error_of([&] {
                     evaluate_text(generator, {dir / "text.txt"}, DataFormat::kAuto, dir / "cache");
                   }),
                   {wanted}));
}

TEST(Generator, SeveralThreadsMayGenerateAtOnce) {
  Generator generator = tiny_generator();
  const auto expected = generator.generate(kPrompts, drawing(15));
  std::vector<std::vector<Generation>> results(4);
  std::vector<std::thread> threads;
  for (auto& result : results) {
    threads.emplace_back([&] { result = generator.generate(kPrompts, drawing(15)); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : results) {
    for (std::size_t row = 0; row < kPrompts.size(); ++row) {
      EXPECT_EQ(result[row].tokens, expected[row].tokens);
    }
  }
}

TEST(Generator, ADecoderThatKeepsPrefixesAnswersTheNextTurnAsANewOne) {
  ModelConfig config = tiny_model_config();
  config.context = 6 * KvCache::kPageTokens;
  Generator generator = tiny_generator(config);
  Decoder decoder(generator.model(), generator.shared_tokenizer(), {.keeps_prefixes = true});
  std::string talk;
  for (int turn = 0; turn < 3; ++turn) {
    for (int i = 0; i < 4; ++i) talk += "the red otter has number one ";
    const std::vector<std::vector<PromptPiece>> prompts{{{talk, false}}};
    const auto kept = generator.generate_pieces(decoder, prompts, drawing(20));
    EXPECT_EQ(kept[0].tokens, generator.generate_pieces(prompts, drawing(20))[0].tokens);
    EXPECT_TRUE(decoder.is_idle());
    talk += kept[0].text;
  }
  EXPECT_GT(decoder.cache_bytes(), 0);
  const auto fail = [](std::int64_t, const std::string&) -> bool { throw Error("no reader"); };
  EXPECT_TRUE(says(error_of([&] {
                     generator.generate_pieces(decoder, {{{"the red otter", false}}}, drawing(20),
                                               fail);
                   }),
                   {"no reader"}));
  EXPECT_TRUE(decoder.is_idle());
}

TEST(Generator, SaysWhatIsWrongWithARequest) {
  Generator generator = tiny_generator();
  const auto error = [&](const std::vector<std::string>& prompts, const GenerateOptions& options) {
    return error_of([&] { generator.generate(prompts, options); });
  };
  EXPECT_TRUE(says(error({}, {}), {"prompts", "none"}));
  std::string long_prompt;
  for (int i = 0; i < 60; ++i) long_prompt += " otter";
  EXPECT_TRUE(says(error({"a", long_prompt}, {}), {"prompt", "at most 40 tokens"}));
  EXPECT_TRUE(says(error({"\xff"}, {}), {"UTF-8"}));
  GenerateOptions options;
  options.max_tokens = -1;
  EXPECT_TRUE(says(error({"a"}, options), {"max_tokens"}));
  EXPECT_TRUE(
      says(error_of([&] { generator.generate_tokens({{}}, {}); }), {"prompt", "at least one"}));
  ModelConfig small = tiny_model_config();
  small.vocab_size = 299;
  EXPECT_TRUE(says(error_of([&] { tiny_generator(small); }), {"at most 299", "got 300"}));
}

}  // namespace
}  // namespace memlayers
