// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <numeric>
#include <utility>

#include "memlayers/error.h"
#include "text/dataset.h"
#include "text/shuffle.h"

namespace memlayers::text {

// The order of one epoch.
struct BatchStream::Plan {
  std::int64_t epoch = 0;
  std::vector<std::int64_t> order;  // of the documents
  // Packed: begin[i] is where order[i] starts in the stream of all tokens; row_order the order of
  // rows.
  std::vector<std::int64_t> begin, row_order;
  // Batch b holds order[first[b] .. last[b]), or these rows of row_order.
  struct Range {
    std::int64_t first, last;
  };
  std::vector<Range> batches;
};

namespace {

// Wide enough that like lengths meet, narrow enough that they meet others in the next epoch.
constexpr std::int64_t kWindowBatches = 50;

std::int64_t document_length(const TokenCache& cache, std::int64_t index) {
  return static_cast<std::int64_t>(cache.document(index).size());
}

// Input positions of a document alone in its row: its last token is only a target.
std::int64_t row_length(const TokenCache& cache, std::int64_t index, std::int64_t context) {
  return std::clamp<std::int64_t>(document_length(cache, index) - 1, 1, context);
}

void check(const BatchOptions& options) {
  if (options.batch_tokens < 1) {
    throw Error("batch_tokens: expected at least 1, got " + std::to_string(options.batch_tokens));
  }
  if (options.context < 1) {
    throw Error("context: expected at least 1, got " + std::to_string(options.context));
  }
}

// Writes tokens [from, from + count) of a document to a row, with their targets.
void put(const TokenCache& cache, std::int64_t document, std::int64_t from, std::int64_t count,
         std::int64_t at, Batch& batch) {
  const auto tokens = cache.document(document);
  const auto length = static_cast<std::int64_t>(tokens.size());
  const std::int64_t loss_from = cache.loss_from(document);
  for (std::int64_t i = from; i < from + count; ++i, ++at) {
    const auto slot = static_cast<std::size_t>(at);
    batch.input[slot] = tokens[static_cast<std::size_t>(i)];
    if (i + 1 < length && i + 1 >= loss_from) {
      batch.target[slot] = tokens[static_cast<std::size_t>(i + 1)];
      ++batch.target_tokens;
    }
  }
  batch.tokens += count;
}

Batch empty_batch(std::int64_t rows, std::int64_t length, std::int64_t pad_token) {
  const auto size = static_cast<std::size_t>(rows * length);
  return {.rows = rows,
          .length = length,
          .input = std::vector<std::int64_t>(size, pad_token),
          .target = std::vector<std::int64_t>(size, kIgnored)};
}

}  // namespace

BatchStream::BatchStream(std::shared_ptr<const TokenCache> cache, const BatchOptions& options)
    : cache_(std::move(cache)), options_(options) {
  check(options_);
}

void BatchStream::plan_epoch(std::int64_t epoch) {
  if (plan_ && plan_->epoch == epoch) return;
  auto plan = std::make_shared<Plan>();
  plan->epoch = epoch;
  plan->order.resize(static_cast<std::size_t>(cache_->documents()));
  std::iota(plan->order.begin(), plan->order.end(), 0);
  SplitMix64 seeds(options_.seed);
  SplitMix64 random(seeds.next() ^ (static_cast<std::uint64_t>(epoch) * 0xD1342543DE82EF95u));
  if (options_.shuffle) shuffle(plan->order, random);
  if (options_.pack) {
    plan_packed(*plan);
    if (options_.shuffle) shuffle(plan->row_order, random);
  } else {
    plan_rows(*plan);
    if (options_.shuffle) shuffle(plan->batches, random);
  }
  plan_ = std::move(plan);
}

void BatchStream::plan_packed(Plan& plan) const {
  plan.begin.reserve(plan.order.size() + 1);
  plan.begin.push_back(0);
  for (const std::int64_t document : plan.order) {
    plan.begin.push_back(plan.begin.back() + document_length(*cache_, document));
  }
  const std::int64_t total = plan.begin.back();
  std::int64_t rows = (total + options_.context - 1) / options_.context;
  // A last row of the last token alone has nothing to predict.
  if (rows > 1 && total - (rows - 1) * options_.context == 1) --rows;
  plan.row_order.resize(static_cast<std::size_t>(rows));
  std::iota(plan.row_order.begin(), plan.row_order.end(), 0);
  const std::int64_t length = std::min(options_.context, total);
  const std::int64_t step = std::max<std::int64_t>(1, options_.batch_tokens / length);
  for (std::int64_t row = 0; row < rows; row += step) {
    plan.batches.push_back({row, std::min(row + step, rows)});
  }
}

void BatchStream::plan_rows(Plan& plan) const {
  const auto length = [&](std::int64_t document) {
    return row_length(*cache_, document, options_.context);
  };
  const auto documents = static_cast<std::int64_t>(plan.order.size());
  for (std::int64_t begin = 0, end = 0; begin < documents; begin = end) {
    for (std::int64_t tokens = 0;
         end < documents && tokens / kWindowBatches < options_.batch_tokens; ++end) {
      tokens += length(plan.order[static_cast<std::size_t>(end)]);
    }
    std::stable_sort(plan.order.begin() + begin, plan.order.begin() + end,
                     [&](std::int64_t a, std::int64_t b) { return length(a) < length(b); });
    std::int64_t first = begin;
    for (std::int64_t i = begin + 1; i < end; ++i) {  // lengths ascend: row i is the longest so far
      if ((i - first + 1) * length(plan.order[static_cast<std::size_t>(i)]) >
          options_.batch_tokens) {
        plan.batches.push_back({first, i});
        first = i;
      }
    }
    plan.batches.push_back({first, end});
  }
}

std::int64_t BatchStream::batches_in_epoch(std::int64_t epoch) {
  plan_epoch(epoch);
  return static_cast<std::int64_t>(plan_->batches.size());
}

void BatchStream::seek(Position position) {
  if (position.epoch < 0) {
    throw Error("position of the data: expected an epoch of at least 0, got " +
                std::to_string(position.epoch));
  }
  const std::int64_t batches = batches_in_epoch(position.epoch);
  if (position.batch < 0 || position.batch >= batches) {
    throw Error("position of the data: expected a batch below " + std::to_string(batches) +
                " in epoch " + std::to_string(position.epoch) + ", got " +
                std::to_string(position.batch));
  }
  position_ = position;
}

Batch BatchStream::next() {
  const std::int64_t batches = batches_in_epoch(position_.epoch);
  const Plan::Range range = plan_->batches[static_cast<std::size_t>(position_.batch)];
  Batch batch =
      options_.pack ? packed_batch(range.first, range.last) : row_batch(range.first, range.last);
  cache_->check_read();
  if (++position_.batch == batches) position_ = {.epoch = position_.epoch + 1, .batch = 0};
  return batch;
}

Batch BatchStream::row_batch(std::int64_t first, std::int64_t last) const {
  const auto document = [&](std::int64_t i) { return plan_->order[static_cast<std::size_t>(i)]; };
  const std::int64_t length = row_length(*cache_, document(last - 1), options_.context);
  Batch batch = empty_batch(last - first, length, options_.pad_token);
  for (std::int64_t i = first; i < last; ++i) {
    put(*cache_, document(i), 0, row_length(*cache_, document(i), options_.context),
        (i - first) * length, batch);
  }
  return batch;
}

Batch BatchStream::packed_batch(std::int64_t first, std::int64_t last) const {
  const std::vector<std::int64_t>& begin = plan_->begin;
  const std::int64_t total = begin.back();
  const auto row = [&](std::int64_t i) { return plan_->row_order[static_cast<std::size_t>(i)]; };
  const auto row_end = [&](std::int64_t i) {
    return std::min((row(i) + 1) * options_.context, total);
  };
  std::int64_t length = 0;
  for (std::int64_t i = first; i < last; ++i) {
    length = std::max(length, row_end(i) - row(i) * options_.context);
  }
  Batch batch = empty_batch(last - first, length, options_.pad_token);
  if (!options_.across_documents) batch.document_begin.resize(batch.input.size());
  bool has_several = false;  // documents in a row
  for (std::int64_t i = first; i < last; ++i) {
    const std::int64_t row_begin = row(i) * options_.context;
    auto index = std::upper_bound(begin.begin(), begin.end(), row_begin) - begin.begin() - 1;
    for (std::int64_t at = row_begin; at < row_end(i); ++index) {
      const auto here = static_cast<std::size_t>(index);
      const std::int64_t count = std::min(begin[here + 1], row_end(i)) - at;
      put(*cache_, plan_->order[here], at - begin[here], count,
          (i - first) * length + at - row_begin, batch);
      if (!options_.across_documents) {  // to the end of the row: what follows overwrites it
        std::fill(batch.document_begin.begin() + (i - first) * length + at - row_begin,
                  batch.document_begin.begin() + (i - first + 1) * length, at - row_begin);
        has_several = has_several || at > row_begin;
      }
      at += count;
    }
  }
  if (!has_several) batch.document_begin.clear();
  return batch;
}

}  // namespace memlayers::text
