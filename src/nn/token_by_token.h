// SPDX-License-Identifier: Apache-2.0
// When tokens are worked on one by one: where they are few, and where the bits of each must not
// depend on the others.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace memlayers::nn {

// Up to this many tokens a product costs reading its weights, and it is faster to score sub-keys of
// 8 bits a token at a time than all tokens together by exact ones: `memlayers bench layer --tokens
// 1,2,4,8,16`.
constexpr std::int64_t kFewTokens = 4;

// While one lives, in its thread, products, lookups and activations work token by token for any
// number of them.
class TokenByToken {
 public:
  TokenByToken();
  ~TokenByToken();
  TokenByToken(const TokenByToken&) = delete;
  TokenByToken& operator=(const TokenByToken&) = delete;

 private:
  bool was_on_;
};

// Whether the tokens x [.., width] are: on the CPU, without gradients.
bool is_token_by_token(const at::Tensor& x);

}  // namespace memlayers::nn
