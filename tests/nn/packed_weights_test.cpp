// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <string>
#include <vector>

#include "io/file_system.h"
#include "io/folder.h"
#include "memlayers/error.h"
#include "memlayers/llama.h"
#include "support/temp_dir.h"

namespace memlayers {
namespace {

ModelConfig config(std::int64_t dim = 64) {
  ModelConfig config{.dim = dim, .layers = 2, .heads = 4, .kv_heads = 2, .ff_dim = 96};
  config.vocab_size = 80;
  config.context = 64;
  return config;
}

Llama small(const ModelConfig& config) {
  torch::manual_seed(3);
  Llama model(config);
  model->eval();
  return model;
}

std::vector<std::int32_t> tokens(std::int32_t count) {
  std::vector<std::int32_t> ids;
  for (std::int32_t i = 0; i < count; ++i) ids.push_back(i * 7 % 80);
  return ids;
}

at::Tensor logits(Llama& model, std::vector<std::int32_t> ids) {
  const torch::NoGradGuard no_grad;
  return model->forward(torch::tensor(ids, torch::kInt).to(torch::kLong).unsqueeze(0))[0];
}

double difference(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).pow(2).mean() / b.pow(2).mean()).sqrt().item<double>();
}

TEST(PackedWeights, KeepTheLogitsAsTheirBitsAllow) {
  Llama model = small(config());
  const at::Tensor wanted = logits(model, tokens(20));
  model->quantize_weights(RowType::kInt8);
  EXPECT_EQ(model->config().weights, RowType::kInt8);
  EXPECT_LT(difference(logits(model, tokens(20)), wanted), 0.03);
  Llama narrow = small(config());
  narrow->quantize_weights(RowType::kInt4);
  const double lost = difference(logits(narrow, tokens(20)), wanted);
  EXPECT_LT(lost, 0.25);
  EXPECT_GT(lost, 0.03);
  EXPECT_THROW(narrow->quantize_weights(RowType::kInt8), c10::ValueError);
  EXPECT_THROW(small(config())->quantize_weights(RowType::kFloat32), c10::ValueError);
}

TEST(PackedWeights, GiveAStepTheBitsOfTheWholeForward) {
  Llama model = small(config());
  model->quantize_weights(RowType::kInt4);
  const std::vector<std::int32_t> ids = tokens(30);
  KvCache whole(*model, 30), pieces(*model, 30);
  const SequenceTokens all{&whole, ids};
  const at::Tensor together = model->step({&all, 1});
  std::vector<at::Tensor> parts;
  for (std::size_t at = 0; at < ids.size(); at += 7) {
    const SequenceTokens part{&pieces,
                              std::span(ids).subspan(at, std::min<std::size_t>(7, 30 - at))};
    parts.push_back(model->step({&part, 1}));
  }
  EXPECT_TRUE(torch::equal(torch::cat(parts), together));
  EXPECT_LT(difference(model->step_logits(together), logits(model, ids)), 1e-5);
}

TEST(PackedWeights, AreWhatTheyWereWhenAFolderIsRead) {
  for (const RowType type : {RowType::kInt8, RowType::kInt4}) {
    for (const bool is_tied : {true, false}) {
      ModelConfig with = config();
      with.tie_embeddings = is_tied;
      Llama model = small(with);
      model->quantize_weights(type);
      const testing::TempDir dir;
      const std::string folder = dir / "model";
      io::make_folders(io::posix(), folder);
      save_model(model, folder);
      for (const bool reads : {true, false}) {
        Llama again = reads ? open_model(folder) : load_model(folder);
        again->eval();
        EXPECT_EQ(again->config().weights, type);
        EXPECT_TRUE(torch::equal(logits(again, tokens(9)), logits(model, tokens(9))));
      }
    }
  }
}

TEST(PackedWeights, LeaveWhatHasNoWholeGroups) {
  Llama model = small(config(72));
  const at::Tensor wanted = logits(model, tokens(9));
  model->quantize_weights(RowType::kInt8);
  EXPECT_FALSE(torch::equal(logits(model, tokens(9)), wanted));  // ff_dim has whole groups
  const testing::TempDir dir;
  io::make_folders(io::posix(), dir / "model");
  save_model(model, dir / "model");
  Llama again = open_model(dir / "model");
  again->eval();
  EXPECT_TRUE(torch::equal(logits(again, tokens(9)), logits(model, tokens(9))));
}

TEST(PackedWeights, AreRefusedWhereAScaleOf16BitsDoesNotReach) {
  Llama model = small(config());
  model->packable_linears().front().second->weight.data().fill_(1e8);
  EXPECT_THROW(model->quantize_weights(RowType::kInt8), Error);
  EXPECT_FALSE(model->config().weights);
  EXPECT_EQ(model->embedding()->packed(), nullptr) << "all of them, or none";
}

TEST(PackedWeights, LetGradientsThrough) {
  Llama model = small(config());
  model->quantize_weights(RowType::kInt8);
  Linear linear = model->packable_linears().front().second;
  const at::Tensor x = torch::randn({3, 64}, torch::requires_grad());
  linear(x).sum().backward();
  EXPECT_GT(x.grad().abs().sum().item<double>(), 0);
}

}  // namespace
}  // namespace memlayers
