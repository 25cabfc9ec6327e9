// SPDX-License-Identifier: Apache-2.0
#include "serve/weights_digest.h"

#include <torch/types.h>

#include "io/folder.h"
#include "io/model_config.h"
#include "nn/table.h"
#include "ops/linear/weights.h"

namespace memlayers::serve {
namespace {

void add(std::string& list, const std::string& name, const at::Tensor& tensor) {
  list += name + " " + c10::toString(tensor.scalar_type());
  for (const std::int64_t size : tensor.sizes()) list += " " + std::to_string(size);
  const at::Tensor lined_up = tensor.detach().contiguous();
  list += " " + io::xxh3_128_hex(nn::bytes_of(lined_up)) + "\n";
}

}  // namespace

std::string weights_digest(const Llama& model) {
  std::string list = io::model_config_json(model->config());
  for (const auto& [name, tensor] : model->dense_parameters()) add(list, name, tensor);
  const auto add_packed = [&](const std::string& name, const ops::Weights* weights) {
    if (weights != nullptr) add(list, name, weights->stored);
  };
  add_packed("model.embed_tokens.weight", model->embedding()->packed());
  for (const auto& [name, linear] : model->packable_linears()) add_packed(name, linear->packed());
  return io::xxh3_128_hex(std::as_bytes(std::span(list)));
}

}  // namespace memlayers::serve
