// SPDX-License-Identifier: Apache-2.0
#include "bench/limits.h"

#include <ATen/Parallel.h>
#include <torch/types.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "bench/figures.h"

namespace memlayers::bench {
namespace {

// What was read goes here, so that it had to be read.
std::atomic<std::uint64_t> sink{0};

template <class F>
void on_every_thread(std::int64_t count, const F& f) {
  at::parallel_for(0, count, 1, [&](std::int64_t begin, std::int64_t end) { f(begin, end); });
}

std::vector<StreamPlan> stream_plans() {
  std::vector<StreamPlan> plans;
  for (std::int64_t streams : {1, 2, 4, 8, 16}) {
    for (std::int64_t ahead : {0, 1024, 4096}) plans.push_back({streams, ahead});
  }
  return plans;
}

// One row after the other, or up to 16 side by side: that many streams may keep more of the memory
// busy. The second level of caches may wait for more lines at once than the first.
std::vector<RowPlan> row_plans() {
  std::vector<RowPlan> plans;
  for (std::int64_t abreast : {1, 2, 4, 8, 16}) {
    for (std::int64_t lines : {1, 4}) {
      plans.push_back({abreast, 0, lines, false, false});
      for (bool to_second_level : {false, true}) {
        for (std::int64_t ahead : {1, 2, 4, 8, 16, 32}) {
          if (ahead >= abreast) plans.push_back({abreast, ahead, lines, false, to_second_level});
        }
      }
    }
    for (bool to_second_level : {false, true}) {
      plans.push_back({abreast, std::max<std::int64_t>(abreast, 4), 4, true, to_second_level});
    }
  }
  return plans;
}

std::vector<RowUpdatePlan> row_update_plans() {
  std::vector<RowUpdatePlan> plans;
  for (std::int64_t piece : {0, 512, 2048}) {
    plans.push_back({0, piece, false});
    for (std::int64_t ahead : {1, 2, 4, 8}) {
      for (bool to_second_level : {false, true}) plans.push_back({ahead, piece, to_second_level});
    }
  }
  return plans;
}

// What is added to rows that keep their bits; a number that the compiler cannot know.
std::atomic<std::uint64_t> nothing{0};

std::int64_t row_bytes_of(const at::Tensor& table) {
  return static_cast<std::int64_t>(table.nbytes()) / table.size(0);
}

// 1e9 bytes a second of pass(first slot, count) by all threads, each its part of the slots, when
// `slot_bytes` of each are moved; of all, only the slots are in a cache.
template <class Pass>
double cold_gbs(Stream& stream, const at::Tensor& slots, std::int64_t slot_bytes,
                const Pass& pass) {
  const std::int64_t* slot = slots.const_data_ptr<std::int64_t>();
  stream.flush_cache();
  warm(slots);
  const double seconds = seconds_of([&] {
    on_every_thread(slots.numel(),
                    [&](std::int64_t begin, std::int64_t end) { pass(slot + begin, end - begin); });
  });
  return static_cast<double>(slots.numel() * slot_bytes) / seconds / 1e9;
}

// The best rate of pass(slots, plan): the three plans that were fastest on one of the sets are
// timed on all, each time in turn with what they judge.
template <class Plan, class Pass>
double best_of_plans(const std::vector<Plan>& plans, const std::vector<at::Tensor>& slot_sets,
                     const Judged& judged, const Pass& pass) {
  std::vector<std::pair<double, Plan>> tried;
  for (std::size_t i = 0; i < plans.size(); ++i) {
    tried.emplace_back(pass(slot_sets[i % slot_sets.size()], plans[i]), plans[i]);
  }
  std::sort(tried.begin(), tried.end(),
            [](const auto& a, const auto& b) { return a.first > b.first; });
  constexpr std::size_t kFinalists = 3;
  double best = 0;
  for (std::size_t set = 0; set < slot_sets.size(); ++set) {
    for (std::size_t i = 0; i < kFinalists; ++i) {
      best = std::max(best, pass(slot_sets[set], tried[i].second));
      judged(set);
    }
  }
  return best;
}

}  // namespace

std::int64_t Stream::cold_bytes(std::int64_t cache_bytes) {
  constexpr std::int64_t kLeast = 256 << 20;
  return std::max(kLeast, 8 * cache_bytes);
}

Stream::Stream(std::int64_t bytes)
    : memory_(pool::MappedRegion::anonymous(static_cast<std::size_t>(bytes))),
      read_plans_(stream_plans()),
      update_plans_(stream_plans()) {
  pass(/*writes=*/true, {});  // the first touch
}

double Stream::pass(bool writes, StreamPlan plan) {
  std::byte* data = memory_.bytes().data();
  const auto bytes = static_cast<std::int64_t>(memory_.bytes().size());
  const std::int64_t threads = at::get_num_threads(), part = bytes / threads / 4096 * 4096;
  const double seconds = seconds_of([&] {
    on_every_thread(threads, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t first = begin * part, length = (end - begin) * part;
      if (writes) {
        update_stream(data + first, length, plan);
      } else {
        sink += read_stream(data + first, length, plan);
      }
    });
  });
  return static_cast<double>((writes ? 2 : 1) * threads * part) / seconds / 1e9;
}

