// SPDX-License-Identifier: Apache-2.0
// memlayers bench parallel: starts mpirun for each number of processes; what mpirun started
// measures together, and its first process prints a line a case.
#include "bench/parallel.h"

#include <ATen/Context.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <thread>

#include "cli/bench_cases.h"
#include "cli/terminal.h"
#include "memlayers/error.h"
#include "memlayers/parallel.h"

namespace memlayers::cli {
namespace {

using Json = nlohmann::ordered_json;

// This command again, all of its words.
std::vector<std::string> own_command() {
  std::ifstream file("/proc/self/cmdline");
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  words.at(0) = std::filesystem::read_symlink("/proc/self/exe");
  return words;
}

int all_threads(const BenchArguments& arguments) {
  const auto cores = std::max(1U, std::thread::hardware_concurrency());
  return arguments.threads > 0 ? arguments.threads : static_cast<int>(cores);
}

void measure_here(const BenchKind& kind, const BenchArguments& arguments,
                  const std::vector<NamedCase>& cases) {
  set_threads(std::max(1, all_threads(arguments) / world()->size()));
  for (const NamedCase& made : cases) {
    at::manual_seed(1);
    const bench::Figures figures = bench::bench_together(made.c);
    if (world()->rank() > 0) continue;
    Json json = describe(kind, bench::describe_machine(), made.c);
    json["split"] = arguments.split;
    for (const auto& [name, value] : figures.items()) json[name] = value;
    std::cout << json.dump() << std::endl;
  }
}

void print_row(std::vector<std::vector<std::string>>& rows, const Json& line) {
  static const std::vector<std::pair<const char*, const char*>> kColumns{
      {"processes", "processes"}, {"tokens", "tokens"},          {"step_ms", "step ms"},
      {"compute_ms", "compute"},  {"exchange_ms", "exchange"},   {"wait_ms", "wait"},
      {"bytes_sent", "bytes"},    {"least_bytes", "least bytes"}};
  if (rows.empty()) {
    rows.emplace_back();
    for (const auto& [key, title] : kColumns) rows.back().emplace_back(title);
  }
  rows.emplace_back();
  for (const auto& [key, title] : kColumns) {
    rows.back().push_back(short_count(line.at(key).get<double>()));
  }
}

}  // namespace

int run_parallel(const BenchKind& kind, const BenchArguments& arguments) {
  const std::vector<NamedCase> cases = make_cases(kind, arguments);
  if (is_launched()) {
    measure_here(kind, arguments, cases);
    return 0;
  }
  std::vector<std::string> command = own_command();
  if (!arguments.is_json) command.emplace_back("--json");
  std::vector<std::vector<std::string>> rows;
  for (const int processes : arguments.processes) {
    std::istringstream lines(bench::output_of(bench::mpirun_here(processes, command)));
    for (std::string line; std::getline(lines, line);) {
      if (arguments.is_json) {
        std::cout << line << std::endl;
      } else {
        print_row(rows, Json::parse(line));
      }
    }
  }
  if (!arguments.is_json) std::cout << table(rows);
  return 0;
}

}  // namespace memlayers::cli
