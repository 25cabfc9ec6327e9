// SPDX-License-Identifier: Apache-2.0
#include "nn/pool_exchange.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "dist/collectives.h"
#include "memlayers/error.h"
#include "nn/token_windows.h"

namespace memlayers::nn {
namespace {

// Each call has tags of its own, of which the same come again long after their messages arrived.
constexpr std::int64_t kTagsACall = 32, kCallsApart = 512;

std::unique_ptr<Transfer> send(Communicator& group, int to, int tag, const at::Tensor& numbers) {
  const auto owner = std::make_shared<at::Tensor>(numbers.contiguous());
  return group.send(
      to, tag, {static_cast<const std::byte*>(owner->const_data_ptr()), owner->nbytes()}, owner);
}

std::unique_ptr<Transfer> receive(Communicator& group, int from, int tag, at::Tensor& numbers) {
  const auto owner = std::make_shared<at::Tensor>(numbers);
  return group.receive(
      from, tag, {static_cast<std::byte*>(owner->mutable_data_ptr()), owner->nbytes()}, owner);
}

at::Tensor floats(at::IntArrayRef sizes) { return at::empty(sizes, at::kFloat); }

at::Tensor whole_numbers(const std::vector<std::int64_t>& numbers, at::IntArrayRef sizes) {
  at::Tensor tensor = at::empty(sizes, at::kLong);
  std::ranges::copy(numbers, tensor.mutable_data_ptr<std::int64_t>());
  return tensor;
}

}  // namespace

PoolExchange::PoolExchange(std::shared_ptr<Communicator> group, std::int64_t slots,
                           const std::vector<std::int64_t>& sections, PoolSplit split)
    : group_(std::move(group)) {
  for (const std::int64_t width : sections) layouts_.emplace_back(slots, width, split);
  const dist::PoolLayout& layout = layouts_[0];
  if (layout.processes() != group_->size()) {
    throw Error("pool: a split in " + std::to_string(split.column_parts) +
                " parts of columns and " + std::to_string(split.row_parts) + " of rows is for " +
                std::to_string(layout.processes()) + " processes, got a group of " +
                std::to_string(group_->size()));
  }
  part_ = part_of(group_->rank());
  std::int64_t local = 0;
  for (const PoolPart::Columns& range : part_.columns) {
    first_local_column_.push_back(local);
    local += range.width;
  }
}

PoolPart PoolExchange::part_of(int process) const {
  const int row_part = layouts_[0].row_part_of(process);
  PoolPart part{.first_slot = row_part,
                .slot_step = layouts_[0].row_parts(),
                .rows = layouts_[0].rows(row_part)};
  for (const dist::PoolLayout& layout : layouts_) {  // side by side in a row
    const int own = layout.column_part_of(process);
    part.columns.push_back(
        {.first = part.row_width + layout.first_column(own), .width = layout.columns(own)});
    part.row_width += layout.width();
  }
  return part;
}

// --- What is asked of each part of the rows ------------------------------------------------------

std::vector<PoolExchange::Call::Route> PoolExchange::route(const at::Tensor& slots) const {
  const std::int64_t Q = layouts_[0].row_parts(), T = slots.size(0), J = slots.size(1);
  std::vector<Call::Route> routes(static_cast<std::size_t>(Q));
  if (Q == 1) {
    routes[0].slots = slots;
    return routes;
  }
  const std::int64_t* slot = slots.const_data_ptr<std::int64_t>();
  for (std::int64_t q = 0; q < Q; ++q) {
    std::vector<std::int64_t> tokens;
    std::int64_t most = 0;  // slots of one token
    for (std::int64_t t = 0; t < T; ++t) {
      const std::int64_t count =
          std::count_if(slot + t * J, slot + (t + 1) * J, [&](auto s) { return s % Q == q; });
      if (count > 0) tokens.push_back(t);
      most = std::max(most, count);
    }
    const auto count = static_cast<std::int64_t>(tokens.size());
    Call::Route& to = routes[static_cast<std::size_t>(q)];
    to.tokens = whole_numbers(tokens, {count});
    to.slots = at::empty({count, most}, at::kLong);
    to.places = at::empty({count, most}, at::kLong);
    auto* row = to.slots.mutable_data_ptr<std::int64_t>();
    auto* place = to.places.mutable_data_ptr<std::int64_t>();
    for (const std::int64_t t : tokens) {
      std::int64_t filled = 0;
      for (std::int64_t j = t * J; j < (t + 1) * J; ++j) {
        if (slot[j] % Q != q) continue;
        row[filled] = slot[j] / Q;
        place[filled++] = j;
      }
      // What is not filled repeats a row with weight 0: it touches none that is not touched.
      std::fill(row + filled, row + most, ~row[0]);
      std::fill(place + filled, place + most, -1);
      row += most;
      place += most;
    }
  }
  return routes;
}

at::Tensor PoolExchange::Call::Route::weights(const at::Tensor& all) const {
  if (!places.defined()) return all;
  at::Tensor chosen = floats(places.sizes());
  const float* from = all.const_data_ptr<float>();
  const std::int64_t* place = places.const_data_ptr<std::int64_t>();
  auto* to = chosen.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < places.numel(); ++i) to[i] = place[i] < 0 ? 0 : from[place[i]];
  return chosen;
}

