// SPDX-License-Identifier: Apache-2.0
// Dense weights of 8 and 4 bits: from the blocks in which files have them to the order in which
// they are multiplied, and back.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>

#include "io/gguf/types.h"
#include "io/model_source.h"
#include "memlayers/llama.h"

namespace memlayers::nn {

// Reads the weights that lie in blocks, of those that may; the others are left as they are, and
// dense_parameters() names them. config().weights says what came of it. Throws Error naming path
// and tensor for a scale that is not finite.
void read_packed(Llama& model, const io::ModelSource& source);

// Bytes [out, blocks of a row] of each packed weight, by its name.
struct Blocks {
  const io::gguf::TensorType* type;
  at::Tensor bytes;
};
std::map<std::string, Blocks> packed_blocks(const Llama& model);
// What all of the packed weights' blocks take in a file.
std::int64_t packed_bytes(const Llama& model);

}  // namespace memlayers::nn
