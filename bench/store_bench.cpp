// SPDX-License-Identifier: Apache-2.0
// What edits of a pool on disk cost: applying a large patch, rolling one row back, opening after a
// writer was killed, reading through many patches. Not a Google Benchmark: one run is the
// measurement, each figure the best of some.
//
//   store_bench                                # 1 GB: 1024^2 rows of 256 float32
//   store_bench --folder /scratch --n-keys 2896  # 8.6 GB
#include <ATen/Parallel.h>
#include <signal.h>
#include <sys/wait.h>
#include <torch/torch.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "io/file_system.h"
#include "memlayers/ops.h"
#include "memlayers/store.h"
#include "pool/chunks.h"

namespace memlayers {
namespace {

struct Options {
  std::int64_t n_keys = 1024, width = 256, rows = 10000, patches = 100, repeat = 5;
  std::string folder;
};

template <class Act>
double best_ms(std::int64_t repeat, const Act& act) {
  double best = 0;
  for (std::int64_t i = 0; i < repeat; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    act(i);
    const double ms =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
    best = i == 0 ? ms : std::min(best, ms);
  }
  return best;
}

// A patch of `rows` rows at random slots, all different.
Patch random_patch(const Snapshot& pool, std::int64_t rows, std::uint64_t seed) {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  at::Tensor slots = std::get<0>(
      at::_unique(torch::randint(0, pool.rows(), {rows + rows / 8 + 8}, generator, torch::kLong)));
  slots = slots.slice(0, 0, rows).contiguous();
  const at::Tensor values = torch::randn({slots.size(0), pool.width()}, generator);
  Patch patch{.id = new_patch_id(), .pool = pool.pool_id(), .width = pool.width()};
  const auto* slot = slots.const_data_ptr<std::int64_t>();
  patch.slots.assign(slot, slot + slots.size(0));
  const auto* bytes = static_cast<const std::byte*>(values.const_data_ptr());
  patch.rows.assign(bytes, bytes + values.nbytes());
  return patch;
}

void print(const char* what, double ms) {
  std::printf("%-60s %9.3f ms\n", what, ms);
  std::fflush(stdout);
}

// A writer that is killed while it applies one small patch after the other.
void kill_a_writer(const std::string& folder) {
  const pid_t child = fork();
  if (child == 0) {
    Store store = Store::open(folder);
    const std::vector<float> row(static_cast<std::size_t>(store.snapshot().width()), 1);
    for (std::int64_t slot = 0;; ++slot) {
      store.update(slot % store.snapshot().rows(), std::as_bytes(std::span(row)));
    }
  }
  usleep(300000);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

// Of two snapshots in turn, so that what else the machine does counts for both.
std::pair<double, double> gather_ms(const Snapshot& first, const Snapshot& second,
                                    const at::Tensor& slots, const at::Tensor& weights,
                                    std::int64_t repeat) {
  for (const Snapshot* rows : {&first, &second}) {
    gather(*rows, slots, weights);  // pages and checksums of the first touch
  }
  std::pair<double, double> best{1e9, 1e9};
  for (std::int64_t i = 0; i < repeat; ++i) {
    best.first = std::min(best.first, best_ms(1, [&](auto) { gather(first, slots, weights); }));
    best.second = std::min(best.second, best_ms(1, [&](auto) { gather(second, slots, weights); }));
  }
  return best;
}

void run(const Options& o) {
  const std::string folder = o.folder + "/store_bench-" + std::to_string(getpid());
  std::filesystem::create_directories(folder);
  struct Cleanup {
    const std::string& folder;
    ~Cleanup() { std::filesystem::remove_all(folder); }
  } cleanup{folder};
  pool::write_chunks(
      io::posix(), folder, "chunk",
      pool::RowsSource{[&](std::int64_t first, std::span<std::byte> out) {
                         std::vector<float> row(static_cast<std::size_t>(o.width));
                         for (std::size_t at = 0; at < out.size(); at += row.size() * 4) {
                           std::ranges::fill(row, static_cast<float>(first++ % 97) / 97);
                           std::memcpy(out.data() + at, row.data(), row.size() * 4);
                         }
                       },
                       o.n_keys * o.n_keys, o.width, RowType::kFloat32},
      pool::new_pool_id(), 0);
  const double opening = best_ms(o.repeat, [&](std::int64_t) { StoreReader::open(folder); });
  print("open for reading, never edited", opening);

  const at::Tensor slots = torch::randint(0, o.n_keys * o.n_keys, {1024, 128}, torch::kLong);
  const at::Tensor weights = torch::rand({1024, 128});
  {
    Store store = Store::open(folder);
    const Snapshot unpatched = store.snapshot();
    for (std::int64_t i = 0; i < o.patches; ++i) {
      store.apply(random_patch(store.snapshot(), 100, static_cast<std::uint64_t>(i)));
    }
    const auto [bare, patched] = gather_ms(unpatched, store.snapshot(), slots, weights, o.repeat);
    print("gather of 1,024 tokens, 128 rows each, no patch", bare);
    print("the same through the patches", patched);
    std::printf("%-60s %9.3f\n", "  ratio", patched / bare);
    const Patch large = random_patch(store.snapshot(), o.rows, 1000);
    double apply = 0, rollback = 0;
    for (std::int64_t i = 0; i < o.repeat; ++i) {
      Patch patch = large;
      patch.id = new_patch_id();
      const double ms = best_ms(1, [&](std::int64_t) { store.apply(patch); });
      apply = i == 0 ? ms : std::min(apply, ms);
      store.rollback(patch.id);
    }
    print("apply a patch of --rows rows", apply);
    for (std::int64_t i = 0; i < o.repeat; ++i) {
      const Patch fact = random_patch(store.snapshot(), 16, static_cast<std::uint64_t>(2000 + i));
      store.apply(fact);
      const double ms = best_ms(1, [&](std::int64_t) { store.rollback(fact.id); });
      rollback = i == 0 ? ms : std::min(rollback, ms);
    }
    print("roll a patch of 16 rows back", rollback);
  }
  kill_a_writer(folder);
  const double recovered = best_ms(1, [&](std::int64_t) { Store::open(folder); });
  print("open for writing after a kill (recovery)", recovered);
  const double reading = best_ms(o.repeat, [&](std::int64_t) {
    StoreReader reader = StoreReader::open(folder);
    gather(reader.snapshot(), slots.slice(0, 0, 1), weights.slice(0, 0, 1));
  });
  print("open for reading, and the first token's rows", reading);
}

}  // namespace
}  // namespace memlayers

int main(int argc, char** argv) {
  memlayers::Options o;
  o.folder = std::filesystem::temp_directory_path();
  CLI::App app{"What edits of a pool on disk cost"};
  app.add_option("--n-keys", o.n_keys)->capture_default_str();
  app.add_option("--width", o.width)->capture_default_str();
  app.add_option("--rows", o.rows, "of the large patch")->capture_default_str();
  app.add_option("--patches", o.patches, "small ones of 100 rows to read through")
      ->capture_default_str();
  app.add_option("--repeat", o.repeat)->capture_default_str();
  app.add_option("--folder", o.folder, "where the pool is made and removed again")
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  memlayers::run(o);
}