at::Tensor PoolExchange::Call::Route::rows(const at::Tensor& all) const {
  return (tokens.defined() ? all.index_select(0, tokens) : all).contiguous();
}

// A message of slots: T', J', and the rows' numbers in 32 bits where that is enough.
at::Tensor PoolExchange::pack(const at::Tensor& slots) const {
  const bool is_narrow = layouts_[0].rows(0) <= std::numeric_limits<std::int32_t>::max();
  const at::Tensor numbers = is_narrow ? slots.to(at::kInt) : slots;
  at::Tensor message = at::empty({static_cast<std::int64_t>(16 + numbers.nbytes())}, at::kByte);
  auto* to = static_cast<std::byte*>(message.mutable_data_ptr());
  const std::int64_t sizes[] = {slots.size(0), slots.size(1)};
  std::memcpy(to, sizes, sizeof sizes);
  if (numbers.numel() > 0) std::memcpy(to + 16, numbers.const_data_ptr(), numbers.nbytes());
  return message;
}

at::Tensor PoolExchange::unpack(const Message& message, int from) const {
  const bool is_narrow = layouts_[0].rows(0) <= std::numeric_limits<std::int32_t>::max();
  std::int64_t sizes[2] = {};
  if (message.size >= sizeof sizes) std::memcpy(sizes, message.data.get(), sizeof sizes);
  const std::size_t bytes = is_narrow ? 4 : 8;
  const auto count = (message.size - std::min(message.size, sizeof sizes)) / bytes;
  if (sizes[0] < 0 || sizes[1] < 0 || sizes[0] * sizes[1] != static_cast<std::int64_t>(count) ||
      message.size != sizeof sizes + count * bytes) {
    throw Error("pool: expected slots from rank " + std::to_string(from) + ", got a message of " +
                std::to_string(message.size) + " bytes");
  }
  // The message is only read; from_blob has no const twin.
  return at::from_blob(message.data.get() + sizeof sizes, {sizes[0], sizes[1]},
                       at::TensorOptions().dtype(is_narrow ? at::kInt : at::kLong))
      .to(at::kLong, /*non_blocking=*/false, /*copy=*/true);
}

std::shared_ptr<PoolExchange::Call> PoolExchange::ask(
    const at::Tensor& slots, std::int64_t number, std::function<void(const at::Tensor&)> on_slots) {
  const auto call = std::make_shared<Call>();
  call->exchange_ = shared_from_this();
  call->on_slots_ = std::move(on_slots);
  call->number_ = number;
  call->tokens_ = slots.size(0);
  call->slots_a_token_ = slots.size(1);
  call->routes_ = route(slots.contiguous());
  const int size = group_->size(), rank = group_->rank(), tag = call->next_tag(1);
  call->asked_.resize(static_cast<std::size_t>(size));
  std::vector<at::Tensor> packed;  // by part of the rows
  for (const Call::Route& route : call->routes_) packed.push_back(pack(route.slots));
  for (int process = 0; process < size; ++process) {
    Call::Asked& asked = call->asked_[static_cast<std::size_t>(process)];
    asked.weights.resize(layouts_.size());
    asked.rows.resize(layouts_.size());
    if (process != rank) asked.coming = group_->receive(process, tag);
  }
  for (int i = 1; i < size; ++i) {  // not all to the same one first
    const int to = (rank + i) % size;
    const auto q = static_cast<std::size_t>(layouts_[0].row_part_of(to));
    call->sent_.push_back(send(*group_, to, tag, packed[q]));
  }
  return call;
}

// --- One exchange --------------------------------------------------------------------------------

int PoolExchange::Call::next_tag(int count) {
  const int tag =
      dist::kFirstFreeTag + static_cast<int>(number_ % kCallsApart * kTagsACall) + tags_;
  tags_ += count;
  return tag;
}

