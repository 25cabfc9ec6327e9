// SPDX-License-Identifier: Apache-2.0
// Each kernel of each instruction set, on one thread, beside two others: a plain loop compiled for
// any processor ("plain"), and the rate at which the same memory is read in sequence, which no
// kernel can beat by much ("ceiling"). "cold": rows of a pool of 8 last-level caches, ids drawn
// before timing. "warm": scores that were just computed, as the product before them leaves them.
#include <benchmark/benchmark.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace memlayers::kernels {
namespace {

std::int64_t pool_bytes() {
  constexpr std::int64_t kMiB = 1 << 20;
  const std::int64_t cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
  return std::clamp<std::int64_t>(8 * cache, 128 * kMiB, 1024 * kMiB);
}

// Bytes a second of one pass after another over the memory, the best of some.
double read_rate(const void* memory, std::int64_t bytes) {
  using Clock = std::chrono::steady_clock;
  using Words = std::uint64_t __attribute__((vector_size(16)));
  constexpr std::int64_t kBlock = 8 * sizeof(Words);
  const std::int64_t passes = std::max<std::int64_t>(1, (1 << 24) / bytes);
  double best = 0;
  for (int attempt = 0; attempt < 5; ++attempt) {
    const auto start = Clock::now();
    for (std::int64_t pass = 0; pass < passes; ++pass) {
      Words sums[8] = {};
      const auto* byte = static_cast<const char*>(memory);
      for (std::int64_t at = 0; at + kBlock <= bytes; at += kBlock) {
        Words words[8];
        std::memcpy(words, byte + at, kBlock);
        for (int i = 0; i < 8; ++i) sums[i] += words[i];
      }
      Words sum = {};
      for (const Words& part : sums) sum += part;
      benchmark::DoNotOptimize(sum);
      benchmark::ClobberMemory();
    }
    const std::chrono::duration<double> seconds = Clock::now() - start;
    best = std::max(best, static_cast<double>(passes * bytes) / seconds.count());
  }
  return best;
}

// The memory of all cold benchmarks, in huge pages like the pool of a model where the system has
// them. Its bytes are small numbers as float32 and as bfloat16.
class ColdPool {
 public:
  ColdPool() : bytes_(pool_bytes() / kHugePage * kHugePage) {
    const auto size = static_cast<std::size_t>(bytes_);
    memory_.reset(std::aligned_alloc(kHugePage, size));
    if (memory_ == nullptr) throw std::bad_alloc();
    madvise(memory_.get(), size, MADV_HUGEPAGE);
    auto* floats = rows<float>();
    for (std::size_t i = 0; i < size / sizeof(float); ++i) {
      floats[i] = 0.001F * static_cast<float>(i % 1021);
    }
    read_rate_ = read_rate(memory_.get(), bytes_);
  }
  double rate() const { return read_rate_; }
  // A part of the pool, `part` of `parts`: a table of its own.
  template <class Row>
  Row* rows(std::int64_t part = 0, std::int64_t parts = 1) {
    return reinterpret_cast<Row*>(static_cast<char*>(memory_.get()) + begin_of(part, parts));
  }
  template <class Row>
  std::int64_t num_rows(std::int64_t width, std::int64_t parts = 1) const {
    return begin_of(1, parts) / (width * static_cast<std::int64_t>(sizeof(Row)));
  }

 private:
  static constexpr std::int64_t kHugePage = 2 << 20;
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::int64_t begin_of(std::int64_t part, std::int64_t parts) const {
    return bytes_ / parts / 64 * 64 * part;  // on a cache line
  }

