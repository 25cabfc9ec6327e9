// SPDX-License-Identifier: Apache-2.0
// RowOptimizer: the optimizers of the pool's rows.
#include <torch/types.h>

#include <cmath>
#include <mutex>
#include <numeric>
#include <vector>

#include "dist/collectives.h"
#include "kernels/kernels.h"
#include "memlayers/optimizer.h"
#include "nn/pool_tables.h"
#include "nn/table.h"
#include "ops/update/lagging_rows.h"
#include "ops/update/row_sums.h"
#include "train/clip.h"
#include "train/replica_gradients.h"

namespace memlayers {
namespace {

// The tables that an update of a row reads and writes.
std::vector<at::Tensor> tables_of(const at::Tensor& values, const RowState& state) {
  std::vector<at::Tensor> tables{values};
  for (const at::Tensor& table : {state.exp_avg, state.exp_avg_sq, state.steps, state.master}) {
    if (table.defined()) tables.push_back(table);
  }
  return tables;
}

// Of the touched rows [begin, end).
GroupedGradient part_of(const GroupedGradient& gradient, std::int64_t begin, std::int64_t end) {
  GroupedGradient part = gradient;
  part.slots = gradient.slots.slice(0, begin, end);
  part.begin = gradient.begin.slice(0, begin, end + 1);  // counts all entries still
  return part;
}

// How many processes share a row of the pool, each with some of its columns.
int column_parts(const MemoryPool& pool) {
  return pool->is_sharded() ? pool->group()->size() / static_cast<int>(pool->part().slot_step) : 1;
}

// This process and those that have the other columns of its rows.
std::shared_ptr<Communicator> row_sharers(const MemoryPool& pool) {
  const int parts = column_parts(pool);
  if (parts == 1) return nullptr;
  std::vector<int> members;
  const int own = pool->group()->rank(), first = own / parts * parts;
  for (int member = first; member < first + parts; ++member) {
    // Who has no columns has no rows to update either.
    const bool shares = pool->part().width() > 0 && pool->part_of(member).width() > 0;
    if (member == own || shares) members.push_back(member);
  }
  return pool->group()->part(members);
}

// Of this process's part, by the tokens of all memory groups.
GroupedGradient gradient_of(const MemoryPool& pool) {
  std::vector<FactoredGradient> parts = pool->gradient();
  const auto& replicas = pool->options().group.replicas;
  if (replicas != nullptr) parts = train::of_all_replicas(*replicas, parts);
  return group(std::move(parts), pool->part().rows, pool->part().width());
}

struct WholeGradient {  // of all processes that hold the pool
  double norm;
  std::int64_t touched_rows;
};

// Columns in which the norm is summed by themselves: a process has some of them whole, of which
// others then have nothing.
struct NormBlocks {
  std::vector<std::int64_t> begins;  // in rows of `values`, and their width
  std::vector<std::size_t> numbers;  // of each in the whole rows
  std::size_t count = 0;             // in the whole rows
};

NormBlocks norm_blocks(const MemoryPool& pool) {
  NormBlocks blocks;
  const std::int64_t u_width = pool->options().u_width, width = pool->width();
  std::vector<std::int64_t> firsts;
  for (std::int64_t c = 0; c < u_width; c += kernels::kDotBlock) firsts.push_back(c);
  for (std::int64_t c = u_width; c < width; c += kernels::kDotBlock) firsts.push_back(c);
  std::int64_t local = 0;
  for (const PoolPart::Columns& range : pool->part().columns) {
    for (std::size_t b = 0; b < firsts.size(); ++b) {
      if (firsts[b] < range.first || firsts[b] >= range.first + range.width) continue;
      blocks.begins.push_back(local + firsts[b] - range.first);
      blocks.numbers.push_back(b);
    }
    local += range.width;
  }
  blocks.begins.push_back(local);
  blocks.count = firsts.size();
  return blocks;
}

WholeGradient whole(const MemoryPool& pool, const GroupedGradient& gradient) {
  const NormBlocks blocks = norm_blocks(pool);
  const std::vector<double> own = ops::block_squares(gradient, blocks.begins);
  std::vector<double> numbers(blocks.count + 1);  // the last: touched rows
  for (std::size_t b = 0; b < own.size(); ++b) numbers[blocks.numbers[b]] = own[b];
  // Those that have other columns of the same rows do not count them again.
  const bool counts = !pool->is_sharded() || pool->group()->rank() % column_parts(pool) == 0;
  if (counts) numbers.back() = static_cast<double>(gradient.slots.numel());
  if (pool->is_sharded()) dist::sum_pairwise(*pool->group(), numbers);
  const auto touched_rows = static_cast<std::int64_t>(numbers.back());
  numbers.pop_back();
  return {std::sqrt(std::accumulate(numbers.begin(), numbers.end(), 0.0)), touched_rows};
}

bool is_rowwise(PoolOptimizer kind) {
  return kind == PoolOptimizer::kRowwiseAdamW || kind == PoolOptimizer::kRowwiseAdagrad;
}

// row_squares() of the whole rows; every one of those that share them, if any, has the same rows
// touched.
at::Tensor whole_squares(Communicator* sharers, const GroupedGradient& gradient,
                         std::int64_t width) {
  const at::Tensor squares = row_squares(gradient, width);
  if (sharers != nullptr) {
    dist::sum_pairwise(
        *sharers, {squares.mutable_data_ptr<double>(), static_cast<std::size_t>(squares.numel())});
  }
  return squares;
}

}  // namespace

// Lives as long as the optimizer, which takes it out of the pool. Locked, so that several threads
// may read rows at once: a thread goes on when its rows are current, and no call moves a row twice.
class RowOptimizer::Lag final : public nn::RowLag {
 public:
  explicit Lag(RowOptimizer& optimizer)
      : optimizer_(optimizer),
        rows_(optimizer.options_.beta1, optimizer.options_.beta2, optimizer.options_.eps,
              optimizer.options_.seed, optimizer.pool_->part()) {}

