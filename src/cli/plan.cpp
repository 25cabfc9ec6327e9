// SPDX-License-Identifier: Apache-2.0
// memlayers plan: what a training run over many processes will need.
#include "bench/plan.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "bench/machine.h"
#include "cli/command.h"
#include "cli/terminal.h"
#include "memlayers/error.h"

namespace memlayers::cli {
namespace {

using Json = nlohmann::ordered_json;

struct PlanArguments {
  std::string config;
  std::vector<std::string> overrides;
  std::vector<std::int64_t> nodes{1};
  bench::Cluster cluster;
  bool is_json = false;
};

void check(const PlanArguments& options) {
  const bool is_several = *std::max_element(options.nodes.begin(), options.nodes.end()) > 1;
  if (is_several && (options.cluster.bandwidth_gbs <= 0 || options.cluster.latency_us <= 0)) {
    throw UsageError("plan: --nodes: several nodes need --bandwidth-gbs and --latency-us");
  }
}

Json to_json(const bench::Plan& plan, const bench::Cluster& cluster) {
  const bench::ProcessMemory& m = plan.memory;
  Json json = {{"nodes", cluster.nodes},
               {"processes", cluster.processes()},
               {"column_parts", plan.split.column_parts},
               {"row_parts", plan.split.row_parts},
               {"groups", cluster.processes() / plan.group_size},
               {"dense_parameters", plan.dense_parameters},
               {"tokens_a_step", plan.tokens},
               {"memory_a_process",
                {{"dense", m.dense},
                 {"rows", m.rows},
                 {"row_state", m.row_state},
                 {"usage", m.usage},
                 {"batch", m.batch},
                 {"total", m.total()}}},
               {"bytes_sent_a_process",
                {{"pool", plan.traffic.pool_bytes}, {"dense", plan.traffic.dense_bytes}}},
               {"bytes_out_of_a_node", plan.between_nodes},
               {"step_ms",
                {{"dense", 1e3 * plan.dense_s},
                 {"memory_layers", 1e3 * plan.memory_layers_s},
                 {"updates", 1e3 * plan.updates_s},
                 {"exchange", 1e3 * plan.exchange_s},
                 {"total", 1e3 * plan.step_s()}}},
               {"tokens_per_s", plan.tokens / plan.step_s()}};
  if (cluster.memory_gb > 0) {
    json["fits"] =
        m.total() * static_cast<double>(cluster.processes_per_node) <= cluster.memory_gb * 1e9;
  }
  return json;
}

Json to_json(const bench::Rates& rates) {
  return {
      {"threads", rates.threads},
      {"dense_gflops", rates.dense_flops_s / 1e9},
      {"dense_update_ns", 1e9 * rates.dense_update_s},
      {"memory_token_us", 1e6 * rates.memory_token_s},
      {"memory_n_keys", rates.n_keys},
      {"read_ns", {{"row", 1e9 * rates.read.base_s}, {"column", 1e9 * rates.read.column_s}}},
      {"update_ns", {{"row", 1e9 * rates.update.base_s}, {"column", 1e9 * rates.update.column_s}}},
      {"exchange_gbs", rates.exchange_byte_s > 0 ? 1e-9 / rates.exchange_byte_s : 0},
      {"round_us", 1e6 * rates.round_s}};
}

void print(const std::vector<Json>& plans) {
  std::vector<std::vector<std::string>> columns{
      {"nodes", "processes", "pool in parts (columns x rows)", "memory a process", "  dense",
       "  rows", "  their optimizer", "  batch, about", "fits", "sent a process, pool",
       "sent a process, dense", "out of a node", "step", "  dense layers", "  memory layers",
       "  updates", "  exchange", "tokens/s"}};
  for (const Json& p : plans) {
    const auto bytes = [&](const char* part, const char* name) {
      return short_bytes(p.at(part).at(name).get<double>());
    };
    const auto ms = [&](const char* name) {
      return short_count(p.at("step_ms").at(name).get<double>()) + " ms";
    };
    columns.push_back({p.at("nodes").dump(), p.at("processes").dump(),
                       p.at("memory_a_process").at("rows") == 0
                           ? "-"
                           : p.at("column_parts").dump() + " x " + p.at("row_parts").dump(),
                       bytes("memory_a_process", "total"), bytes("memory_a_process", "dense"),
                       bytes("memory_a_process", "rows"), bytes("memory_a_process", "row_state"),
                       bytes("memory_a_process", "batch"),
                       p.contains("fits") ? (p.at("fits").get<bool>() ? "yes" : "no") : "-",
                       bytes("bytes_sent_a_process", "pool"),
                       bytes("bytes_sent_a_process", "dense"),
                       short_bytes(p.at("bytes_out_of_a_node").get<double>()), ms("total"),
                       ms("dense"), ms("memory_layers"), ms("updates"), ms("exchange"),
                       short_count(p.at("tokens_per_s").get<double>())});
  }
  std::vector<std::vector<std::string>> rows(columns.front().size());
  for (const auto& column : columns) {
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i].push_back(column[i]);
  }
  std::cout << table(rows);
}

int run(PlanArguments options) {
  const TrainConfig config = read_train_config("plan", options.config, options.overrides);
  check(options);
  bench::Cluster& cluster = options.cluster;
  set_threads(0);
  if (cluster.threads == 0) cluster.threads = at::get_num_threads();
  std::vector<bench::Cluster> clusters;
  bench::Rates rates{.threads = 1, .dense_flops_s = 1};
  for (const std::int64_t nodes : options.nodes) {
    clusters.push_back(cluster);
    clusters.back().nodes = nodes;
    if (config.model.memory) rates.n_keys = config.model.memory->n_keys;
    static_cast<void>(bench::make_plan(config, clusters.back(), rates));  // before what takes time
  }
  rates = bench::measure_rates(config, std::filesystem::read_symlink("/proc/self/exe"));
  std::vector<Json> plans;
  for (const bench::Cluster& one : clusters) {
    plans.push_back(to_json(bench::make_plan(config, one, rates), one));
    plans.back()["rates"] = to_json(rates);
    plans.back()["cpu"] = bench::describe_machine().cpu;
    if (options.is_json) std::cout << plans.back().dump() << '\n';
  }
  if (!options.is_json) print(plans);
  return 0;
}

}  // namespace

