// SPDX-License-Identifier: Apache-2.0
// Every decoder case: a plain Hugging Face folder is loaded as it is; logits, loss, gradients and
// greedy continuation match.
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <string>

#include "memlayers/llama.h"
#include "nn/golden.h"

namespace memlayers {
namespace {

constexpr double kTolerance = 1e-4;  // relative, float32

class GoldenLlama : public ::testing::TestWithParam<std::string> {
 protected:
  at::Tensor tensor_of(const std::string& name) {
    return testing::golden_tensor(
        io::SafetensorsFile::open(io::posix(), GetParam() + "/io.safetensors"), name);
  }
};

TEST_P(GoldenLlama, LogitsLossAndAllGradientsMatch) {
  Llama model = load_model(GetParam());
  const at::Tensor tokens = tensor_of("input_ids");
  const at::Tensor hidden = model->hidden_states(tokens);
  EXPECT_LE(testing::relative_error(model->logits(hidden), tensor_of("logits")), kTolerance);

  at::Tensor targets = torch::full_like(tokens, kIgnoredTarget);
  const std::int64_t last = tokens.size(1) - 1;
  targets.narrow(1, 0, last).copy_(tokens.narrow(1, 1, last));
  const at::Tensor loss = answer_loss(model, hidden, targets);
  EXPECT_LE(testing::relative_error(loss.view({1}), tensor_of("loss")), kTolerance);

  loss.backward();
  const auto parameters = model->dense_parameters();
  for (const auto& [name, parameter] : parameters) {
    EXPECT_LE(testing::relative_error(parameter.grad(), tensor_of("grad." + name)), kTolerance)
        << name;
  }
}

TEST_P(GoldenLlama, GreedyContinuationMatchesWithTheCache) {
  Llama model = load_model(GetParam());
  const torch::NoGradGuard no_grad;
  const at::Tensor greedy = tensor_of("greedy");
  constexpr std::int64_t kPrompt = 5;
  at::Tensor tokens = greedy.narrow(1, 0, kPrompt);
  std::vector<KvCache> caches;
  for (std::int64_t row = 0; row < tokens.size(0); ++row) {
    caches.emplace_back(*model, greedy.size(1));
  }
  at::Tensor next = tokens;
  while (tokens.size(1) < greedy.size(1)) {
    const at::Tensor ids = next.to(torch::kInt).contiguous();
    const std::span<const std::int32_t> all(ids.const_data_ptr<std::int32_t>(),
                                            static_cast<std::size_t>(ids.numel()));
    const std::size_t count = all.size() / caches.size();
    std::vector<SequenceTokens> step;
    for (std::size_t row = 0; row < caches.size(); ++row) {
      step.push_back({&caches[row], all.subspan(row * count, count)});
    }
    const at::Tensor logits =
        model->step_logits(model->step(step)).view({tokens.size(0), next.size(1), -1});
    next = logits.select(1, logits.size(1) - 1).argmax(-1, /*keepdim=*/true);
    tokens = torch::cat({tokens, next}, 1);
  }
  EXPECT_TRUE(torch::equal(tokens, greedy)) << tokens << greedy;
}

std::string case_name(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param.substr(info.param.rfind('/') + 1);
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(EveryCase, GoldenLlama,
                         ::testing::ValuesIn(testing::golden_cases("llama")), case_name);

}  // namespace
}  // namespace memlayers
