// SPDX-License-Identifier: Apache-2.0
#include "train/training_data.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "io/folder.h"
#include "io/streams.h"
#include "memlayers/checkpoint.h"
#include "memlayers/error.h"
#include "text/sources.h"

namespace memlayers::train {
namespace {

std::shared_ptr<const Tokenizer> train_on(io::FileSystem& files, const TrainConfig& config) {
  std::vector<std::string> texts;
  text::read_documents(
      files, config.data.train, config.data.format, [&](const text::Document& document) {
        texts.push_back(document.prompt.empty() ? document.answer
                                                : document.prompt + " " + document.answer);
      });
  return train_tokenizer(texts, config.model.vocab_size);
}

void spool(io::FileSystem& files, const std::string& folder, DataFormat format, std::string& path) {
  if (!io::stream_of(path)) return;
  io::make_folders(files, folder);
  text::Source::stream(files, path, format).with_bytes(files, [&](std::string_view bytes) {
    const std::string name = "standard-input-" + io::xxh3_hex(std::as_bytes(std::span(bytes)));
    path = io::join(folder, name + (format == DataFormat::kJsonl ? ".jsonl" : ".txt"));
    if (!files.exists(path)) io::write_atomic(files, path, bytes);
  });
}

// What the context leaves of documents that are not packed: of each as many tokens are read, and
// one more predicted.
struct CutDocuments {
  std::int64_t cut = 0;           // have lost their end
  std::int64_t silent = 0;        // have no token to predict, cut or not
  std::int64_t first_silent = 0;  // counted from 1
};

CutDocuments count_cut(const text::TokenCache& cache, std::int64_t context, bool pack) {
  CutDocuments found;
  for (std::int64_t i = 0; i < cache.documents(); ++i) {
    const auto length = static_cast<std::int64_t>(cache.document(i).size());
    const std::int64_t kept = pack ? length : std::min(length, context + 1);
    if (kept < length) ++found.cut;
    if (kept > std::max<std::int64_t>(1, cache.loss_from(i))) continue;
    if (found.silent++ == 0) found.first_silent = i + 1;
  }
  return found;
}

std::string documents_text(std::int64_t count) {
  return std::to_string(count) + (count == 1 ? " document" : " documents");
}

}  // namespace

std::string cache_folder(const TrainConfig& config) {
  return config.data.cache.value_or(io::join(config.out, "cache"));
}

DataConfig spool_streams(io::FileSystem& files, const TrainConfig& config) {
  DataConfig data = config.data;
  for (std::string& path : data.train) spool(files, cache_folder(config), data.format, path);
  for (std::string& path : data.valid) spool(files, cache_folder(config), data.format, path);
  return data;
}

std::shared_ptr<const Tokenizer> make_tokenizer(io::FileSystem& files, const TrainConfig& config,
                                                const std::optional<std::string>& checkpoint) {
  if (checkpoint) {
    auto tokenizer = load_tokenizer(*checkpoint);
    if (config.data.tokenizer &&
        load_tokenizer(*config.data.tokenizer)->files() != tokenizer->files()) {
      throw Error("data.tokenizer: " + *config.data.tokenizer +
                  " is another tokenizer than that of " + *checkpoint +
                  ", with which the run began");
    }
    return tokenizer;
  }
  if (config.data.tokenizer) return load_tokenizer(*config.data.tokenizer);
  if (config.init) return load_tokenizer(resolve_model_folder(*config.init));
  return train_on(files, config);
}

ModelConfig fit_to_tokenizer(ModelConfig model, const Tokenizer& tokenizer) {
  if (tokenizer.vocab_size() > model.vocab_size) {
    throw Error("model.vocab_size: " + std::to_string(model.vocab_size) +
                ", but the tokenizer has " + std::to_string(tokenizer.vocab_size()) +
                " tokens; wanted at least as many");
  }
  model.bos_token = tokenizer.bos();
  model.pad_token = tokenizer.pad();
  model.eos_tokens.clear();
  if (tokenizer.eos()) model.eos_tokens.push_back(*tokenizer.eos());
  return model;
}

TrainingData::TrainingData(io::FileSystem& files, const TrainConfig& config,
                           const Tokenizer& tokenizer, std::int64_t context,
                           const TokenizingReport& report)
    : config_(config), context_(context) {
  const std::string folder = cache_folder(config);
  io::make_folders(files, folder);
  const auto open = [&](const std::vector<std::string>& paths) {
    return std::make_shared<const text::TokenCache>(text::TokenCache::open_or_build(
        files, folder, paths, config.data.format, tokenizer, report));
  };
  text::BatchOptions options{.batch_tokens = config.train.batch_tokens,
                             .context = context,
                             .pack = config.data.pack,
                             .across_documents = config.data.across_documents.value_or(false),
                             .shuffle = true,
                             .seed = static_cast<std::uint64_t>(config.train.seed),
                             .pad_token = tokenizer.pad().value_or(tokenizer.eos().value_or(0))};
  train_ = open(config.data.train);
  batches_ = std::make_unique<text::BatchStream>(train_, options);
  if (config.data.valid.empty()) return;
  options.shuffle = false;
  valid_ = open(config.data.valid);
  valid_batches_ = std::make_unique<text::BatchStream>(valid_, options);
}

std::vector<std::string> TrainingData::notices() const {
  std::vector<std::string> all;
  for (const auto& [field, cache] :
       {std::pair("data.train", train_.get()), std::pair("data.valid", valid_.get())}) {
    if (cache == nullptr) continue;
    const CutDocuments found = count_cut(*cache, context_, config_.data.pack);
    const std::string of = " of " + documents_text(cache->documents());
    const std::string context = "the context of " + std::to_string(context_) + " tokens";
    if (found.silent == cache->documents()) {
      throw Error(
          std::string(field) + ": expected a document with a token to predict within " + context +
          ", got none" + of +
          (found.cut > 0 ? "; a longer model.context, or data.pack = true, cuts less" : ""));
    }
    if (found.cut > 0) {
      all.push_back(std::string(field) + ": " + std::to_string(found.cut) + of +
                    " are longer than " + context + ": their ends are cut off");
    }
    if (found.silent > 0) {
      all.push_back(std::string(field) + ": " + std::to_string(found.silent) + of +
                    " have no token to predict (the first: document " +
                    std::to_string(found.first_silent) + ")");
    }
  }
  return all;
}

std::int64_t TrainingData::batches_in_epoch(std::int64_t epoch) {
  if (counted_epoch_ != epoch) {
    counted_batches_ = batches_->batches_in_epoch(epoch);
    counted_epoch_ = epoch;
  }
  return counted_batches_;
}

double TrainingData::epoch() {
  const text::BatchStream::Position at = batches_->position();
  return static_cast<double>(at.epoch) +
         static_cast<double>(at.batch) / static_cast<double>(batches_in_epoch(at.epoch));
}

std::int64_t TrainingData::total_steps() {
  if (config_.train.steps) return *config_.train.steps;
  // Epochs differ a little in batches where rows are grouped by length.
  const double epochs = config_.train.epochs.value_or(1);
  const auto whole = static_cast<std::int64_t>(epochs);
  double count = 0;
  for (std::int64_t epoch = 0; epoch < whole; ++epoch) {
    count += static_cast<double>(batches_in_epoch(epoch));
  }
  const double part = epochs - static_cast<double>(whole);
  if (part > 0) count += part * static_cast<double>(batches_in_epoch(whole));
  return std::max<std::int64_t>(
      1,
      static_cast<std::int64_t>(std::ceil(count / static_cast<double>(config_.train.accumulate))));
}

std::string TrainingData::order() const {
  return std::to_string(train_->documents()) + " documents, " + std::to_string(train_->tokens()) +
         " tokens, context " + std::to_string(context_) + ", batch_tokens " +
         std::to_string(config_.train.batch_tokens) + ", pack " +
         (config_.data.pack ? "true" : "false") + ", seed " + std::to_string(config_.train.seed);
}

}  // namespace memlayers::train
