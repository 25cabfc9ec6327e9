// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <torch/nn/functional/loss.h>
#include <torch/types.h>

#include <cmath>

#include "memlayers/error.h"
#include "memlayers/evaluate.h"
#include "support/temp_dir.h"
#include "support/testing.h"
#include "support/tiny_model.h"

namespace memlayers {
namespace {

using testing::error_of;
using testing::says;
using testing::TempDir;
using testing::tiny_generator;

std::string long_text(int words) {
  static const char* const kWords[] = {"the", "red", "otter", "blue", "maple", "green", "comet"};
  std::string text = "the";
  for (int i = 0; i < words; ++i) text += std::string(" ") + kWords[i * i % 7];
  return text;
}

// As transformers' documentation computes it ("Perplexity of fixed-length models"), a window at a
// time: the mean of what each window predicts anew, weighted by its count of labels less one, also
// where the first of them is predicted.
double loss_of_the_documentation(Generator& generator, const std::string& text,
                                 std::int64_t stride) {
  const torch::NoGradGuard no_grad;
  const std::vector<std::int32_t> ids = generator.tokenizer().encode_prompt(text);
  const at::Tensor all =
      torch::tensor(std::vector<std::int64_t>(ids.begin(), ids.end()), torch::kLong);
  const std::int64_t length = all.size(0), context = generator.model()->config().context;
  double sum = 0, count = 0;
  for (std::int64_t begin = 0, previous = 0; begin < length; begin += stride) {
    const std::int64_t end = std::min(begin + context, length), labels = end - previous;
    const at::Tensor window = all.slice(0, begin, end).unsqueeze(0);
    at::Tensor wanted = window.clone();
    wanted.slice(1, 0, end - begin - labels).fill_(-100);
    const at::Tensor logits = generator.model()->forward(window);
    const double mean = torch::nn::functional::cross_entropy(logits.slice(1, 0, -1).flatten(0, 1),
                                                             wanted.slice(1, 1).flatten())
                            .item<double>();
    sum += mean * static_cast<double>(labels - 1);
    count += static_cast<double>(labels - 1);
    previous = end;
    if (end == length) break;
  }
  return sum / count;
}

TextScore by_windows(Generator& generator, const std::string& path, const WindowOptions& options) {
  return evaluate_windows(generator, {path}, DataFormat::kAuto, options);
}

TEST(EvaluateWindows, PerplexityIsThatOfTransformersDocumentation) {
  Generator generator = tiny_generator();
  const TempDir dir;
  testing::write_file(dir / "t.txt", long_text(400));
  for (const std::int64_t stride : {16, 23, 40}) {
    const TextScore score = by_windows(generator, dir / "t.txt", {.stride = stride});
    const double wanted = std::exp(loss_of_the_documentation(generator, long_text(400), stride));
    EXPECT_NEAR(std::exp(score.loss), wanted, 1e-3 * wanted) << stride;
  }
}

// Against a pass over each window by itself, token by token.
TEST(EvaluateWindows, EachTokenIsPredictedOnceWithWhatStandsBeforeItInItsWindow) {
  Generator generator = tiny_generator();
  const torch::NoGradGuard no_grad;
  const TempDir dir;
  testing::write_file(dir / "t.txt", long_text(60));
  const std::vector<std::int32_t> ids = generator.tokenizer().encode_prompt(long_text(60));
  const at::Tensor all =
      torch::tensor(std::vector<std::int64_t>(ids.begin(), ids.end()), torch::kLong);
  constexpr std::int64_t kWindow = 12, kStride = 5;
  double nll = 0;
  for (std::int64_t token = 1; token < all.size(0); ++token) {
    std::int64_t begin = 0;  // of the first window that reaches the token
    while (begin + kWindow <= token) begin += kStride;
    const at::Tensor window = all.slice(0, begin, token + 1);
    const at::Tensor p = generator.model()->forward(window.unsqueeze(0))[0].log_softmax(-1);
    nll -= p[token - begin - 1][all[token].item<std::int64_t>()].item<double>();
  }
  const TextScore score =
      by_windows(generator, dir / "t.txt", {.stride = kStride, .window = kWindow});
  EXPECT_EQ(score.tokens, all.size(0) - 1);
  EXPECT_NEAR(score.loss, nll / static_cast<double>(score.tokens), 1e-5);
}

TEST(EvaluateWindows, BatchesChangeNothingAndProgressComesToTheEnd) {
  Generator generator = tiny_generator();
  const TempDir dir;
  testing::write_file(dir / "t.jsonl", "{\"text\":\"" + long_text(1500) + "\"}\n{\"text\":\"" +
                                           long_text(3) + "\"}\n");
  const auto tokens = [&](int words) {
    return static_cast<std::int64_t>(generator.tokenizer().encode_prompt(long_text(words)).size());
  };
  const std::int64_t wanted = tokens(1500) + tokens(3) - 2;
  std::int64_t last = 0;
  const TextScore narrow =
      evaluate_windows(generator, {dir / "t.jsonl"}, DataFormat::kAuto,
                       {.stride = 7, .batch_tokens = 1}, [&](std::int64_t done, std::int64_t all) {
                         EXPECT_GT(done, last);
                         EXPECT_EQ(all, wanted);
                         last = done;
                       });
  EXPECT_EQ(last, wanted);
  const TextScore wide = by_windows(generator, dir / "t.jsonl", {.stride = 7});
  EXPECT_EQ(narrow.tokens, wanted);
  EXPECT_EQ(wide.tokens, wanted);
  EXPECT_NEAR(narrow.loss, wide.loss, 1e-5);
  ASSERT_TRUE(wide.interval);
  EXPECT_LT(wide.interval->low, wide.loss);
  EXPECT_GT(wide.interval->high, wide.loss);
}

TEST(EvaluateWindows, OfAFewTokensNobodyKnowsTheInterval) {
  Generator generator = tiny_generator();
  const TempDir dir;
  testing::write_file(dir / "t.txt", long_text(10));  // fits: one window, whatever the stride
  const TextScore one = by_windows(generator, dir / "t.txt", {.stride = 1});
  EXPECT_EQ(one.loss, by_windows(generator, dir / "t.txt", {.stride = 40}).loss);
  EXPECT_FALSE(one.interval);
}

TEST(EvaluateWindows, OfFactsTheAnswersArePredicted) {
  Generator generator = tiny_generator();
  const TempDir dir;
  testing::write_file(dir / "f.jsonl", R"({"prompt":"the red otter","answer":"two hundred"})");
  const auto answer = generator.tokenizer().encode_continuation("two hundred");
  const TextScore score = by_windows(generator, dir / "f.jsonl", {.stride = 40});
  EXPECT_EQ(score.tokens, static_cast<std::int64_t>(answer.size()));
}

TEST(EvaluateWindows, NamesWhatCannotBe) {
  Generator generator = tiny_generator();  // with a context of 40
  const TempDir dir;
  testing::write_file(dir / "t.txt", "the red otter");
  const auto error = [&](const WindowOptions& options) {
    return error_of([&] { by_windows(generator, dir / "t.txt", options); });
  };
  EXPECT_EQ(error({.stride = 0}), "stride: expected 1 to 40, the window, got 0");
  EXPECT_EQ(error({.stride = 12, .window = 11}), "stride: expected 1 to 11, the window, got 12");
  EXPECT_EQ(error({.stride = 1, .window = 41}),
            "window: expected 2 to 40, the model's context, got 41");
  EXPECT_EQ(error({.stride = 1, .window = 1}),
            "window: expected 2 to 40, the model's context, got 1");
  testing::write_file(dir / "t.txt", "");
  EXPECT_TRUE(says(error({.stride = 4}), {"t.txt", "got none"}));
}

}  // namespace
}  // namespace memlayers
