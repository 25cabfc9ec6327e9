// SPDX-License-Identifier: Apache-2.0
// "decoder" of a tokenizer.json: the texts of tokens become text.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "text/decode_stage.h"
#include "text/json_field.h"

namespace memlayers::text {

// Immutable after construction.
class TokenDecoder {
 public:
  // Without one, a space stands between two tokens.
  explicit TokenDecoder(const std::optional<JsonField>& field);

  // One run of the decoder over the tokens of a text.
  class Run {
   public:
    explicit Run(std::vector<std::unique_ptr<DecodeStage>> stages) : stages_(std::move(stages)) {}
    std::string push(std::string token);
    std::string finish();

   private:
    void give(std::size_t stage, std::string text);
    std::vector<std::unique_ptr<DecodeStage>> stages_;
    std::string result_;
    std::size_t most_bytes_ = 0;  // of a text between two stages
  };
  Run start() const;

 private:
  using MakeStage = std::function<std::unique_ptr<DecodeStage>()>;
  void read(const JsonField& field);
  void read_step(const JsonField& field);
  void read_strip(const JsonField& field);
  void add(MakeStage make);

  std::vector<MakeStage> stages_;
  bool is_joined_ = false;  // behind what was read so far, all tokens are one
};

}  // namespace memlayers::text
