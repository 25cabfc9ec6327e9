// SPDX-License-Identifier: Apache-2.0
// memlayers bench: reads options, makes a case of each combination of their values, prints a line
// a case.
#include "bench/bench.h"

#include <ATen/Context.h>

#include <iostream>
#include <memory>

#include "cli/bench_cases.h"
#include "cli/bench_learn.h"
#include "cli/bench_model.h"
#include "cli/terminal.h"

namespace memlayers::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr BenchKind kKinds[] = {
    {"lookup", "query to slots, beside the two score products alone", bench::bench_lookup, 1024},
    {"gather", "the weighted sum of rows, beside a bare read of the same rows", bench::bench_gather,
     1024},
    {"update", "the row optimizer, beside the memory's rate", bench::bench_update, 1024},
    {"layer", "one memory layer: forward, backward, and reading alone (--tokens 1: decoding)",
     bench::bench_layer, 1024},
    {"step", "one memory layer's training step: forward, backward, both optimizers",
     bench::bench_step, 1024},
    {"decoder", "a whole decoder's training step, beside its dense twin", bench::bench_decoder,
     512},
    {"parallel", "a decoder's training step over 1, 2, 4 processes: compute, exchange, wait, bytes",
     nullptr, 256},
};

int run(const BenchKind& kind, const BenchArguments& arguments) {
  set_threads(arguments.threads);
  const std::vector<NamedCase> cases = make_cases(kind, arguments);
  const bench::Machine machine = bench::describe_machine();
  const std::int64_t bytes = stream_bytes(arguments.stream_mib, machine);
  bench::Stream stream(bytes);
  std::vector<bench::Figures> results;
  {
    ProgressBar bar(kind.name, static_cast<std::int64_t>(cases.size()));
    for (const NamedCase& made : cases) {
      // The first case may be refused at once: then that is all there is to say.
      if (!results.empty() || is_terminal(2)) {
        bar.update(static_cast<std::int64_t>(results.size()), made.label);
      }
      at::manual_seed(1);
      results.push_back(kind.measure(made.c, stream));
      if (!arguments.is_json) continue;
      Json json = describe(kind, machine, made.c);
      json["stream_bytes"] = bytes;
      for (const auto& [name, value] : results.back().items()) json[name] = value;
      std::cout << json.dump() << std::endl;  // at once: the next case may take minutes
    }
    bar.update(static_cast<std::int64_t>(results.size()));
    bar.finish();
  }
  if (arguments.is_json) return 0;
  std::cout << machine.cpu << ", " << machine.threads << " threads, " << machine.isa << ", cache "
            << short_bytes(static_cast<double>(machine.cache_bytes)) << '\n';
  print_table(cases, results);
  return 0;
}

constexpr const char* kFooter =
    "Options that take several values (1,2,3) make a case of each combination. Times are minima\n"
    "(with --json medians too). Cold: gather and update start with nothing in the caches but what\n"
    "the operator before has just made; inference_ms is of layers run in turn, so many that the\n"
    "weights of each have left the cache. docs/performance.md explains each figure.\n\n"
    "Example:\n  memlayers bench gather --dtype float32,bfloat16 --dist uniform,zipf\n"
    "  memlayers bench layer --tokens 1 --json";

}  // namespace

Command bench_command() {
  return {"bench", "Measure a memory layer and its parts beside what the machine can do",
          "memlayers bench step --n-keys 256,1024 --json",
          [](CLI::App& app) -> std::function<int()> {
            app.require_subcommand(1);
            auto chosen = std::make_shared<std::function<int()>>();
            for (const BenchKind& kind : kKinds) {
              CLI::App* verb = app.add_subcommand(kind.name, kind.summary);
              verb->footer(kFooter);
              auto a = std::make_shared<BenchArguments>();
              add_options(*verb, kind, *a);
              verb->callback([chosen, kind, a] {
                *chosen = [kind, a] {
                  return kind.measure == nullptr ? run_parallel(kind, *a) : run(kind, *a);
                };
              });
            }
            CLI::App* answering = app.add_subcommand(
                "model", "how fast a model of yours answers: a prompt, and 1, 4, 16 streams");
            const std::function<int()> model = bench_model_command(*answering);
            answering->callback([chosen, model] { *chosen = model; });
            CLI::App* learning = app.add_subcommand(
                "learn", "new facts by a patch and by what it is compared with: what each forgets");
            const std::function<int()> learn = bench_learn_command(*learning);
            learning->callback([chosen, learn] { *chosen = learn; });
            return [chosen] { return (*chosen)(); };
          }};
}

}  // namespace memlayers::cli
