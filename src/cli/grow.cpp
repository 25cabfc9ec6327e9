// SPDX-License-Identifier: Apache-2.0
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/command.h"
#include "cli/new_output.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "io/file_system.h"
#include "io/model_source.h"
#include "memlayers/checkpoint.h"
#include "memlayers/edit.h"
#include "memlayers/error.h"
#include "memlayers/grow.h"

namespace memlayers::cli {
namespace {

struct GrowArguments {
  std::string model, out;
  std::int64_t n_keys = 0;
  std::uint64_t seed = 0;
  double noise = 0.01;
  int threads = 0;
  bool is_json = false, shows_unused = false, revives = false;
};

// What nothing has read, by the reads that training counted; and, where asked for, a new model in
// which those slots have rows of busy ones.
int show_unused(const GrowArguments& arguments) {
  if (arguments.revives == arguments.out.empty()) {
    throw UsageError("grow: --shrink-unused: expected --revive and -o FOLDER, or neither of them");
  }
  const std::string source = resolve_model_folder(arguments.model);
  const Snapshot rows = StoreReader::open(io::join(source, "pool")).snapshot();
  const std::optional<at::Tensor> reads = read_usage(source, rows.rows());
  if (!reads) {
    throw Error(source +
                ": expected usage.safetensors, the reads that training counted, found none");
  }
  const std::vector<std::int64_t> unused = unused_slots(*reads);
  if (arguments.revives) {
    check_is_new(arguments.out, "folder");
    Llama model = load_model(source);
    revive_unused(model, *reads, arguments.noise, arguments.seed);
    write_new_model(arguments.out, model, source);
  }
  const auto total = static_cast<double>(rows.rows());
  if (arguments.is_json) {
    nlohmann::ordered_json json{{"slots", rows.rows()}, {"unused", unused.size()}};
    json["unused_slots"] = unused;
    if (arguments.revives) json["model"] = arguments.out;
    print_json(json);
    return 0;
  }
  const auto count = static_cast<double>(unused.size());
  std::cout << table({{"", "slots", "share"},
                      {"read", short_count(total - count), percent(1 - count / total)},
                      {"never read", short_count(count), percent(count / total)}})
            << (arguments.revives
                    ? arguments.out + ": those never read have rows of busy ones\n"
                    : "nothing was changed (--json lists them; --revive -o FOLDER)\n");
  return 0;
}

int grow_model(const GrowArguments& arguments) {
  if (!arguments.shows_unused || arguments.revives) work_without_readers();
  set_threads(arguments.threads);
  if (arguments.shows_unused) return show_unused(arguments);
  if (arguments.n_keys == 0) throw UsageError("grow: expected --n-keys, or --shrink-unused");
  const bool is_in_place = arguments.out.empty();
  if (!is_in_place) check_is_new(arguments.out, "folder");
  const std::string source = resolve_model_folder(arguments.model);
  const ModelConfig config = io::read_model(io::posix(), source);
  if (config.memory && arguments.n_keys <= config.memory->n_keys) {
    throw UsageError("grow: --n-keys: expected more than the model's " +
                     std::to_string(config.memory->n_keys) + ", got " +
                     std::to_string(arguments.n_keys));
  }
  const GrownFolder grown = grow_folder(source, arguments.n_keys, arguments.seed,
                                        is_in_place ? std::nullopt : std::optional(arguments.out));

  const std::string model = is_in_place ? source : arguments.out;
  const auto slots = [](std::int64_t n_keys) { return n_keys * n_keys; };
  if (arguments.is_json) {
    print_json({{"model", model},
                {"n_keys_before", grown.n_keys_before},
                {"n_keys", grown.n_keys},
                {"slots", slots(grown.n_keys)},
                {"open_keys", grown.open_keys}});
    return 0;
  }
  const auto count = [&](std::int64_t n_keys) {
    return short_count(static_cast<double>(slots(n_keys)));
  };
  std::cout << model << ": " << count(grown.n_keys) << " slots (was " << count(grown.n_keys_before)
            << "); the new ones open when it is trained (";
  if (io::posix().exists(io::join(model, "trainer.json"))) {
    std::cout << "the run goes on with memory.n_keys = " << grown.n_keys << ")\n";
  } else {
    std::cout << "init = \"" << model << "\")\n";
  }
  return 0;
}

}  // namespace

Command grow_command() {
  return {
      "grow", "Give a model more slots; it says the same until it is trained",
      "memlayers grow runs/demo --n-keys 256\n"
      "  memlayers train demo.toml --set memory.n_keys=256",
      [](CLI::App& app) -> std::function<int()> {
        auto a = std::make_shared<GrowArguments>();
        add_model(app, a->model);
        app.add_option("--n-keys", a->n_keys, "sub-keys per set: n_keys^2 slots")
            ->check(CLI::PositiveNumber);
        app.add_option("-o,--out", a->out, "a new folder; without it the model itself grows");
        auto* unused = app.add_flag("--shrink-unused", a->shows_unused,
                                    "tell which slots training never read, and grow nothing");
        app.add_flag("--revive", a->revives,
                     "and write a model in which they have rows of busy ones, plus noise")
            ->needs(unused);
        app.add_option("--noise", a->noise, "of --revive, in parts of a row's size")
            ->check(CLI::NonNegativeNumber)
            ->capture_default_str();
        app.add_option("--seed", a->seed, "of the new rows and sub-keys")->capture_default_str();
        add_threads(app, a->threads);
        add_json(app, a->is_json);
        return [a] { return grow_model(*a); };
      }};
}

}  // namespace memlayers::cli