PoolExchange::Call::Asked& PoolExchange::Call::asked_by(int process) {
  Asked& asked = asked_[static_cast<std::size_t>(process)];
  if (asked.slots.defined()) return asked;
  if (asked.coming != nullptr) {
    asked.coming->wait();
    asked.slots = exchange_->unpack(asked.coming->take(), process);
    asked.coming.reset();
  } else {
    const int q = exchange_->layouts_[0].row_part_of(process);
    asked.slots = routes_[static_cast<std::size_t>(q)].slots;
  }
  if (exchange_->layouts_[0].row_parts() == 1) {
    on_slots_(asked.slots);
    return asked;
  }
  const at::Tensor is_real = asked.slots >= 0;
  on_slots_(asked.slots.masked_select(is_real));
  asked.slots = at::where(is_real, asked.slots, asked.slots.bitwise_not());
  return asked;
}

// `asking(process)` goes to each process, as soon as it can; what each process sends is put where
// `place(its Asked)` says and answered by `answer(its Asked)`; what comes back lands in
// `back[process]`, unless it is undefined. This process's own part takes no message.
//
// The order in which messages come makes no difference to any result: answers are made token by
// token, and whoever adds them up does so by rank.
struct PoolExchange::Call::Round {
  std::function<at::Tensor(int process)> asking;
  std::function<at::Tensor&(Asked&)> place;
  std::function<at::Tensor(const Asked&)> answer;
  std::vector<at::Tensor> back;  // by process
};

void PoolExchange::Call::exchange(Round& round, std::optional<std::int64_t> columns) {
  Communicator& group = *exchange_->group_;
  const int size = group.size(), rank = group.rank(), tag = next_tag(2);
  std::vector<std::unique_ptr<Transfer>> coming(static_cast<std::size_t>(size));
  const auto expect = [&](int other) {
    Asked& asked = asked_by(other);
    at::Tensor& numbers = round.place(asked);
    numbers = floats({asked.slots.size(0), columns.value_or(asked.slots.size(1))});
    coming[static_cast<std::size_t>(other)] = receive(group, other, tag, numbers);
  };
  Transfers back;
  for (int i = 1; i < size; ++i) {
    const int other = (rank + i) % size;
    if (asked_[static_cast<std::size_t>(other)].slots.defined()) expect(other);
    at::Tensor& result = round.back[static_cast<std::size_t>(other)];
    if (result.defined()) back.push_back(receive(group, other, tag + 1, result));
    sent_.push_back(send(group, other, tag, round.asking(other)));
  }
  const auto own = static_cast<std::size_t>(rank);
  Asked& mine = asked_by(rank);
  round.place(mine) = round.asking(rank);
  if (round.answer) round.back[own] = round.answer(mine);
  for (int i = 1; i < size; ++i) {  // those come first whose first message is for this one
    const int other = (rank + size - i) % size;
    auto& transfer = coming[static_cast<std::size_t>(other)];
    if (transfer == nullptr) expect(other);
    transfer->wait();
    const Asked& asked = asked_[static_cast<std::size_t>(other)];
    if (round.answer) sent_.push_back(send(group, other, tag + 1, round.answer(asked)));
  }
  wait_all(back);
  wait_all(sent_);
}

at::Tensor PoolExchange::Call::gather(std::size_t section, const at::Tensor& weights_in,
                                      const Rows& rows) {
  const dist::PoolLayout& layout = exchange_->layouts_[section];
  const at::Tensor weights = weights_in.contiguous();
  const int size = layout.processes();
  const ops::ColumnRange own{exchange_->first_local_column_[section],
                             exchange_->part_.columns[section].width};
  std::vector<at::Tensor> chosen;  // by part of the rows
  for (const Route& route : routes_) chosen.push_back(route.weights(weights));
  const auto route_of = [&](int process) {
    return static_cast<std::size_t>(layout.row_part_of(process));
  };
  Round round{
      .asking = [&](int process) { return chosen[route_of(process)]; },
      .place = [&](Asked& asked) -> at::Tensor& { return asked.weights[section]; },
      .answer =
          [&](const Asked& asked) {
            return by_token_windows(
                rows.values, rows.is_in_file, asked.slots,
                [&](std::int64_t begin, std::int64_t end) -> std::vector<at::Tensor> {
                  return {ops::gather_columns(rows.values, asked.slots.slice(0, begin, end),
                                              asked.weights[section].slice(0, begin, end), own)};
                })[0];
          },
      .back = {}};
  for (int process = 0; process < size; ++process) {
    round.back.push_back(
        floats({routes_[route_of(process)].slots.size(0), exchange_->columns(section, process)}));
  }
  exchange(round, {});
  const bool is_whole = routes_.size() == 1;
  at::Tensor out = is_whole ? floats({tokens_, layout.width()})
                            : at::zeros({tokens_, layout.width()}, at::kFloat);
  for (int process = 0; process < size; ++process) {  // parts of the rows in order
    const int c = layout.column_part_of(process);
    at::Tensor to = out.slice(1, layout.first_column(c), layout.first_column(c + 1));
    const at::Tensor& slice = round.back[static_cast<std::size_t>(process)];
    if (is_whole) {
      to.copy_(slice);
    } else {
      to.index_add_(0, routes_[route_of(process)].tokens, slice);
    }
  }
  return out;
}

