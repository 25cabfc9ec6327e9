// SPDX-License-Identifier: Apache-2.0
// Modules whose weights come from a file: made without drawing random numbers for them or writing
// their memory.
#pragma once

#include <torch/nn/modules/embedding.h>
#include <torch/types.h>

#include <cstdint>

#include "memlayers/linear.h"

namespace memlayers::nn {

// While one lives, modules of this library that this thread makes leave their weights unset; who
// made it sets all of them before they are read.
class UnsetWeights {
 public:
  UnsetWeights();
  ~UnsetWeights();
  UnsetWeights(const UnsetWeights&) = delete;
  UnsetWeights& operator=(const UnsetWeights&) = delete;

 private:
  bool before_;
};

bool are_weights_unset();  // an UnsetWeights lives on this thread

// As torch makes them, unless weights are left unset.
Linear make_linear(std::int64_t in, std::int64_t out, bool has_bias);
// The same, drawn as Hugging Face does: normal with deviation 0.02 (initializer_range), biases
// zero.
Linear drawn_linear(std::int64_t in, std::int64_t out, bool has_bias);
Embedding make_embedding(std::int64_t count, std::int64_t width);

}  // namespace memlayers::nn
