// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "memlayers/error.h"
#include "memlayers/evaluate.h"
#include "text/dataset.h"
#include "train/answer_scores.h"
#include "train/estimate.h"

namespace memlayers {
namespace {

struct TokenizedDocument {
  std::vector<std::int32_t> tokens;
  std::int64_t loss_from;  // the first token that is predicted; at least 1
};

struct Window {
  const TokenizedDocument* document;
  std::int64_t begin, end, loss_from;  // of the document's tokens
};

std::vector<TokenizedDocument> tokenize(const Tokenizer& tokenizer,
                                        const std::vector<std::string>& paths, DataFormat format) {
  std::vector<TokenizedDocument> all;
  text::read_documents(io::posix(), paths, format, [&](const text::Document& document) {
    TokenizedDocument one{tokenizer.prefix(), 1};
    const auto append = [&](const std::vector<std::int32_t>& more) {
      one.tokens.insert(one.tokens.end(), more.begin(), more.end());
    };
    if (document.prompt.empty()) {
      append(tokenizer.encode(document.answer));
    } else {
      append(tokenizer.encode(document.prompt));
      one.loss_from = std::max<std::int64_t>(1, static_cast<std::int64_t>(one.tokens.size()));
      append(tokenizer.encode_continuation(document.answer));
    }
    append(tokenizer.suffix());
    all.push_back(std::move(one));
  });
  return all;
}

void add_windows(const TokenizedDocument& document, std::int64_t window, std::int64_t stride,
                 std::vector<Window>& windows) {
  const auto length = static_cast<std::int64_t>(document.tokens.size());
  std::int64_t next = document.loss_from;  // to be predicted
  for (std::int64_t begin = 0; next < length; begin += stride) {
    const std::int64_t end = std::min(begin + window, length);
    next = std::max(next, begin + 1);
    if (next < end) windows.push_back({&document, begin, end, next});
    next = std::max(next, end);
  }
}

// What is predicted of a document, a few tokens together: neighbours are alike.
class Blocks {
 public:
  void add(const TokenizedDocument* document, std::span<const float> nll) {
    if (document != document_) close();
    document_ = document;
    for (const float one : nll) {
      sum_ += one;
      if (++count_ == kTokens) close();
    }
  }
  void close() {
    if (count_ == 0) return;
    sums_.push_back(sum_);
    counts_.push_back(static_cast<double>(count_));
    sum_ = 0;
    count_ = 0;
  }
  std::optional<Estimate> loss() const { return train::ratio(sums_, counts_); }
  bool are_enough() const { return sums_.size() >= kFewest; }

 private:
  static constexpr std::int64_t kTokens = 256;
  static constexpr std::size_t kFewest = 8;
  const TokenizedDocument* document_ = nullptr;
  double sum_ = 0;
  std::int64_t count_ = 0;
  std::vector<double> sums_, counts_;
};

}  // namespace

TextScore evaluate_windows(Generator& generator, const std::vector<std::string>& paths,
                           DataFormat format, const WindowOptions& options,
                           const std::function<void(std::int64_t, std::int64_t)>& progress) {
  const std::int64_t context = generator.model()->config().context;
  const std::int64_t window = options.window.value_or(context);
  const auto check = [](const char* field, std::int64_t value, std::int64_t least,
                        std::int64_t most, const char* of) {
    if (value >= least && value <= most) return;
    throw Error(std::string(field) + ": expected " + std::to_string(least) + " to " +
                std::to_string(most) + ", " + of + ", got " + std::to_string(value));
  };
  check("window", window, 2, context, "the model's context");
  check("stride", options.stride, 1, window, "the window");

  const std::vector<TokenizedDocument> documents = tokenize(generator.tokenizer(), paths, format);
  std::vector<Window> windows;
  for (const TokenizedDocument& document : documents) {
    add_windows(document, window, options.stride, windows);
  }
  std::int64_t all = 0, done = 0;
  for (const Window& one : windows) all += one.end - one.loss_from;
  Blocks blocks;
  const auto at_once =
      static_cast<std::size_t>(std::max<std::int64_t>(1, options.batch_tokens / window));
  for (std::size_t first = 0; first < windows.size(); first += at_once) {
    const auto batch = std::span(windows).subspan(first, std::min(at_once, windows.size() - first));
    std::vector<train::FactRow> rows;
    for (const Window& one : batch) {
      const auto& tokens = one.document->tokens;
      rows.push_back({.tokens = {tokens.begin() + one.begin, tokens.begin() + one.end},
                      .answer_from = one.loss_from - one.begin});
    }
    const auto scores = train::score_answers(generator, rows, options.batch_tokens);
    for (std::size_t i = 0; i < batch.size(); ++i) {
      blocks.add(batch[i].document, scores[i].token_nll);
      done += scores[i].tokens;
    }
    if (progress) progress(done, all);
  }
  blocks.close();
  const std::optional<Estimate> loss = blocks.loss();
  if (!loss) {
    throw Error(text::listed(paths) + ": expected at least one token to predict, got none");
  }
  TextScore score{.loss = loss->value, .tokens = done};
  if (blocks.are_enough()) score.interval = *loss;
  return score;
}

}  // namespace memlayers
