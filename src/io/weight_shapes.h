// SPDX-License-Identifier: Apache-2.0
// Which dense weights a model of a configuration has, without making it: what is in a file can be
// compared before memory is taken for it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "memlayers/config.h"

namespace memlayers::io {

struct WeightShape {
  struct Extent {
    std::int64_t size;
    const char* fields;  // of config.json that it is made of
  };
  std::string name;  // as in Hugging Face's folders
  std::vector<Extent> extents;
};

// In the order of Llama::dense_parameters(); a tied lm_head is not among them. Takes time and
// memory in proportion to config.layers.
std::vector<WeightShape> weight_shapes(const ModelConfig& config);

// name -> shape. Throws Error, beginning with `where`, naming tensor and fields where these are not
// exactly the weights of `config`. Takes time and memory in proportion to them, whatever config
// says.
void check_weight_shapes(const ModelConfig& config,
                         const std::map<std::string, std::vector<std::int64_t>>& found,
                         const std::string& where);

}  // namespace memlayers::io
