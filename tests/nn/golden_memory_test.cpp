// SPDX-License-Identifier: Apache-2.0
// Every memory layer case of an independent implementation: output, chosen slots and all gradients.
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "memlayers/memory_layer.h"
#include "memlayers/ops.h"
#include "nn/golden.h"

namespace memlayers {
namespace {

constexpr double kTolerance = 1e-4;  // relative, float32

class GoldenMemory : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    file_ =
        std::make_unique<io::SafetensorsFile>(io::SafetensorsFile::open(io::posix(), GetParam()));
    const auto json = nlohmann::json::parse(file_->metadata().at("config"));
    dim_ = json.at("dim");
    config_.n_keys = json.at("n_keys");
    config_.heads = json.at("heads");
    config_.knn = json.at("knn");
    config_.k_dim = json.at("k_dim");
    config_.v_dim = json.at("v_dim");
    config_.gate = json.at("gated");
    config_.value_proj = json.at("value_proj").get<bool>();
    config_.variant = json.at("peer").get<bool>()    ? MemoryVariant::kPeer
                      : json.at("swilu").get<bool>() ? MemoryVariant::kMemoryPlus
                                                     : MemoryVariant::kPlain;
    config_.qk_norm = false;
    is_stack_ = json.contains("layers");
    const std::int64_t count = json.value("layers", 1);
    const std::int64_t width =
        config_.variant == MemoryVariant::kPeer ? dim_ + *config_.v_dim : *config_.v_dim;
    pool_ = MemoryPool(PoolOptions{.n_keys = config_.n_keys, .width = width});
    shell_ = row_major_slots(config_.n_keys);
    for (std::int64_t i = 0; i < count; ++i) layers_.emplace_back(dim_, config_, pool_);
    const torch::NoGradGuard no_grad;
    pool_->values.copy_(read_values("param."));
    for (std::int64_t i = 0; i < count; ++i) {
      for (auto& [name, tensor] : parameters(i)) {
        tensor.copy_(tensor_of("param." + prefix(i) + name).view(tensor.sizes()));
      }
    }
  }

  at::Tensor tensor_of(const std::string& name) { return testing::golden_tensor(*file_, name); }
  std::string prefix(std::int64_t layer) const {
    return is_stack_ ? std::to_string(layer) + "." : "";
  }

  // The pool, or its gradient, in shell order from the row-major tensors of the file.
  at::Tensor read_values(const std::string& kind) {
    const std::string name = kind + prefix(0);
    const at::Tensor row_major =
        config_.variant == MemoryVariant::kPeer
            ? torch::cat({tensor_of(name + "values_u.weight"), tensor_of(name + "values_v.weight")},
                         1)
            : tensor_of(name + "values.weight");
    at::Tensor shell = torch::empty_like(row_major);
    shell.index_copy_(0, shell_, row_major);
    return shell;
  }

  // Our parameters under the names of the file.
  std::map<std::string, at::Tensor> parameters(std::int64_t layer) {
    const MemoryLayer& l = layers_[layer];
    std::map<std::string, at::Tensor> named{{"keys", l->keys}};
    const auto add = [&](const std::string& name, const Linear& linear) {
      if (!linear) return;
      named[name + ".weight"] = linear->weight;
      named[name + ".bias"] = linear->bias;
    };
    add("query_proj.query_mlps.0", l->query_proj);
    add("swilu_projection", l->swilu_proj);
    add("value_proj", l->value_proj);
    add("gating", l->gate);
    return named;
  }

  std::unique_ptr<io::SafetensorsFile> file_;
  std::int64_t dim_ = 0;
  bool is_stack_ = false;
  MemoryConfig config_;
  MemoryPool pool_{nullptr};
  at::Tensor shell_;  // slot of each row-major cell
  std::vector<MemoryLayer> layers_;
};

TEST_P(GoldenMemory, OutputAndAllGradientsMatch) {
  at::Tensor input = tensor_of("input").requires_grad_();
  at::Tensor y = input;
  for (MemoryLayer& layer : layers_) y = layer->forward(y);
  EXPECT_LE(testing::relative_error(y, tensor_of("output")), kTolerance);
  y.backward(tensor_of("grad_output"));
  EXPECT_LE(testing::relative_error(input.grad(), tensor_of("grad_input")), kTolerance);
  EXPECT_LE(testing::relative_error(pool_->dense_gradient(), read_values("grad.")), kTolerance);
  std::size_t compared = 3;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    for (auto& [name, tensor] : parameters(static_cast<std::int64_t>(i))) {
      const std::string stored = "grad." + prefix(static_cast<std::int64_t>(i)) + name;
      const at::Tensor wanted = tensor_of(stored).view(tensor.sizes());
      EXPECT_LE(testing::relative_error(tensor.grad(), wanted), kTolerance) << stored;
      ++compared;
    }
  }
  std::size_t stored =
      2;  // output, grad_input; the pool's gradient is one of grad.*, or PEER's two
  for (const auto& [name, view] : file_->tensors()) stored += name.starts_with("grad.") ? 1 : 0;
  EXPECT_EQ(compared, stored - (config_.variant == MemoryVariant::kPeer ? 1 : 0));
}

TEST_P(GoldenMemory, ChosenSlotsAndWeightsMatch) {
  if (!file_->tensors().contains("indices")) GTEST_SKIP() << "the case stores no indices";
  const at::Tensor x = tensor_of("input").view({-1, dim_});
  const auto [slots, weights] = layers_[0]->select(x);
  const at::Tensor wanted_slots =
      shell_.index_select(0, tensor_of("indices").flatten()).view(tensor_of("indices").sizes());
  // Order inside a head is not part of the promise: slots of equal score may stand either way
  // round.
  const auto [got_sorted, got_order] = slots.sort(-1);
  const auto [wanted_sorted, wanted_order] = wanted_slots.sort(-1);
  EXPECT_TRUE(torch::equal(got_sorted, wanted_sorted));
  EXPECT_LE(testing::relative_error(weights.gather(-1, got_order),
                                    tensor_of("weights").gather(-1, wanted_order)),
            kTolerance);
}

std::string case_name(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param.substr(info.param.rfind('/') + 1);
  name = name.substr(0, name.find('.'));
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(EveryCase, GoldenMemory,
                         ::testing::ValuesIn(testing::golden_cases("memory")), case_name);

}  // namespace
}  // namespace memlayers
