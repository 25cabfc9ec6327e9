// SPDX-License-Identifier: Apache-2.0
#include "cli/bench_cases.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>

#include "cli/terminal.h"
#include "io/config_keys.h"
#include "memlayers/error.h"

namespace memlayers::cli {
namespace {

using Json = nlohmann::ordered_json;

const io::ConfigKey& key_of(const std::string& section, const std::string& name) {
  for (const io::ConfigKey& key : io::config_keys()) {
    if (key.section == section && key.name == name) return key;
  }
  throw std::logic_error("no configuration key " + section + "." + name);
}

std::string text_of(std::int64_t value) { return std::to_string(value); }
std::string text_of(const std::string& value) { return value; }

// For each case so far, one for each value: `set` puts a value into a case.
template <class Value, class Set>
void combine(std::vector<NamedCase>& cases, const std::string& option,
             const std::vector<Value>& values, const Set& set) {
  std::vector<NamedCase> combined;
  for (const NamedCase& before : cases) {
    for (const Value& value : values) {
      combined.push_back(before);
      NamedCase& made = combined.back();
      if (values.size() > 1) {
        made.label += (made.label.empty() ? "" : ", ") + option + " " + text_of(value);
      }
      try {
        set(made.c, value);
      } catch (const Error& error) {
        throw UsageError("bench: --" + option + ": " + error.what() + ", got " + text_of(value));
      }
    }
  }
  cases = std::move(combined);
}

// The values of a key of the configuration, in its words.
template <class Value>
void combine_key(std::vector<NamedCase>& cases, const std::string& option,
                 const std::vector<Value>& values, const std::string& section,
                 const std::string& name) {
  const io::ConfigKey& key = key_of(section, name);
  if (values.empty()) return;  // the configuration's own default
  combine(cases, option, values,
          [&](bench::Case& c, const Value& value) { key.set(c.config, io::ConfigValue(value)); });
}

void set_distribution(bench::Case& c, const std::string& name, double exponent) {
  if (name == "uniform") {
    c.distribution.zipf_exponent = {};
  } else if (name == "zipf") {
    c.distribution.zipf_exponent = exponent;
  } else {
    throw Error("expected uniform or zipf");
  }
}

void add_value(Json& json, const std::string& name, const io::ConfigKey& key,
               const TrainConfig& config) {
  const io::ConfigValue value = key.get(config);
  if (const auto* number = std::get_if<std::int64_t>(&value)) json[name] = *number;
  if (const auto* text = std::get_if<std::string>(&value)) json[name] = *text;
}

// Options that a kind would not heed, and numbers that CLI11 lets pass.
void check_options(const BenchKind& kind, const BenchArguments& a) {
  const auto refuse = [&](const std::string& what) {
    throw UsageError("bench " + std::string(kind.name) + ": " + what);
  };
  const BenchArguments absent;
  const bool is_lookup = kind.measure == bench::bench_lookup;
  const bool is_part =
      is_lookup || kind.measure == bench::bench_gather || kind.measure == bench::bench_update;
  for (const std::string& type : a.model_dtype) {
    if (!is_part || type == "float32") continue;
    refuse(std::string("--model-dtype: expected float32 (--dtype is that of ") +
           (is_lookup ? "queries and sub-keys" : "rows") + "), got " + type);
  }
  for (const std::string& type : a.dtype) {
    if (is_lookup && (type == "int8" || type == "int4")) {
      refuse("--dtype: expected float32 or bfloat16 (of queries and sub-keys), got " + type);
    }
    if (a.master_rows && type != "bfloat16") {
      refuse("--master-rows: expected rows of bfloat16 (--dtype), got " + type);
    }
  }
  if (is_lookup && (a.variant != absent.variant || a.v_dim != absent.v_dim)) {
    refuse("expected no --variant and no --v-dim: no rows are read");
  }
  for (const std::string& variant : a.variant) {
    if (variant != "ngram") continue;
    refuse("--variant: expected memory+, plain or peer, which read by keys, got ngram");
  }
  const bool updates =
      is_decoder(kind) || kind.measure == bench::bench_update || kind.measure == bench::bench_step;
  if (!updates && (a.optimizer != absent.optimizer || a.master_rows)) {
    refuse("expected no --optimizer and no --master-rows: no rows are updated");
  }
  if (!std::isfinite(a.zipf_exponent)) {
    refuse("--zipf-exponent: expected a finite number, got " + std::to_string(a.zipf_exponent));
  }
  if (kind.measure == bench::bench_decoder && a.context < 2) {
    refuse("--context: expected 2 or more, to decode one token after another, got " +
           std::to_string(a.context));
  }
}

}  // namespace

bool is_decoder(const BenchKind& kind) {
  return kind.measure == nullptr || kind.measure == bench::bench_decoder;
}

std::vector<NamedCase> make_cases(const BenchKind& kind, const BenchArguments& a) {
  const bool is_whole = is_decoder(kind);
  check_options(kind, a);
  NamedCase base;
  base.c.repeat = a.repeat;
  base.c.config.train.master_rows = a.master_rows;
  base.c.config.model.memory.emplace();
  std::vector<NamedCase> cases{base};
  combine(cases, "tokens", a.tokens, [](bench::Case& c, std::int64_t n) { c.tokens = n; });
  combine_key(cases, "dim", a.dim, "model", "dim");
  combine_key(cases, "heads", a.heads, "memory", "heads");
  combine_key(cases, "knn", a.knn, "memory", "knn");
  combine_key(cases, "k-dim", a.k_dim.empty() ? Numbers{is_whole ? 256 : 512} : a.k_dim, "memory",
              "k_dim");
  combine_key(cases, "v-dim", a.v_dim, "memory", "v_dim");
  combine_key(cases, "n-keys", a.n_keys, "memory", "n_keys");
  combine_key(cases, "dtype", a.dtype, "memory", "row_dtype");
  combine_key(cases, "model-dtype", a.model_dtype, "model", "dtype");
  combine_key(cases, "variant", a.variant, "memory", "variant");
  combine_key(cases, "optimizer", a.optimizer, "train", "value_optimizer");
  if (kind.measure == nullptr) {
    combine_key(cases, "split", Words{a.split}, "parallel", "split");
  }
  combine(cases, "dist", a.dist, [&](bench::Case& c, const std::string& name) {
    set_distribution(c, name, a.zipf_exponent);
  });
  for (NamedCase& made : cases) {
    ModelConfig& model = made.c.config.model;
    try {
      if (is_whole) {
        model.layers = a.layers;
        model.heads = std::max<std::int64_t>(1, model.dim / 64);
        model.ff_dim = a.ff_dim.value_or((model.dim * 8 / 3 + 31) / 32 * 32);
        model.context = a.context;
        model.vocab_size = a.vocab;
        model.validate();
      } else {
        model.memory->validate_layer(model.dim);
      }
    } catch (const Error& error) {
      throw UsageError("bench " + std::string(kind.name) + ": " + error.what());
    }
  }
  return cases;
}

Json describe(const BenchKind& kind, const bench::Machine& machine, const bench::Case& c) {
  const ModelConfig& model = c.config.model;
  Json json = {{"bench", kind.name},
               {"cpu", machine.cpu},
               {"isa", machine.isa},
               {"threads", machine.threads},
               {"cache_bytes", machine.cache_bytes},
               {"tokens", c.tokens},
               {"dim", model.dim}};
  for (const char* name : {"heads", "knn", "k_dim"}) {
    add_value(json, name, key_of("memory", name), c.config);
  }
  json["v_dim"] = model.value_dim();
  json["n_keys"] = model.memory->n_keys;
  json["slots"] = model.memory->slots();
  add_value(json, "dtype", key_of("memory", "row_dtype"), c.config);
  add_value(json, "model_dtype", key_of("model", "dtype"), c.config);
  add_value(json, "variant", key_of("memory", "variant"), c.config);
  add_value(json, "optimizer", key_of("train", "value_optimizer"), c.config);
  json["master_rows"] = c.config.train.master_rows;
  const std::optional<double>& exponent = c.distribution.zipf_exponent;
  json["dist"] = exponent ? "zipf" : "uniform";
  json["zipf_exponent"] = exponent ? Json(*exponent) : Json();
  if (is_decoder(kind)) {
    json["layers"] = model.layers;
    json["memory_layers"] = model.memory_layers();
    json["ff_dim"] = model.ff_dim;
    json["context"] = model.context;
    json["vocab_size"] = model.vocab_size;
  }
  json["repeat"] = c.repeat;
  return json;
}

// Names that end in _median_ms are for --json.
void add_stream_mib(CLI::App& app, std::optional<std::int64_t>& mib) {
  app.add_option("--stream-mib", mib,
                 "size of the memory that is read for stream_gbs and to empty the caches (absent: "
                 "eight last-level caches, 256 at least; less makes neither right)")
      ->check(CLI::Range(1, 1 << 20));
}

std::int64_t stream_bytes(const std::optional<std::int64_t>& mib, const bench::Machine& machine) {
  const std::int64_t bytes = mib ? *mib << 20 : bench::Stream::cold_bytes(machine.cache_bytes);
  bench::check_memory("the stream", bytes);
  return bytes;
}

void print_table(const std::vector<NamedCase>& cases, const std::vector<bench::Figures>& results) {
  std::vector<std::vector<std::string>> rows{{""}};
  for (std::size_t i = 0; i < results.size(); ++i) {
    rows.push_back({cases[i].label});
    for (const auto& [name, value] : results[i].items()) {
      if (name.ends_with("_median_ms")) continue;
      if (i == 0) rows.front().push_back(name);
      rows.back().push_back(short_number(value));
    }
  }
  if (results.size() == 1) {  // one column instead of one row
    std::vector<std::vector<std::string>> turned;
    for (std::size_t i = 1; i < rows[0].size(); ++i) turned.push_back({rows[0][i], rows[1][i]});
    rows = std::move(turned);
  }
  std::cout << table(rows);
}

void add_options(CLI::App& app, const BenchKind& kind, BenchArguments& a) {
  a.dim = {kind.default_dim};
  const auto numbers = [&app](const char* name, Numbers& values, const char* help) {
    return app.add_option(name, values, help)->delimiter(',')->check(CLI::PositiveNumber);
  };
  const auto words = [&app](const char* name, Words& values, const char* help) {
    app.add_option(name, values, help)->delimiter(',')->capture_default_str();
  };
  numbers("--tokens", a.tokens, "tokens of a batch")->capture_default_str();
  numbers("--dim", a.dim, "width of the hidden states")->capture_default_str();
  numbers("--heads", a.heads, "independent lookups per token")->capture_default_str();
  numbers("--knn", a.knn, "slots read per head")->capture_default_str();
  numbers("--k-dim", a.k_dim, "width of a query (absent: 512; decoder: 256)");
  numbers("--v-dim", a.v_dim, "width of a value row (absent: dim)");
  numbers("--n-keys", a.n_keys, "sub-keys per set: n_keys^2 slots")->capture_default_str();
  words("--dtype", a.dtype,
        kind.measure == bench::bench_lookup ? "of queries and sub-keys: float32, bfloat16"
                                            : "of the pool's rows, as [memory] row_dtype");
  words("--model-dtype", a.model_dtype,
        "of activations and all other weights, as [model] dtype (not for lookup, gather, update)");
  words("--variant", a.variant, "as [memory] variant");
  words("--optimizer", a.optimizer, "of the pool's rows, as [train] value_optimizer");
  app.add_flag("--master-rows", a.master_rows, "as [train] master_rows");
  words("--dist", a.dist,
        "uniform or zipf: how slots are drawn (gather, update), or tokens from a vocabulary (the "
        "others, whose slots come from the lookup)");
  app.add_option("--zipf-exponent", a.zipf_exponent, "the r-th comes in proportion to r^-this")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  if (is_decoder(kind)) {
    app.add_option("--layers", a.layers, "of the decoder; three of them with memory")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    app.add_option("--ff-dim", a.ff_dim, "of the feed-forward blocks (absent: 8/3 dim)")
        ->check(CLI::PositiveNumber);
    app.add_option("--context", a.context, "tokens of a sequence, at most")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    app.add_option("--vocab", a.vocab, "size of the vocabulary")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
  }
  if (kind.measure == nullptr) {
    app.add_option("--processes", a.processes,
                   "how many to measure, one after the other (under mpirun: those that it started)")
        ->delimiter(',')
        ->capture_default_str()
        ->check(CLI::Range(1, 4096));
    app.add_option("--split", a.split, "of the pool, as [parallel] split")->capture_default_str();
  }
  app.add_option("--repeat", a.repeat, "timed repetitions, after one that is not")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000));
  if (kind.measure != nullptr) {
    add_stream_mib(app, a.stream_mib);
  }
  app.add_option("--threads", a.threads, "CPU threads, of all processes together (0: all cores)")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--json", a.is_json, "one JSON object a case on standard output");
}

}  // namespace memlayers::cli
