// SPDX-License-Identifier: Apache-2.0
// A model that knows whole words.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "text/token_model.h"

namespace memlayers::text {

class WordLevel : public TokenModel {
 public:
  explicit WordLevel(const JsonField& model);

  const Vocabulary& vocabulary() const override { return vocabulary_; }
  bool is_bpe() const override { return false; }
  void encode(std::string_view word, WordCache& cache,
              std::vector<std::int32_t>& tokens) const override;

 private:
  Vocabulary vocabulary_;
  std::optional<std::int32_t> unknown_;
};

}  // namespace memlayers::text
