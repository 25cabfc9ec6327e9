// SPDX-License-Identifier: Apache-2.0
#include <torch/types.h>

#include <algorithm>
#include <utility>

#include "memlayers/error.h"
#include "memlayers/llama.h"

namespace memlayers {
namespace {

std::array<std::int64_t, 5> shape_of_page(const LlamaImpl& model) {
  const ModelConfig& config = model.config();
  return {config.layers, 2, config.num_kv_heads(), KvPage::kTokens, config.attention_head_dim()};
}

std::int64_t pages_of(std::int64_t tokens) {
  return (tokens + KvPage::kTokens - 1) / KvPage::kTokens;
}

}  // namespace

KvPage::KvPage(at::Tensor numbers, std::shared_ptr<CacheBudget> budget)
    : numbers_(std::move(numbers)), budget_(std::move(budget)) {}

KvPage::~KvPage() {
  if (budget_ != nullptr) budget_->bytes_ -= bytes();
}

std::int64_t KvCache::bytes_of(const LlamaImpl& model, std::int64_t tokens) {
  auto bytes = static_cast<std::int64_t>(c10::elementSize(model.dense_type()));
  for (const std::int64_t size : shape_of_page(model)) bytes *= size;
  return pages_of(tokens) * bytes;
}

KvCache::KvCache(LlamaImpl& model, std::int64_t capacity, std::shared_ptr<CacheBudget> budget,
                 std::vector<std::shared_ptr<KvPage>> begin)
    : pages_(std::move(begin)),
      page_shape_(shape_of_page(model)),
      type_(model.dense_type()),
      capacity_(capacity),
      length_(static_cast<std::int64_t>(pages_.size()) * kPageTokens),
      first_length_(length_),
      budget_(std::move(budget)) {
  TORCH_CHECK_VALUE(capacity >= 1, "KvCache: expected a capacity of at least 1 token, got ",
                    capacity);
  const RopeConfig& rope = model.config().rope;
  TORCH_CHECK_VALUE(rope.type != "dynamic" || capacity <= rope.original_context,
                    "KvCache: expected a capacity of at most ", rope.original_context,
                    " tokens, the context of a model with rope_type \"dynamic\", got ", capacity,
                    ": beyond it the keys of all tokens before change with every token");
  TORCH_CHECK_VALUE(length_ <= capacity_, "KvCache: expected pages of at most ", capacity_,
                    " tokens, the capacity, got ", length_);
  for (const auto& page : pages_) {
    TORCH_CHECK_VALUE(page->numbers().sizes() == at::IntArrayRef(page_shape_) &&
                          page->numbers().scalar_type() == type_,
                      "KvCache: expected pages ", at::IntArrayRef(page_shape_), " of ", type_,
                      ", got ", page->numbers().sizes());
  }
  const std::int64_t bytes = bytes_of(model, capacity) - bytes_of(model, length_);
  if (budget_ != nullptr) {
    const std::int64_t before = budget_->bytes_.fetch_add(bytes);
    if (budget_->most_ && before + bytes > *budget_->most_) {
      budget_->bytes_ -= bytes;
      throw Error("cache: expected at most " + std::to_string(*budget_->most_ - before) + " of " +
                  std::to_string(*budget_->most_) + " bytes, which are left, got " +
                  std::to_string(bytes) + " for " + std::to_string(capacity) + " tokens");
    }
  }
  bytes_ = reserved_ = bytes;
}

KvCache::~KvCache() {
  if (budget_ != nullptr) budget_->bytes_ -= reserved_;
}

KvCache::KvCache(KvCache&& other) noexcept
    : pages_(std::move(other.pages_)),
      page_shape_(other.page_shape_),
      type_(other.type_),
      capacity_(other.capacity_),
      bytes_(std::exchange(other.bytes_, 0)),
      reserved_(std::exchange(other.reserved_, 0)),
      length_(std::exchange(other.length_, 0)),
      first_length_(std::exchange(other.first_length_, 0)),
      budget_(std::move(other.budget_)),
      rows_(std::move(other.rows_)),
      leaves_out_memory_(other.leaves_out_memory_) {}

KvCache& KvCache::operator=(KvCache&& other) noexcept {
  std::swap(pages_, other.pages_);
  std::swap(page_shape_, other.page_shape_);
  std::swap(type_, other.type_);
  std::swap(capacity_, other.capacity_);
  std::swap(bytes_, other.bytes_);
  std::swap(reserved_, other.reserved_);
  std::swap(length_, other.length_);
  std::swap(first_length_, other.first_length_);
  std::swap(budget_, other.budget_);
  std::swap(rows_, other.rows_);
  std::swap(leaves_out_memory_, other.leaves_out_memory_);
  return *this;
}

void KvCache::add_page() {
  pages_.push_back(
      std::make_shared<KvPage>(at::empty(page_shape_, at::TensorOptions().dtype(type_)), budget_));
  reserved_ -= pages_.back()->bytes();
}

void KvCache::share(std::int64_t index, std::shared_ptr<KvPage> page) {
  const std::int64_t end = (index + 1) * kPageTokens;
  TORCH_CHECK_VALUE(index >= 0 && end <= length_, "KvCache: expected a full page of ", length_,
                    " tokens, got number ", index);
  std::shared_ptr<KvPage>& own = pages_[static_cast<std::size_t>(index)];
  if (own == page) return;
  bytes_ -= own->bytes();
  own = std::move(page);
  first_length_ = std::max(first_length_, end);
}

void KvCache::cut(std::int64_t length) {
  TORCH_CHECK_VALUE(length >= first_length_ && length <= length_, "KvCache: expected a length of ",
                    first_length_, " to ", length_, ", got ", length);
  length_ = length;
}

std::optional<std::uint64_t> KvCache::pool_version() const {
  if (!rows_) return std::nullopt;
  return rows_->version();
}

void KvCache::set_rows(Snapshot rows) {
  TORCH_CHECK_VALUE(length_ == first_length_,
                    "KvCache: expected a snapshot before the first tokens, got it after ", length_);
  rows_ = std::move(rows);
}

void KvCache::leave_out_memory() {
  TORCH_CHECK_VALUE(length_ == first_length_,
                    "KvCache: expected to leave out memory before the first tokens, not after ",
                    length_);
  leaves_out_memory_ = true;
}

}  // namespace memlayers