  std::int64_t bytes_;
  std::unique_ptr<void, Free> memory_;
  double read_rate_;
};

ColdPool& cold_pool() {
  static ColdPool pool;
  return pool;
}

std::vector<std::int64_t> draw_ids(std::int64_t count, std::int64_t num_rows) {
  std::mt19937_64 generator(1);
  std::uniform_int_distribution<std::int64_t> distribution(0, num_rows - 1);
  std::vector<std::int64_t> ids(static_cast<std::size_t>(count));
  for (std::int64_t& id : ids) id = distribution(generator);
  return ids;
}

std::vector<float> draw_scores(std::int64_t n) {
  std::mt19937 generator(1);
  std::normal_distribution<float> distribution;
  std::vector<float> scores(static_cast<std::size_t>(n));
  for (float& score : scores) score = distribution(generator);
  return scores;
}

void report(benchmark::State& state, double bytes_an_iteration, double ceiling) {
  const double bytes = bytes_an_iteration * static_cast<double>(state.iterations());
  state.counters["bytes/s"] = benchmark::Counter(bytes, benchmark::Counter::kIsRate);
  state.counters["ceiling"] = ceiling;
  state.counters["share"] = benchmark::Counter(bytes / ceiling, benchmark::Counter::kIsRate);
}

void add(const std::string& name, const std::function<void(benchmark::State&)>& body) {
  benchmark::RegisterBenchmark(name.c_str(), body)
      ->Repetitions(5)
      ->MinTime(0.1)
      ->ReportAggregatesOnly();
}

float to_float(float x) { return x; }
float to_float(BFloat16 x) {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(x.bits) << 16);
}

// --- gather -------------------------------------------------------------------------------------

template <class Row>
void plain_gather(const Row* values, const RowSpan& span, const std::int64_t* ids,
                  const float* weights, std::int64_t count, std::int64_t /*following*/,
                  float* out) noexcept {
  std::fill_n(out, span.width, 0.0F);
  for (std::int64_t i = 0; i < count; ++i) {
    const Row* row = values + ids[i] * span.stride + span.first;
    for (std::int64_t c = 0; c < span.width; ++c) out[c] += weights[i] * to_float(row[c]);
  }
}

template <class Row>
void add_gather(const std::string& isa, const std::string& type,
                decltype(ReadKernels<Row>::gather) gather) {
  for (std::int64_t width : {128, 512, 1024}) {
    for (std::int64_t count : {32, 128}) {
      add("gather/" + isa + "/" + type + "/cold/dim:" + std::to_string(width) +
              "/k:" + std::to_string(count),
          [=](benchmark::State& state) {
            ColdPool& pool = cold_pool();
            // As many as there are rows: none is still in a cache when it comes again.
            const std::int64_t rows = pool.num_rows<Row>(width), lists = rows / count;
            const std::vector<std::int64_t> ids = draw_ids(lists * count, rows);
            const std::vector<float> weights = draw_scores(count);
            std::vector<float> out(static_cast<std::size_t>(width));
            std::int64_t list = 0;
            for (auto _ : state) {
              const std::int64_t following = list + 1 < lists ? count : 0;
              gather(pool.rows<Row>(), {width, width, 0, width}, ids.data() + list * count,
                     weights.data(), count, following, out.data());
              benchmark::DoNotOptimize(out.data());
              benchmark::ClobberMemory();
              list = (list + 1) % lists;
            }
            report(state, static_cast<double>(count * width) * sizeof(Row), pool.rate());
          });
    }
  }
}

// --- top_k --------------------------------------------------------------------------------------

// Scratch holds the order of all n.
void plain_top_k(const float* scores, std::int64_t n, std::int64_t k, float* best,
                 std::int32_t* index, void* scratch) noexcept {
  auto* order = static_cast<std::int32_t*>(scratch);
  std::iota(order, order + n, 0);
  std::partial_sort(order, order + k, order + n, [scores](std::int32_t a, std::int32_t b) {
    return scores[a] > scores[b] || (scores[a] == scores[b] && a < b);
  });
  for (std::int64_t i = 0; i < k; ++i) {
    index[i] = order[i];
    best[i] = scores[order[i]];
  }
}

struct alignas(64) Line {
  std::byte bytes[64];
};

void add_top_k(const std::string& isa, decltype(Kernels::top_k) top_k) {
  for (std::int64_t n : {128, 1024, 4096}) {
    for (std::int64_t k : {1, 32, 128}) {
      add("top_k/" + isa + "/warm/n:" + std::to_string(n) + "/k:" + std::to_string(k),
          [=](benchmark::State& state) {
            constexpr std::int64_t kSets = 16;  // so that branches cannot be learnt by heart
            const std::vector<float> scores = draw_scores(n * kSets);
            std::vector<float> best(static_cast<std::size_t>(k));
            std::vector<std::int32_t> index(static_cast<std::size_t>(k));
            std::vector<Line> scratch(top_k_scratch_bytes(n, k) / sizeof(Line) + 1);
            std::int64_t set = 0;
            for (auto _ : state) {
              top_k(scores.data() + set * n, n, k, best.data(), index.data(), scratch.data());
              benchmark::DoNotOptimize(best.data());
              benchmark::ClobberMemory();
              set = (set + 1) % kSets;
            }
            const std::int64_t bytes = n * static_cast<std::int64_t>(sizeof(float));
            report(state, static_cast<double>(bytes), read_rate(scores.data(), bytes * kSets));
          });
    }
  }
}

