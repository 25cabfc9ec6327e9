// SPDX-License-Identifier: Apache-2.0
// Decoders of other families than LLaMA's first, as transformers computes them.
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cctype>
#include <span>
#include <vector>

#include "io/safetensors.h"
#include "memlayers/llama.h"
#include "nn/golden.h"
#include "support/temp_dir.h"

namespace memlayers {
namespace {

constexpr double kTolerance = 1e-4;  // float32

class GoldenFamily : public ::testing::TestWithParam<std::string> {
 protected:
  at::Tensor tensor_of(const std::string& name) {
    return testing::golden_tensor(
        io::SafetensorsFile::open(io::posix(), GetParam() + "/io.safetensors"), name);
  }
  // Its waves depend on the length of a sequence that is longer than the context.
  bool is_dynamic() const { return GetParam().ends_with("dynamic"); }
};

TEST_P(GoldenFamily, LogitsAndLossMatch) {
  Llama model = load_model(GetParam());
  const torch::NoGradGuard no_grad;
  const at::Tensor tokens = tensor_of("input_ids"), logits = model->forward(tokens);
  const at::Tensor wanted = tensor_of("logits");
  EXPECT_LE((logits - wanted).abs().max().item<double>(), kTolerance);
  at::Tensor targets = torch::full_like(tokens, kIgnoredTarget);
  const std::int64_t last = tokens.size(1) - 1;
  targets.narrow(1, 0, last).copy_(tokens.narrow(1, 1, last));
  const at::Tensor loss = answer_loss(model, model->hidden_states(tokens), targets);
  EXPECT_LE(testing::relative_error(loss.view({1}), tensor_of("loss")), kTolerance);
}

TEST_P(GoldenFamily, GreedyContinuationMatches) {
  Llama model = load_model(GetParam());
  const torch::NoGradGuard no_grad;
  const at::Tensor prompt = tensor_of("input_ids").narrow(1, 0, 5);
  const at::Tensor greedy = torch::cat({prompt, tensor_of("greedy")}, 1);
  at::Tensor tokens = prompt;
  while (tokens.size(1) < greedy.size(1)) {
    const at::Tensor logits = model->forward(tokens);
    tokens = torch::cat({tokens, logits.select(1, tokens.size(1) - 1).argmax(-1, true)}, 1);
  }
  EXPECT_TRUE(torch::equal(tokens, greedy)) << tokens << greedy;
}

TEST_P(GoldenFamily, StepsGiveTheSameLogits) {
  Llama model = load_model(GetParam());
  const torch::NoGradGuard no_grad;
  at::Tensor tokens = tensor_of("input_ids"), wanted = tensor_of("logits");
  if (is_dynamic()) {
    const std::int64_t context = model->config().rope.original_context;
    EXPECT_THROW(KvCache(*model, context + 1), c10::ValueError);
    tokens = tokens.narrow(1, 0, std::min(context, tokens.size(1)));
    wanted = model->forward(tokens);
  }
  for (std::int64_t row = 0; row < tokens.size(0); ++row) {
    const at::Tensor ids = tokens[row].to(torch::kInt).contiguous();
    std::span<const std::int32_t> rest(ids.const_data_ptr<std::int32_t>(),
                                       static_cast<std::size_t>(ids.numel()));
    KvCache cache(*model, ids.numel());
    std::vector<at::Tensor> parts;
    for (const std::size_t count : {std::size_t{7}, std::size_t{1}, std::size_t{1}, std::size_t{4},
                                    std::size_t{1}, rest.size() - 14}) {
      const std::vector<SequenceTokens> step{{&cache, rest.first(count)}};
      parts.push_back(model->step_logits(model->step(step)));
      rest = rest.subspan(count);
    }
    EXPECT_LE((torch::cat(parts) - wanted[row]).abs().max().item<double>(), kTolerance);
  }
}

TEST_P(GoldenFamily, SavedItIsReadBackAsTheSame) {
  Llama model = load_model(GetParam());
  const testing::TempDir folder;
  save_model(model, folder.path());
  Llama again = open_model(folder.path());
  const torch::NoGradGuard no_grad;
  const at::Tensor tokens = tensor_of("input_ids");
  EXPECT_TRUE(torch::equal(again->forward(tokens), model->forward(tokens)));
}

// The memory's decoder may be of any family.
TEST_P(GoldenFamily, WithAMemoryItIsReadBackAsTheSame) {
  ModelConfig config = load_model(GetParam())->config();
  config.memory = MemoryConfig{
      .layers = std::vector<std::int64_t>{1}, .n_keys = 8, .heads = 2, .knn = 4, .k_dim = 8};
  Llama model(config);
  const testing::TempDir folder;
  save_model(model, folder.path());
  Llama again = open_model(folder.path());
  const torch::NoGradGuard no_grad;
  const at::Tensor tokens = tensor_of("input_ids");
  EXPECT_TRUE(torch::equal(again->forward(tokens), model->forward(tokens)));
}

std::string family_name(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param.substr(info.param.rfind('/') + 1);
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return name + "_" + std::to_string(info.index);
}

INSTANTIATE_TEST_SUITE_P(EveryCase, GoldenFamily,
                         ::testing::ValuesIn(testing::golden_cases("families")), family_name);

}  // namespace
}  // namespace memlayers