double Stream::best_of(bool writes, std::vector<StreamPlan>& plans) {
  constexpr int kTries = 2, kPasses = 5;
  double best = 0;
  if (plans.size() > 1) {
    StreamPlan fastest;
    for (StreamPlan plan : plans) {
      for (int i = 0; i < kTries; ++i) {
        if (const double rate = pass(writes, plan); rate > best) {
          best = rate;
          fastest = plan;
        }
      }
    }
    plans = {fastest};
  }
  for (int i = 0; i < kPasses; ++i) best = std::max(best, pass(writes, plans.front()));
  return best;
}

void Stream::measure() {
  read_gbs_ = std::max(read_gbs_, best_of(false, read_plans_));
  update_gbs_ = std::max(update_gbs_, best_of(true, update_plans_));
}

double Stream::read_again() {
  const double rate = pass(/*writes=*/false, read_plans_.front());
  read_gbs_ = std::max(read_gbs_, rate);
  return rate;
}

void Stream::flush_cache() { pass(/*writes=*/false, {}); }

double random_row_gbs(Stream& stream, const at::Tensor& values,
                      const std::vector<at::Tensor>& slot_sets, const Judged& judged) {
  const auto* rows = static_cast<const std::byte*>(values.const_data_ptr());
  const std::int64_t bytes = row_bytes_of(values);
  const auto pass = [&](const at::Tensor& slots, const RowPlan& plan) {
    return cold_gbs(stream, slots, bytes, [&](const std::int64_t* slot, std::int64_t count) {
      sink += read_rows(rows, bytes, slot, count, plan);
    });
  };
  return best_of_plans(row_plans(), slot_sets, judged, pass);
}

double random_row_gbs(Stream& stream, const at::Tensor& values, const at::Tensor& slots) {
  return random_row_gbs(stream, values, {slots}, [](std::size_t) {});
}

double random_update_gbs(Stream& stream, const std::vector<at::Tensor>& tables,
                         const std::vector<at::Tensor>& slot_sets, const Judged& judged) {
  std::vector<RowTable> rows;
  std::int64_t bytes = 0;
  for (const at::Tensor& table : tables) {
    rows.push_back({static_cast<std::byte*>(table.mutable_data_ptr()), row_bytes_of(table)});
    bytes += rows.back().row_bytes;
  }
  const auto pass = [&](const at::Tensor& slots, const RowUpdatePlan& plan) {
    return cold_gbs(stream, slots, 2 * bytes, [&](const std::int64_t* slot, std::int64_t count) {
      update_rows(rows, slot, count, plan, nothing);
    });
  };
  return best_of_plans(row_update_plans(), slot_sets, judged, pass);
}

double gemm_gflops(std::int64_t inner) {
  constexpr std::int64_t kSide = 1024;
  constexpr int kPasses = 10;
  const at::NoGradGuard no_grad;
  const at::Tensor a = torch::randn({kSide, inner}), b = torch::randn({kSide, inner});
  at::Tensor out = torch::empty({kSide, kSide});
  Times times;
  for (int i = 0; i < kPasses; ++i) {
    times.add(seconds_of([&] { at::mm_out(out, a, b.t()); }));
  }
  return 2.0 * static_cast<double>(kSide * kSide * inner) / times.best() / 1e9;
}

void warm(const at::Tensor& tensor) {
  sink += read_stream(static_cast<const std::byte*>(tensor.const_data_ptr()),
                      static_cast<std::int64_t>(tensor.nbytes()), {});
}

}  // namespace memlayers::bench