  void catch_up(const at::Tensor& slots) override {
    const std::lock_guard lock(mutex_);
    at::Tensor values = optimizer_.pool_->values;
    rows_.catch_up(values, optimizer_.state_, slots.to(at::kCPU).contiguous());
  }
  void catch_up_all() override {
    const std::lock_guard lock(mutex_);
    at::Tensor values = optimizer_.pool_->values;
    rows_.catch_up_all(values, optimizer_.state_);
  }
  void read(std::int64_t first, std::span<std::byte> out) override {
    const std::lock_guard lock(mutex_);
    rows_.read(optimizer_.pool_->values, optimizer_.state_, first, out);
  }

  void update(const GroupedGradient& gradient, const RowAdamWParameters& parameters) {
    const std::lock_guard lock(mutex_);
    at::Tensor values = optimizer_.pool_->values;
    rows_.update(values, optimizer_.state_, gradient, parameters);
    ops::MissedSteps& missed = rows_.missed();
    if (missed.last() - missed.first() < ops::MissedSteps::kMostSteps) return;
    rows_.catch_up_all(values, optimizer_.state_);
    missed.reset(missed.last());
  }
  ops::MissedSteps& missed() { return rows_.missed(); }

 private:
  RowOptimizer& optimizer_;
  ops::LaggingRows rows_;
  std::mutex mutex_;
};

RowOptimizer::RowOptimizer(MemoryPool pool, const Options& options)
    : pool_(std::move(pool)), options_(options) {
  TORCH_CHECK_VALUE(!is_quantized(pool_->options().row_dtype),
                    "RowOptimizer: expected rows of type float32 or bfloat16, got ",
                    row_type_name(pool_->options().row_dtype),
                    ": rows of few bits are read, not trained");
  pool_->catch_up();  // with what another optimizer owes
  if (is_rowwise(options_.kind)) row_sharers_ = row_sharers(pool_);
  const at::Tensor& values = pool_->values;
  const auto zeros = [&](at::IntArrayRef sizes, at::ScalarType type) {
    return values.is_cpu() ? pool_->tables().make(sizes, type)
                           : at::zeros(sizes, values.options().dtype(type));
  };
  const auto kind = options_.kind;
  const bool is_dense = kind == PoolOptimizer::kDenseAdamW;
  const bool is_adamw = kind == PoolOptimizer::kAdamW || is_dense;
  const bool is_rowwise_adamw = kind == PoolOptimizer::kRowwiseAdamW;
  const at::IntArrayRef a_row = values.sizes().slice(0, 1);
  if (is_adamw || (is_rowwise_adamw && options_.beta1 != 0)) {
    state_.exp_avg = zeros(values.sizes(), at::kFloat);
  }
  if (kind != PoolOptimizer::kSgd) {
    state_.exp_avg_sq = zeros(is_adamw ? values.sizes() : a_row, at::kFloat);
  }
  if (is_adamw || is_rowwise_adamw) state_.steps = zeros(a_row, at::kInt);
  if (options_.master_rows && values.scalar_type() != at::kFloat) {
    state_.master = zeros(values.sizes(), at::kFloat);
    constexpr std::int64_t kRows = 4096;  // at once, so that memory need not hold all of a file
    for (std::int64_t row = 0; row < values.size(0); row += kRows) {
      state_.master.slice(0, row, row + kRows).copy_(values.detach().slice(0, row, row + kRows));
      pool_->tables().write_back();
    }
  }
  if (is_dense) {
    TORCH_CHECK_VALUE(values.is_cpu(),
                      "RowOptimizer: expected a pool on the CPU for dense AdamW, got one on ",
                      values.device());
    lag_ = std::make_shared<Lag>(*this);
    pool_->tables().set_lag(lag_);
  }
}

RowOptimizer::~RowOptimizer() {
  if (lag_ == nullptr || pool_->tables().lag() != lag_) return;
  try {
    pool_->tables().set_lag(nullptr);
  } catch (const std::exception&) {
    // The pool was moved or its rows replaced: there is nothing to catch up any more, and nobody to
    // tell. The pool knows of this optimizer no longer.
  }
}

RowOptimizer::StepResult RowOptimizer::step(double lr, double gradient_scale,
                                            std::optional<double> clip) {
  at::NoGradGuard no_grad;
  // Before the gradient is taken, which is then still there.
  if (lag_ != nullptr) ops::MissedSteps::check(lr, options_.weight_decay);
  const GroupedGradient gradient = gradient_of(pool_);
  pool_->clear_gradient();
  const WholeGradient all = whole(pool_, gradient);
  const StepResult result{.gradient_norm = all.norm * std::abs(gradient_scale),
                          .touched_rows = all.touched_rows};
  if (!std::isfinite(result.gradient_norm)) return result;

  RowAdamWParameters parameters{
      .lr = lr,
      .beta1 = options_.beta1,
      .beta2 = options_.beta2,
      .eps = options_.eps,
      .weight_decay = options_.weight_decay,
      .gradient_scale = gradient_scale * train::clip_factor(result.gradient_norm, clip),
      // Odd multiplier: no two steps of a run, and no two runs of neighbouring seeds, round alike.
      .rounding_seed = (options_.seed + 0x9e3779b97f4a7c15ULL) * 0xd1342543de82ef95ULL +
                       static_cast<std::uint64_t>(steps_ + 1),
      .part = pool_->part()};
  if (is_rowwise(options_.kind)) {  // once, for all windows of a pool in a file
    parameters.squares = whole_squares(row_sharers_.get(), gradient, pool_->part().width());
  }
  at::Tensor values = pool_->values;
  const auto update = [&](const GroupedGradient& part, const RowAdamWParameters& p) {
    switch (options_.kind) {
      case PoolOptimizer::kAdamW:
        update_adamw(values, state_, part, p);
        break;
      case PoolOptimizer::kSgd:
        update_sgd(values, state_, part, p);
        break;
      case PoolOptimizer::kRowwiseAdamW:
        update_rowwise_adamw(values, state_, part, p);
        break;
      case PoolOptimizer::kRowwiseAdagrad:
        update_rowwise_adagrad(values, state_, part, p);
        break;
      case PoolOptimizer::kDenseAdamW:
        lag_->update(part, p);
        break;
    }
  };
  // Of a dense AdamW every call is a step of all rows.
  if (!pool_->is_in_file() || options_.kind == PoolOptimizer::kDenseAdamW) {
    update(gradient, parameters);
  } else {
    nn::for_each_window(tables_of(values, state_), nn::as_span(gradient.slots), 1,
                        [&](std::int64_t begin, std::int64_t end) {
                          RowAdamWParameters of_part = parameters;
                          if (of_part.squares.defined()) {
                            of_part.squares = parameters.squares.slice(0, begin, end);
                          }
                          update(part_of(gradient, begin, end), of_part);
                          pool_->tables().write_back();
                        });
  }
  ++steps_;
  return result;
}

at::Tensor RowOptimizer::missed_steps() const {
  const auto count =
      lag_ == nullptr ? 0 : static_cast<std::int64_t>(lag_->missed().history().size());
  at::Tensor steps = at::empty({count, 2}, at::kDouble);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto& [lr, weight_decay] = lag_->missed().history()[i];
    steps.mutable_data_ptr<double>()[2 * i] = lr;
    steps.mutable_data_ptr<double>()[2 * i + 1] = weight_decay;
  }
  return steps;
}

void RowOptimizer::set_steps(std::int64_t steps, const at::Tensor& missed_steps) {
  const std::int64_t count = missed_steps.defined() ? missed_steps.size(0) : 0;
  if (missed_steps.defined()) {
    TORCH_CHECK_VALUE(
        missed_steps.dim() == 2 && missed_steps.size(1) == 2 && count <= steps &&
            missed_steps.scalar_type() == at::kDouble && (lag_ != nullptr || count == 0),
        "RowOptimizer: expected missed_steps [n, 2] of type Double, for dense AdamW only and n at "
        "most ",
        steps, ", got shape ", missed_steps.sizes(), " of type ", missed_steps.scalar_type());
  }
  steps_ = steps;
  if (lag_ == nullptr) return;
  lag_->missed().reset(steps - count);
  const at::Tensor kept = count > 0 ? missed_steps.contiguous() : missed_steps;
  for (std::int64_t i = 0; i < count; ++i) {
    const double* step = kept.const_data_ptr<double>() + 2 * i;
    lag_->missed().add(step[0], step[1]);
  }
}

double RowOptimizer::gradient_norm(double gradient_scale) {
  return whole(pool_, gradient_of(pool_)).norm * std::abs(gradient_scale);
}

}  // namespace memlayers