Command plan_command() {
  return {"plan", "Say what a training run over many processes will need: memory, bytes, time",
          "memlayers plan CONFIG.toml --nodes 8,16 --processes-per-node 4 \\\n"
          "      --bandwidth-gbs 12.5 --latency-us 5 --memory-gb 256 --threads 64\n"
          "Rates are measured on this machine, in some seconds (docs/parallel.md).",
          [](CLI::App& app) -> std::function<int()> {
            const auto options = std::make_shared<PlanArguments>();
            bench::Cluster& c = options->cluster;
            c.threads = 0;
            app.add_option("CONFIG", options->config, "TOML file of the run, as for train");
            app.add_option("--set", options->overrides, "key=value ..., over what CONFIG says");
            app.add_option("--nodes", options->nodes, "machines; several numbers: a plan for each")
                ->delimiter(',')
                ->capture_default_str()
                ->check(CLI::Range(1, 100000));
            app.add_option("--processes-per-node", c.processes_per_node, "on each of them")
                ->capture_default_str()
                ->check(CLI::Range(1, 1024));
            app.add_option("--memory-gb", c.memory_gb, "of a node, 10^9 bytes")
                ->check(CLI::PositiveNumber);
            app.add_option("--bandwidth-gbs", c.bandwidth_gbs,
                           "of a node's network, 10^9 bytes a second each way")
                ->check(CLI::PositiveNumber);
            app.add_option("--latency-us", c.latency_us, "of a message between two nodes")
                ->check(CLI::PositiveNumber);
            app.add_option("--threads", c.threads, "cores of a node (absent: as many as here)")
                ->check(CLI::Range(1, 100000));
            app.add_flag("--json", options->is_json, "one JSON object a plan on standard output");
            return [options] { return run(*options); };
          }};
}

}  // namespace memlayers::cli
