// SPDX-License-Identifier: Apache-2.0
#include "cli/bench_model.h"

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "bench/machine.h"
#include "bench/model.h"
#include "cli/bench_cases.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "memlayers/checkpoint.h"

namespace memlayers::cli {
namespace {

struct BenchModelArguments {
  std::string model;
  bench::ModelCase c;
  std::optional<std::int64_t> stream_mib = {};
  int threads = 0;
  bool is_json = false;
};

int run(const BenchModelArguments& arguments) {
  set_threads(arguments.threads);
  const std::string folder = resolve_model_folder(arguments.model);
  const auto tokenizer = load_tokenizer(folder);
  const bench::Machine machine = bench::describe_machine();
  bench::Stream stream(stream_bytes(arguments.stream_mib, machine));
  const bench::Figures figures =
      bench::bench_model(open_model(folder), tokenizer, arguments.c, stream);
  if (arguments.is_json) {
    nlohmann::ordered_json json{{"bench", "model"},
                                {"model", folder},
                                {"cpu", machine.cpu},
                                {"isa", machine.isa},
                                {"threads", machine.threads},
                                {"prompt", arguments.c.prompt},
                                {"tokens", arguments.c.tokens}};
    for (const auto& [name, value] : figures.items()) json[name] = value;
    print_json(json);
    return 0;
  }
  std::cout << machine.cpu << ", " << machine.threads << " threads, " << machine.isa << '\n';
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, value] : figures.items()) {
    if (!name.ends_with("_median_ms")) rows.push_back({name, short_number(value)});
  }
  std::cout << table(rows);
  return 0;
}

}  // namespace

std::function<int()> bench_model_command(CLI::App& app) {
  auto a = std::make_shared<BenchModelArguments>();
  add_model(app, a->model);
  app.add_option("--prompt", a->c.prompt, "tokens of the prompt")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--tokens", a->c.tokens, "that each stream is continued by")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--streams", a->c.streams, "how many are continued together")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  app.add_option("--prefill", a->c.prefill, "tokens of a prompt that one step takes in, at most")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--repeat", a->c.repeat, "timed repetitions, after one that is not")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000));
  add_stream_mib(app, a->stream_mib);
  add_threads(app, a->threads);
  add_json(app, a->is_json);
  app.footer(
      "decode_share: of the rate at which memory is read (stream_gbs), with the bytes that a "
      "token\n"
      "must read (decode_bytes). Times are minima.\n\n"
      "Example:\n  memlayers bench model SmolLM2-135M-Instruct.Q4_1.gguf --streams 1,4 --json");
  return [a] { return run(*a); };
}

}  // namespace memlayers::cli
