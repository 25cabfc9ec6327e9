// SPDX-License-Identifier: Apache-2.0
// The exchanges of a pool that a memory group holds together (docs/parallel.md). Each process asks
// for the rows that its own tokens chose; each answers for the part of the pool that it holds.
// Rows, and what the optimizer keeps of them, never leave their process.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "dist/pool_layout.h"
#include "memlayers/ops.h"
#include "memlayers/parallel.h"
#include "memlayers/row_updates.h"
#include "ops/gather/columns.h"

namespace memlayers::nn {

// Shared by all gathers of one pool. Every process makes the same calls in the same order.
class PoolExchange : public std::enable_shared_from_this<PoolExchange> {
 public:
  // A row is `sections` side by side ({v_dim}, or {dim, v_dim} for PEER), each cut by itself, so
  // that every process has its share of each. Throws Error where the split is not of as many parts
  // as the group has processes.
  PoolExchange(std::shared_ptr<Communicator> group, std::int64_t slots,
               const std::vector<std::int64_t>& sections, PoolSplit split);

  Communicator& group() const { return *group_; }
  const PoolPart& part() const { return part_; }
  PoolPart part_of(int process) const;
  int column_parts() const { return layouts_[0].column_parts(); }

  // The rows as this process holds them.
  struct Rows {
    at::Tensor values;
    bool is_in_file;
  };

  // One gather: the slots are asked for once, forward and backward then exchange numbers for them.
  class Call {
   public:
    // [T, width of the section]: the weighted sums of rows; weights [T, J].
    at::Tensor gather(std::size_t section, const at::Tensor& weights, const Rows& rows);
    // [T, J]: the dots of x [T, width of the section] with the rows. Undefined where !wants_dots:
    // then x goes to those that hold the rows, and nothing comes back.
    at::Tensor dots(std::size_t section, const at::Tensor& x, const Rows& rows, bool wants_dots);
    // The gradient of this process's part that weights given to gather() and x given to dots() make
    // together, of the tokens of all processes by rank: columns as in Rows::values. Undefined for
    // those without any.
    std::vector<FactoredGradient> gradient(std::size_t section) const;
    std::int64_t number() const { return number_; }

   private:
    friend class PoolExchange;
    // What is asked of one part of the rows.
    struct Route {
      at::Tensor slots;   // [T', J'] int64: rows of the part; ~row where it only fills up
      at::Tensor tokens;  // [T'] int64: for which tokens; undefined: all of them
      at::Tensor places;  // [T', J'] int64: which of the T * J; -1: fills up; undefined: all
      at::Tensor weights(const at::Tensor& all) const;  // [T, J] -> [T', J']
      at::Tensor rows(const at::Tensor& all) const;     // [T, w] -> [T', w]
    };
    // What another process, or this one, asks of this one.
    struct Asked {
      std::unique_ptr<Transfer> coming;       // until the slots are there
      at::Tensor slots;                       // [T', J']
      std::vector<at::Tensor> weights, rows;  // by section
    };
    struct Round;
    Asked& asked_by(int process);
    int next_tag(int count);
    // What each process sends is [its tokens, columns], or of the shape of its slots.
    void exchange(Round& round, std::optional<std::int64_t> columns);
    std::shared_ptr<PoolExchange> exchange_;
    std::function<void(const at::Tensor&)> on_slots_;
    std::int64_t number_ = 0, tokens_ = 0, slots_a_token_ = 0;
    int tags_ = 0;
    std::vector<Route> routes_;  // by part of the rows
    std::vector<Asked> asked_;   // by process
    Transfers sent_;
  };

  // Asks for slots [T, J]. on_slots: called with the rows (int64, contiguous, as often as they were
  // chosen) that each process's tokens read here, before they are read.
  std::shared_ptr<Call> ask(const at::Tensor& slots, std::int64_t number,
                            std::function<void(const at::Tensor&)> on_slots);

 private:
  std::vector<Call::Route> route(const at::Tensor& slots) const;
  std::int64_t columns(std::size_t section, int process) const {
    return layouts_[section].columns(layouts_[section].column_part_of(process));
  }
  at::Tensor pack(const at::Tensor& slots) const;
  at::Tensor unpack(const Message& message, int from) const;

  std::shared_ptr<Communicator> group_;
  std::vector<dist::PoolLayout> layouts_;         // by section
  std::vector<std::int64_t> first_local_column_;  // by section
  PoolPart part_;
};

}  // namespace memlayers::nn
