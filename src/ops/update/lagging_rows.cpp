// SPDX-License-Identifier: Apache-2.0
#include "ops/update/lagging_rows.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "ops/gather/row_dispatch.h"
#include "ops/parallel.h"
#include "ops/update/row_state.h"
#include "ops/update/row_sums.h"

namespace memlayers::ops {
namespace {

constexpr const char* kName = "dense AdamW";

}  // namespace

// Pointers to the tables; one instance a thread, for its buffers.
template <class Row>
class LaggingRows::Table {
 public:
  Table(const LaggingRows& lagging, Row* rows, const RowState& state)
      : missed_(lagging.missed_),
        // Another key than that of the row's update in the same step.
        seed_((lagging.seed_ ^ 0x632be59bd9b4e019ULL) * 0xd1342543de82ef95ULL +
              static_cast<std::uint64_t>(lagging.missed_.last())),
        part_(lagging.part_),
        untouched_decay_(missed_.decay_since(0)),
        width_(state.exp_avg.size(1)),
        rows_(rows),
        state_(state),
        steps_(state.steps.mutable_data_ptr<std::int32_t>()) {}

  // A row is this one's to bring up to date if it was the first to find it lagging: rows read many
  // times catch up once, and which thread does it makes no difference to the result.
  void catch_up_shared(std::int64_t slot) {
    const std::atomic_ref<std::int32_t> step(steps_[slot]);
    std::int32_t current = step.load(std::memory_order_relaxed);
    if (!lags(current)) return;
    if (step.compare_exchange_strong(current, now(), std::memory_order_relaxed)) {
      bring_up(slot, current);
    }
  }

  void catch_up(std::int64_t slot) {
    const std::int32_t current = steps_[slot];
    if (!lags(current)) return;
    steps_[slot] = now();
    bring_up(slot, current);
  }

  void read(std::int64_t slot, Row* out) {
    std::copy_n(rows_ + slot * width_, width_, out);
    if (!lags(steps_[slot])) return;
    const auto copy = [&](const at::Tensor& table, std::vector<float>& buffer) {
      const float* row = row_of(table, slot);
      if (row == nullptr) return static_cast<float*>(nullptr);
      buffer.assign(row, row + width_);
      return buffer.data();
    };
    if (steps_[slot] == 0) {
      decay(slot, out, copy(state_.master, master_));
    } else {
      move(slot, steps_[slot], out, copy(state_.master, master_), copy(state_.exp_avg, m_),
           copy(state_.exp_avg_sq, v_));
    }
  }

 private:
  std::int32_t now() const { return static_cast<std::int32_t>(missed_.last()); }

  // A row that never had a gradient has no momentum; without decay it stays as it is, and its
  // moments, which no page holds yet, need not be read.
  bool lags(std::int32_t current) const {
    return current < now() && (current > 0 || untouched_decay_ != 1);
  }

  void bring_up(std::int64_t slot, std::int32_t current) {
    Row* row = rows_ + slot * width_;
    if (current == 0) {
      decay(slot, row, row_of(state_.master, slot));
    } else {
      move(slot, current, row, row_of(state_.master, slot), row_of(state_.exp_avg, slot),
           row_of(state_.exp_avg_sq, slot));
    }
  }

  void move(std::int64_t slot, std::int32_t current, Row* row, float* master, float* m, float* v) {
    kernels::CatchUpStep step = missed_.of(current);
    step.rounding_key = rounding_key(seed_, part_, slot);
    kernels::active().rows<Row>().catch_up(row, master, m, v, width_, step);
  }

  void decay(std::int64_t slot, Row* row, float* master) {
    zeros_.resize(width_);
    kernels::active().rows<Row>().sgd(row, master, zeros_.data(), width_,
                                      {.decay = untouched_decay_,
                                       .lr = 0,
                                       .gradient_scale = 0,
                                       .rounding_key = rounding_key(seed_, part_, slot)});
  }

