// SPDX-License-Identifier: Apache-2.0
// Tokenizer, token caches and batches of a run, as its configuration says.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/file_system.h"
#include "memlayers/config.h"
#include "memlayers/tokenizer.h"
#include "text/dataset.h"

namespace memlayers::train {

using TokenizingReport = std::function<void(std::int64_t documents, std::int64_t tokens)>;

std::string cache_folder(const TrainConfig& config);

// data with every stream (io::stream_of) replaced by a copy of what comes out of it in the cache
// folder: both the tokenizer's training and the token cache read it, and it can be read only once.
DataConfig spool_streams(io::FileSystem& files, const TrainConfig& config);

// The tokenizer of the checkpoint to resume (which data.tokenizer, where given, must equal), else
// data.tokenizer, else that of the init folder, else one trained on data.train.
std::shared_ptr<const Tokenizer> make_tokenizer(io::FileSystem& files, const TrainConfig& config,
                                                const std::optional<std::string>& checkpoint);

// `model` with the tokenizer's special tokens. Throws Error where the tokenizer has more tokens
// than vocab_size.
ModelConfig fit_to_tokenizer(ModelConfig model, const Tokenizer& tokenizer);

class TrainingData {
 public:
  // Reads (or takes from the cache) data.train and data.valid.
  TrainingData(io::FileSystem& files, const TrainConfig& config, const Tokenizer& tokenizer,
               std::int64_t context, const TokenizingReport& report);

  const text::TokenCache& train() const { return *train_; }
  const text::TokenCache* valid() const { return valid_.get(); }  // null: none
  text::BatchStream& batches() { return *batches_; }
  text::BatchStream* valid_batches() { return valid_batches_.get(); }

  std::int64_t batches_in_epoch(std::int64_t epoch);
  // Passes over the data at the position of batches(), with the part of the one it is in.
  double epoch();
  // The optimizer steps that train.steps or train.epochs mean.
  std::int64_t total_steps();
  // What a user should know of the data: documents that the context cuts, those that nothing is
  // left to predict of. Throws Error where that is so of all of them.
  std::vector<std::string> notices() const;
  // Names all that the order of batches() depends on: a position holds only where it is the same.
  std::string order() const;

 private:
  TrainConfig config_;
  std::int64_t context_;
  std::shared_ptr<const text::TokenCache> train_, valid_;
  std::unique_ptr<text::BatchStream> batches_, valid_batches_;
  std::int64_t counted_epoch_ = -1, counted_batches_ = 0;
};

}  // namespace memlayers::train
