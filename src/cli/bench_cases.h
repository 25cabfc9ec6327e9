// SPDX-License-Identifier: Apache-2.0
// The options of `memlayers bench`, and the cases that they make.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "bench/bench.h"
#include "bench/machine.h"
#include "cli/command.h"

namespace memlayers::cli {

using Numbers = std::vector<std::int64_t>;
using Words = std::vector<std::string>;

struct BenchArguments {
  // Each with all the values to measure.
  Numbers tokens{1024}, dim{1024}, heads{4}, knn{32}, k_dim{}, v_dim{}, n_keys{1024};
  Words dtype{"float32"}, model_dtype{"float32"};
  Words dist{"uniform"}, variant{"memory+"}, optimizer{"adamw"};
  double zipf_exponent = 1;
  bool master_rows = false;
  std::int64_t layers = 8, context = 512, vocab = 32000;  // bench decoder
  std::optional<std::int64_t> ff_dim = {};
  std::optional<std::int64_t> stream_mib = {};
  std::vector<int> processes{1, 2, 4};  // bench parallel
  std::string split = "auto";
  int repeat = 5, threads = 0;
  bool is_json = false;
};

struct BenchKind {
  const char* name;
  const char* summary;
  bench::Figures (*measure)(const bench::Case& c, bench::Stream& stream);  // null: bench parallel
  std::int64_t default_dim;
};

// Whether a whole decoder is trained.
bool is_decoder(const BenchKind& kind);

struct NamedCase {
  std::string label;  // the options of which there are several values
  bench::Case c;
};

void add_options(CLI::App& app, const BenchKind& kind, BenchArguments& a);
// One for each combination of the values. Throws UsageError.
std::vector<NamedCase> make_cases(const BenchKind& kind, const BenchArguments& a);
nlohmann::ordered_json describe(const BenchKind& kind, const bench::Machine& machine,
                                const bench::Case& c);
// --stream-mib, and what it asks for. Throws Error where that does not fit.
void add_stream_mib(CLI::App& app, std::optional<std::int64_t>& mib);
std::int64_t stream_bytes(const std::optional<std::int64_t>& mib, const bench::Machine& machine);
// A row a case, or a column where there is one.
void print_table(const std::vector<NamedCase>& cases, const std::vector<bench::Figures>& results);

// `memlayers bench parallel`: under a launcher, as one of its processes.
int run_parallel(const BenchKind& kind, const BenchArguments& arguments);

}  // namespace memlayers::cli