  const MissedSteps& missed_;
  std::uint64_t seed_;
  const PoolPart& part_;
  float untouched_decay_;
  std::int64_t width_;
  Row* rows_;
  const RowState& state_;
  std::int32_t* steps_;
  std::vector<float> zeros_, master_, m_, v_;
};

LaggingRows::LaggingRows(double beta1, double beta2, double eps, std::uint64_t seed, PoolPart part)
    : missed_(beta1, beta2, eps), seed_(seed), part_(std::move(part)) {}

void LaggingRows::update(at::Tensor& values, RowState& state, const GroupedGradient& gradient,
                         const RowAdamWParameters& p) {
  check_values(kName, values, state, gradient.slots);
  check_adamw_state(kName, values, state);
  MissedSteps::check(p.lr, p.weight_decay);
  const std::int64_t W = values.size(1), t = missed_.last() + 1;
  const std::int64_t* slots = gradient.slots.const_data_ptr<std::int64_t>();
  const std::int64_t last = gradient.slots.numel() - 1;
  std::int32_t* steps = state.steps.mutable_data_ptr<std::int32_t>();
  if (gradient.slots.numel() > 0) {
    dispatch_mutable_rows(values, [&]<class Row>(Row* rows) {
      const auto& kernel = kernels::active().rows<Row>();
      const RowTables<Row> tables(rows, state, W);
      const std::int64_t ahead = tables.rows_ahead();
      for_each_row(gradient, W, [&](std::int64_t u, const RowGradient& row_gradient) {
        const std::int64_t slot = slots[u], later = slots[std::min(u + ahead, last)];
        if (steps[slot] != t - 1) Table<Row>(*this, rows, state).catch_up(slot);
        kernels::AdamWStep step = adamw_step(p, t, slot);
        step.gradient_weight = row_gradient.weight;
        for_pieces(W, [&](std::int64_t c, std::int64_t n) {
          tables.prefetch_piece(later, c, n);
          kernel.adamw(rows + slot * W + c, tables.at(tables.master, slot, c),
                       tables.at(tables.exp_avg, slot, c), tables.at(tables.exp_avg_sq, slot, c),
                       row_gradient.numbers + c, n, at_column(step, c));
        });
        steps[slot] = static_cast<std::int32_t>(t);
      });
    });
  }
  missed_.add(p.lr, p.weight_decay);
}

void LaggingRows::catch_up(at::Tensor& values, RowState& state, const at::Tensor& slots) const {
  check_values(kName, values, state, slots);
  check_adamw_state(kName, values, state);
  const std::int64_t* slot = slots.const_data_ptr<std::int64_t>();
  dispatch_mutable_rows(values, [&]<class Row>(Row* rows) {
    parallel_ranges(slots.numel(), values.size(1), [&](std::int64_t begin, std::int64_t end) {
      Table<Row> table(*this, rows, state);
      for (std::int64_t i = begin; i < end; ++i) table.catch_up_shared(slot[i]);
    });
  });
}

void LaggingRows::catch_up_all(at::Tensor& values, RowState& state) const {
  check_values(kName, values, state, at::Tensor());
  check_adamw_state(kName, values, state);
  dispatch_mutable_rows(values, [&]<class Row>(Row* rows) {
    parallel_ranges(values.size(0), values.size(1), [&](std::int64_t begin, std::int64_t end) {
      Table<Row> table(*this, rows, state);
      for (std::int64_t slot = begin; slot < end; ++slot) table.catch_up(slot);
    });
  });
}

void LaggingRows::read(const at::Tensor& values, const RowState& state, std::int64_t first,
                       std::span<std::byte> out) const {
  check_values(kName, values, state, at::Tensor());
  check_adamw_state(kName, values, state);
  const std::int64_t W = values.size(1);
  const std::int64_t row_bytes = W * static_cast<std::int64_t>(values.element_size());
  at::Tensor table = values;  // read only; the tables of rows know but one kind of pointer
  dispatch_mutable_rows(table, [&]<class Row>(Row* rows) {
    parallel_ranges(static_cast<std::int64_t>(out.size()) / row_bytes, row_bytes,
                    [&](std::int64_t begin, std::int64_t end) {
                      Table<Row> source(*this, rows, state);
                      Row* to = reinterpret_cast<Row*>(out.data());
                      for (std::int64_t i = begin; i < end; ++i) source.read(first + i, to + i * W);
                    });
  });
}

}  // namespace memlayers::ops