// --- combine ------------------------------------------------------------------------------------

// All k * k sums, then the best: what the bound (a + 1)(b + 1) <= k saves.
void plain_combine(const float* row_score, const std::int32_t* row_index, const float* col_score,
                   const std::int32_t* col_index, std::int64_t k, const std::uint32_t* /*plan*/,
                   float* scores, std::int64_t* slots, void* /*scratch*/) noexcept {
  static thread_local std::vector<std::pair<float, std::int32_t>> cells;
  cells.clear();
  for (std::int64_t a = 0; a < k; ++a) {
    for (std::int64_t b = 0; b < k; ++b) {
      cells.emplace_back(-(row_score[a] + col_score[b]), static_cast<std::int32_t>(a * k + b));
    }
  }
  std::partial_sort(cells.begin(), cells.begin() + k, cells.end());
  for (std::int64_t i = 0; i < k; ++i) {
    const auto [score, place] = cells[static_cast<std::size_t>(i)];
    scores[i] = -score;
    slots[i] = slot_of(row_index[place / k], col_index[place % k]);
  }
}

void add_combine(const std::string& isa, decltype(Kernels::combine) combine) {
  for (std::int64_t k : {8, 32, 128}) {
    add("combine/" + isa + "/warm/k:" + std::to_string(k), [=](benchmark::State& state) {
      constexpr std::int64_t kSets = 16;
      std::vector<float> r = draw_scores(k * kSets), c = r;
      std::reverse(c.begin(), c.end());
      for (std::int64_t set = 0; set < kSets; ++set) {
        std::sort(r.begin() + set * k, r.begin() + (set + 1) * k, std::greater<>());
        std::sort(c.begin() + set * k, c.begin() + (set + 1) * k, std::greater<>());
      }
      std::vector<std::int32_t> index(static_cast<std::size_t>(k));
      std::iota(index.begin(), index.end(), 0);
      std::vector<float> scores(static_cast<std::size_t>(k));
      std::vector<std::int64_t> slots(static_cast<std::size_t>(k));
      std::vector<Line> scratch(combine_scratch_bytes(k) / sizeof(Line) + 1);
      const std::vector<std::uint32_t> plan = combine_plan(k);
      std::int64_t set = 0;
      for (auto _ : state) {
        combine(r.data() + set * k, index.data(), c.data() + set * k, index.data(), k, plan.data(),
                scores.data(), slots.data(), scratch.data());
        benchmark::DoNotOptimize(slots.data());
        benchmark::ClobberMemory();
        set = (set + 1) % kSets;
      }
      state.counters["slots/s"] = benchmark::Counter(static_cast<double>(k * state.iterations()),
                                                     benchmark::Counter::kIsRate);
    });
  }
}

// --- adamw --------------------------------------------------------------------------------------

void plain_adamw(float* row, float* /*master*/, float* m, float* v, const float* gradient,
                 std::int64_t width, const AdamWStep& step) noexcept {
  for (std::int64_t c = 0; c < width; ++c) {
    const float g = step.gradient_scale * gradient[c];
    m[c] = step.beta1 * m[c] + (1 - step.beta1) * g;
    v[c] = step.beta2 * v[c] + (1 - step.beta2) * g * g;
    row[c] = step.decay * row[c] -
             step.step_size * m[c] / (std::sqrt(v[c] * step.v_correction) + step.eps);
  }
}

constexpr AdamWStep kAdamW{.beta1 = 0.9F,
                           .beta2 = 0.95F,
                           .eps = 1e-8F,
                           .decay = 1,
                           .step_size = 1e-3F,
                           .v_correction = 1,
                           .gradient_scale = 1,
                           .rounding_key = 0};

