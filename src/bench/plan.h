// SPDX-License-Identifier: Apache-2.0
// What a training run over many processes will need: memory of each, bytes on the wire, time of a
// step. Made of sizes, and of rates that short benchmarks measure on the machine at hand.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/least_exchange.h"
#include "memlayers/config.h"

namespace memlayers::bench {

struct Cluster {
  std::int64_t nodes = 1, processes_per_node = 1;
  double memory_gb = 0;      // of a node; 0: not said
  double bandwidth_gbs = 0;  // 10^9 bytes a second into a node, and as many out; of several nodes
  double latency_us = 0;     // of a message between two nodes
  int threads = 1;           // cores of a node
  std::int64_t processes() const { return nodes * processes_per_node; }
};

// Of this machine with all `threads`: those of a node are taken to be as fast, core by core.
struct Rates {
  int threads = 1;
  double dense_flops_s = 0;   // of a dense decoder's forward and backward
  double dense_update_s = 0;  // AdamW's, a number
  // A memory layer's forward and backward without its rows, a token, at sub-keys below.
  double memory_token_s = 0;
  std::int64_t n_keys = 0;
  // Of a row, or a part of one with so many columns: forward and backward of one read, and the row
  // optimizer's update of one that was touched.
  struct RowCost {
    double base_s = 0, column_s = 0;
    double at(double columns) const { return base_s + column_s * columns; }
  };
  RowCost read = {}, update = {};
  double exchange_byte_s = 0;  // core seconds of a byte sent to another process of the machine
  double round_s = 0;          // a wait for the others beside it
};

struct ProcessMemory {  // bytes of one process, the largest
  double dense = 0;     // weights, gradients, AdamW's state, and the sums over processes
  double rows = 0, row_state = 0, usage = 0;
  double batch = 0;  // activations, and what is exchanged for them; about
  double total() const { return dense + rows + row_state + usage + batch; }
};

struct Plan {
  PoolSplit split;
  std::int64_t group_size = 1;
  double dense_parameters = 0, tokens = 0;  // of a step, all processes
  ProcessMemory memory;
  StepExchange traffic;      // of a process
  double between_nodes = 0;  // bytes out of a node in a step
  double dense_s = 0, memory_layers_s = 0, updates_s = 0, exchange_s = 0;
  double step_s() const { return dense_s + memory_layers_s + updates_s + exchange_s; }
};

// Rows that so many tokens read in all memory layers, each as often as it is read; and how many
// different ones, drawn evenly.
double reads_of(const ModelConfig& model, double tokens);
double touched_rows(double slots, double reads);

// Throws Error where the processes do not divide into groups, or the split does not fit.
Plan make_plan(const TrainConfig& config, const Cluster& cluster, const Rates& rates);

// Takes some seconds. `program`: the path of this one, which measures the exchange as
// `bench parallel` of two processes. Throws Error where memory is short.
Rates measure_rates(const TrainConfig& config, const std::string& program);

}  // namespace memlayers::bench
