// SPDX-License-Identifier: Apache-2.0
#include "bench/plan.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>

#include "dist/pool_layout.h"
#include "io/weight_shapes.h"
#include "memlayers/error.h"
#include "memlayers/llama.h"
#include "pool/row_format.h"

namespace memlayers::bench {
namespace {

PoolSplit split_of(const TrainConfig& config, int group) {
  switch (config.parallel.split) {
    case PoolSplitKind::kColumns:
      return {group, 1};
    case PoolSplitKind::kRows:
      return {1, group};
    case PoolSplitKind::kAuto:
      break;
  }
  return automatic_split(config.model, group);
}

// Numbers of the model without its pool: making it only to count would take its memory.
double count_dense(const ModelConfig& model) {
  double count = 0;
  for (const io::WeightShape& weight : io::weight_shapes(model)) {
    double numbers = 1;
    for (const auto& extent : weight.extents) numbers *= static_cast<double>(extent.size);
    count += numbers;
  }
  return count;
}

// Bytes of the optimizer's state of a row with `width` columns.
double state_bytes(const TrainStepConfig& t, RowType rows, double width) {
  double bytes = t.master_rows && rows != RowType::kFloat32 ? 4 * width : 0;
  switch (t.value_optimizer) {
    case PoolOptimizer::kAdamW:
    case PoolOptimizer::kDenseAdamW:
      return bytes + 8 * width + 4;
    case PoolOptimizer::kRowwiseAdamW:
      return bytes + (t.value_beta1 == 0 ? 0 : 4 * width) + 8;
    case PoolOptimizer::kRowwiseAdagrad:
      return bytes + 4;
    case PoolOptimizer::kSgd:
      break;
  }
  return bytes;
}

ProcessMemory memory_of(const TrainConfig& config, const Plan& plan, std::int64_t processes) {
  const ModelConfig& model = config.model;
  ProcessMemory memory;
  const double weight = model.dtype == DenseType::kFloat32 ? 4 : 2;
  const double master = weight == 4 ? 0 : 4;
  const double wire = config.parallel.gradient_dtype == DenseType::kFloat32 ? 4 : 2;
  memory.dense = plan.dense_parameters * (2 * weight + 8 + master + (processes > 1 ? 3 * wire : 0));
  // A token's activations that backward needs: some tensors of each layer's widths.
  const bool has_whole = config.train.accumulate % processes == 0;  // micro-batches
  const double own = static_cast<double>(config.train.batch_tokens) /
                     static_cast<double>(has_whole ? 1 : processes);
  const auto D = static_cast<double>(model.dim), F = static_cast<double>(model.ff_dim);
  memory.batch = own * weight *
                 (static_cast<double>(model.layers) * (14 * D + 4 * F) +
                  3 * static_cast<double>(model.vocab_size));
  if (model.memory_layers().empty()) return memory;
  double rows = 0, width = 0, factors = 0;  // of the part of the first process, the largest
  for (const std::int64_t section : row_sections(model)) {
    const dist::PoolLayout layout(model.memory->slots(), section, plan.split);
    rows = static_cast<double>(layout.rows(0));
    width += static_cast<double>(layout.columns(0));
    factors += 1;
  }
  const auto element_bytes = pool::row_format(model.memory->row_dtype, 1).element_bytes;
  memory.rows = rows * width * static_cast<double>(element_bytes);
  memory.row_state = rows * state_bytes(config.train, model.memory->row_dtype, width);
  memory.usage = rows * 8;
  // Slots, weights and slices of the gradient that all of the group's tokens leave at each part
  // until the step's end.
  const double group_tokens = plan.tokens / static_cast<double>(config.parallel.groups);
  const double reads = static_cast<double>(model.memory->heads * model.memory->knn) /
                       static_cast<double>(plan.split.row_parts);
  memory.batch += static_cast<double>(model.memory_layers().size()) * group_tokens *
                  ((8 + 4 * factors) * reads + 8 * width);
  return memory;
}

}  // namespace

double reads_of(const ModelConfig& model, double tokens) {
  return tokens * static_cast<double>(model.memory->heads * model.memory->knn) *
         static_cast<double>(model.memory_layers().size());
}

double touched_rows(double slots, double reads) {
  return slots * -std::expm1(reads * std::log1p(-1 / slots));
}

Plan make_plan(const TrainConfig& config, const Cluster& cluster, const Rates& rates) {
  const ModelConfig& model = config.model;
  const std::int64_t processes = cluster.processes(), groups = config.parallel.groups;
  if (processes % groups != 0) {
    throw Error("[parallel] groups: expected a number that divides the " +
                std::to_string(processes) + " processes, got " + std::to_string(groups));
  }
  const bool has_pool = !model.memory_layers().empty();
  Plan plan;
  plan.group_size = processes / groups;
  if (has_pool) plan.split = split_of(config, static_cast<int>(plan.group_size));
  plan.dense_parameters = count_dense(model);
  plan.tokens = static_cast<double>(config.train.batch_tokens * config.train.accumulate);
  plan.memory = memory_of(config, plan, processes);

  const auto nodes = static_cast<double>(cluster.nodes);
  const auto a_node = static_cast<double>(cluster.processes_per_node);
  const double speed = static_cast<double>(cluster.threads) / rates.threads;
  const double node_tokens = plan.tokens / nodes;
  const std::int64_t context = std::min(model.context, config.train.batch_tokens);
  const Flops flops = count_flops(model, context);
  plan.dense_s = 3 * (flops.total() - flops.memory) * node_tokens / (rates.dense_flops_s * speed);
  // Every process has all of the dense weights to update.
  plan.updates_s = rates.dense_update_s * plan.dense_parameters * a_node / speed;
  if (has_pool) {
    ModelConfig measured = model;
    measured.memory->n_keys = rates.n_keys;
    const double more_flops = flops.memory - count_flops(measured, context).memory;
    // A part of the columns is read and updated for all of the group's tokens, whoever holds it.
    const auto layers = static_cast<double>(model.memory_layers().size());
    const double columns = static_cast<double>(model.row_width()) / plan.split.column_parts;
    const double reads =
        reads_of(model, plan.tokens / static_cast<double>(groups)) / plan.split.row_parts;
    plan.memory_layers_s =
        (node_tokens * (layers * rates.memory_token_s + 3 * more_flops / rates.dense_flops_s) +
         a_node * reads * rates.read.at(columns)) /
        speed;
    plan.updates_s +=
        a_node *
        touched_rows(static_cast<double>(model.memory->slots()), reads_of(model, plan.tokens)) /
        plan.split.row_parts * rates.update.at(columns) / speed;
  }
  if (processes == 1) return plan;
  // The pool's bytes stay in the group; dense gradients go to all.
  const PoolSplit all{static_cast<int>(processes), 1};
  plan.traffic = least_exchange(model, plan.dense_parameters, plan.tokens,
                                groups == 1 && has_pool ? plan.split : all);
  if (config.parallel.gradient_dtype == DenseType::kBFloat16) plan.traffic.dense_bytes /= 2;
  if (groups > 1 && has_pool) {
    const StepExchange of_group =
        least_exchange(model, 0, plan.tokens / static_cast<double>(groups), plan.split);
    plan.traffic.pool_bytes = of_group.pool_bytes;
    plan.traffic.rounds = 2 + of_group.rounds;
  }
  const std::int64_t accumulate = config.train.accumulate;
  const double rounds =
      plan.traffic.rounds *
      static_cast<double>(accumulate % processes == 0 ? accumulate / processes : accumulate);
  // Of those that a process speaks to, all but those of its node are elsewhere.
  const auto outside =
      (static_cast<double>(processes) - a_node) / (static_cast<double>(processes) - 1);
  plan.between_nodes = plan.traffic.bytes() * a_node * outside;
  const double inside = plan.traffic.bytes() * a_node - plan.between_nodes;
  plan.exchange_s = (inside + plan.between_nodes) * rates.exchange_byte_s / cluster.threads +
                    rounds * rates.round_s;
  if (cluster.nodes > 1) {
    plan.exchange_s +=
        plan.between_nodes / (cluster.bandwidth_gbs * 1e9) + rounds * cluster.latency_us * 1e-6;
  }
  return plan;
}

}  // namespace memlayers::bench