at::Tensor PoolExchange::Call::dots(std::size_t section, const at::Tensor& x, const Rows& rows,
                                    bool wants_dots) {
  const dist::PoolLayout& layout = exchange_->layouts_[section];
  const int size = layout.processes();
  const auto route_of = [&](int process) -> const Route& {
    return routes_[static_cast<std::size_t>(layout.row_part_of(process))];
  };
  std::vector<std::vector<dist::DotNode>> nodes;  // by part of the columns
  for (int c = 0; c < layout.column_parts(); ++c) nodes.push_back(layout.nodes(c));
  const int own = layout.column_part_of(exchange_->group_->rank());
  std::vector<ops::ColumnRange> ranges;
  for (const dist::DotNode& node : nodes[static_cast<std::size_t>(own)]) {
    ranges.push_back({node.first - layout.first_column(own), node.width});
  }
  Round round{.asking =
                  [&](int process) {
                    const int c = layout.column_part_of(process);
                    return route_of(process).rows(
                        x.slice(1, layout.first_column(c), layout.first_column(c + 1)));
                  },
              .place = [&](Asked& asked) -> at::Tensor& { return asked.rows[section]; },
              .answer = {},
              .back = {}};
  if (wants_dots) {
    round.answer = [&](const Asked& asked) {
      return by_token_windows(
          rows.values, rows.is_in_file, asked.slots,
          [&](std::int64_t begin, std::int64_t end) -> std::vector<at::Tensor> {
            return {ops::dot_columns(rows.values, asked.slots.slice(0, begin, end),
                                     asked.rows[section].slice(0, begin, end),
                                     exchange_->first_local_column_[section], ranges)};
          })[0];
    };
  }
  for (int process = 0; process < size; ++process) {
    const auto c = static_cast<std::size_t>(layout.column_part_of(process));
    const at::Tensor& slots = route_of(process).slots;
    round.back.push_back(
        wants_dots
            ? floats({slots.size(0), static_cast<std::int64_t>(nodes[c].size()), slots.size(1)})
            : at::Tensor());
  }
  exchange(round, layout.columns(own));
  if (!wants_dots) return {};

  at::Tensor out = floats({tokens_, slots_a_token_});
  auto* to = out.mutable_data_ptr<float>();
  for (int q = 0; q < layout.row_parts(); ++q) {
    const auto add = [](const at::Tensor& left, const at::Tensor& right) { return left + right; };
    dist::DotSum<at::Tensor, decltype(add)> sum(add);
    for (int c = 0; c < layout.column_parts(); ++c) {
      const auto process = static_cast<std::size_t>(q * layout.column_parts() + c);
      const auto& part = nodes[static_cast<std::size_t>(c)];
      for (std::size_t n = 0; n < part.size(); ++n) {
        sum.push(part[n], round.back[process].select(1, static_cast<std::int64_t>(n)));
      }
    }
    const at::Tensor total = sum.total().contiguous();
    const at::Tensor& places = routes_[static_cast<std::size_t>(q)].places;
    if (!places.defined()) return total;
    const float* from = total.const_data_ptr<float>();
    const std::int64_t* place = places.const_data_ptr<std::int64_t>();
    for (std::int64_t i = 0; i < places.numel(); ++i) {
      if (place[i] >= 0) to[place[i]] = from[i];
    }
  }
  return out;
}

std::vector<FactoredGradient> PoolExchange::Call::gradient(std::size_t section) const {
  std::vector<FactoredGradient> by_process;
  for (const Asked& asked : asked_) {
    FactoredGradient& part = by_process.emplace_back();
    if (asked.slots.numel() == 0 || asked.rows[section].size(1) == 0) continue;
    part = {asked.slots, asked.weights[section], asked.rows[section],
            exchange_->first_local_column_[section]};
  }
  return by_process;
}

}  // namespace memlayers::nn
