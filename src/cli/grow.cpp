// SPDX-License-Identifier: Apache-2.0
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/command.h"
#include "cli/new_output.h"
#include "cli/terminal.h"
#include "memlayers/checkpoint.h"
#include "memlayers/error.h"
#include "memlayers/grow.h"

namespace memlayers::cli {
namespace {

struct Arguments {
  std::string model, out;
  std::int64_t n_keys = 0;
  std::uint64_t seed = 0;
  int threads = 0;
  bool is_json = false;
};

int grow_model(const Arguments& arguments) {
  set_threads(arguments.threads);
  check_is_new(arguments.out, "folder");
  const std::string source = resolve_model_folder(arguments.model);
  const Llama model = load_model(source);
  if (model->pool().is_empty()) {
    throw Error(source + ": expected a model with memory layers, got one without a pool");
  }
  const std::int64_t before = model->config().memory->n_keys;
  if (arguments.n_keys <= before) {
    throw UsageError("grow: --n-keys: expected more than the model's " + std::to_string(before) +
                     ", got " + std::to_string(arguments.n_keys));
  }
  const Llama grown = grow(model, arguments.n_keys, arguments.seed);
  write_new_model(arguments.out, grown, source);

  const std::int64_t slots = grown->pool()->slots();
  if (arguments.is_json) {
    std::cout << nlohmann::ordered_json{{"model", arguments.out},
                                        {"n_keys_before", before},
                                        {"n_keys", arguments.n_keys},
                                        {"slots", slots},
                                        {"open_keys", *grown->config().memory->open_keys}}
                     .dump()
              << '\n';
  } else {
    std::cout << arguments.out << ": " << short_count(static_cast<double>(slots)) << " slots (was "
              << short_count(static_cast<double>(before * before))
              << "); the new ones open when it is trained (init = \"" << arguments.out << "\")\n";
  }
  return 0;
}

}  // namespace

Command grow_command() {
  return {
      "grow", "Give a model more slots; it says the same until it is trained",
      "memlayers grow runs/demo --n-keys 256 -o runs/larger\n"
      "  memlayers train more.toml --set 'init=\"runs/larger\"'",
      [](CLI::App& app) -> std::function<int()> {
        auto a = std::make_shared<Arguments>();
        app.add_option("model", a->model, "model folder, or a run's folder")->required();
        app.add_option("--n-keys", a->n_keys, "sub-keys per set: n_keys^2 slots")
            ->required()
            ->check(CLI::PositiveNumber);
        app.add_option("-o,--out", a->out, "the new model folder")->required();
        app.add_option("--seed", a->seed, "of the new rows and sub-keys")->capture_default_str();
        app.add_option("--threads", a->threads, "CPU threads; 0: all cores")->capture_default_str();
        app.add_flag("--json", a->is_json, "one JSON object on standard output");
        return [a] { return grow_model(*a); };
      }};
}

}  // namespace memlayers::cli