// The table, m and v are thirds of the pool; "warm": one row of each, which stays in the cache.
// Bytes count what is read and what is written back.
template <class Row>
void add_adamw(const std::string& isa, const std::string& type,
               decltype(RowKernels<Row>::adamw) adamw) {
  for (bool is_warm : {false, true}) {
    for (std::int64_t width : {128, 1024}) {
      add("adamw/" + isa + "/" + type + (is_warm ? "/warm" : "/cold") +
              "/dim:" + std::to_string(width),
          [=](benchmark::State& state) {
            ColdPool& pool = cold_pool();
            const std::int64_t rows = is_warm ? 1 : pool.num_rows<float>(width, 3);
            const std::vector<std::int64_t> ids = draw_ids(rows, rows);
            const std::vector<float> gradient = draw_scores(width);
            AdamWStep step = kAdamW;
            std::size_t at = 0;
            for (auto _ : state) {
              const std::int64_t first = ids[at] * width;
              step.rounding_key += 64;
              adamw(pool.rows<Row>(0, 3) + first, nullptr, pool.rows<float>(1, 3) + first,
                    pool.rows<float>(2, 3) + first, gradient.data(), width, step);
              benchmark::ClobberMemory();
              at = (at + 1) % ids.size();
            }
            const double moved =
                2.0 * static_cast<double>(width) * (sizeof(Row) + 2 * sizeof(float));
            report(state, moved, pool.rate());
          });
    }
  }
}

// Three tables 256 MiB apart, which AMD's first-level cache takes for one another, and some pages
// more (src/pool/mapped_region.cpp); rows in ascending order, the next but one asked for, as an
// update goes through them.
void add_distant_adamw(const std::string& isa, decltype(RowKernels<float>::adamw) adamw) {
  for (std::int64_t extra : {0, 3 * 4096}) {
    add("adamw/" + isa + "/float32/tables_apart:256MiB+" + std::to_string(extra),
        [=](benchmark::State& state) {
          constexpr std::int64_t kWidth = 1024, kTable = 256 << 20, kHugePage = 2 << 20;
          constexpr std::int64_t kRows = kTable / (kWidth * sizeof(float)), kStep = 7, kAhead = 2;
          const std::int64_t bytes = 3 * (kTable + kHugePage);
          void* const memory =
              mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
          if (memory == MAP_FAILED) return state.SkipWithError("no memory");
          madvise(memory, bytes, MADV_HUGEPAGE);
          std::memset(memory, 0, bytes);
          float* tables[3];
          for (std::int64_t i = 0; i < 3; ++i) {
            tables[i] = static_cast<float*>(memory) + i * (kTable + extra) / 4;
          }
          const std::vector<float> gradient = draw_scores(kWidth);
          std::int64_t row = 0;
          for (auto _ : state) {
            const std::int64_t first = row * kWidth;
            const std::int64_t later = (row + kAhead * kStep) % kRows * kWidth;
            constexpr std::int64_t kPiece = 128, kLine = 16;
            for (std::int64_t c = 0; c < kWidth; c += kPiece) {
              for (const float* table : tables) {
                for (std::int64_t i = 0; i < kPiece; i += kLine) {
                  __builtin_prefetch(table + later + c + i, 1);
                }
              }
              adamw(tables[0] + first + c, nullptr, tables[1] + first + c, tables[2] + first + c,
                    gradient.data() + c, kPiece, kAdamW);
            }
            benchmark::ClobberMemory();
            row = (row + kStep) % kRows;
          }
          state.SetBytesProcessed(state.iterations() * 6 * kWidth * sizeof(float));
          munmap(memory, bytes);
        });
  }
}

void add_all() {
  add_gather<float>("plain", "float32", plain_gather<float>);
  add_gather<BFloat16>("plain", "bfloat16", plain_gather<BFloat16>);
  add_top_k("plain", plain_top_k);
  add_combine("plain", plain_combine);
  add_adamw<float>("plain", "float32", plain_adamw);
  for (const Kernels* kernels : supported()) {
    add_gather<float>(kernels->isa, "float32", kernels->f32.gather);
    add_gather<BFloat16>(kernels->isa, "bfloat16", kernels->bf16.gather);
    add_top_k(kernels->isa, kernels->top_k);
    add_combine(kernels->isa, kernels->combine);
    add_adamw<float>(kernels->isa, "float32", kernels->f32.adamw);
    add_adamw<BFloat16>(kernels->isa, "bfloat16", kernels->bf16.adamw);
    add_distant_adamw(kernels->isa, kernels->f32.adamw);
  }
}

}  // namespace
}  // namespace memlayers::kernels

int main(int argc, char** argv) {
  memlayers::kernels::add_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
