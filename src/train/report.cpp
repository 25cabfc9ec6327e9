// SPDX-License-Identifier: Apache-2.0
#include "train/report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>

#include "io/base64.h"
#include "memlayers/ops.h"

namespace memlayers::train {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxPoints = 2000;  // of a curve: more than a screen has pixels

// Short and exact enough to draw: four significant digits.
Json rounded(double value) {
  if (!std::isfinite(value)) return nullptr;
  char text[32];
  std::snprintf(text, sizeof text, "%.5g", value);
  return std::stod(text);
}

Json rounded(const std::optional<double>& value) { return value ? rounded(*value) : Json(); }

Json metrics_json(const std::vector<StepMetrics>& metrics) {
  // Every n-th, the last, and all with an evaluation.
  const std::size_t stride = (metrics.size() + kMaxPoints - 1) / kMaxPoints;
  Json columns = {{"step", Json::array()},
                  {"loss", Json::array()},
                  {"lr", Json::array()},
                  {"value_lr", Json::array()},
                  {"tokens", Json::array()},
                  {"tokens_per_s", Json::array()},
                  {"time_s", Json::array()},
                  {"grad_norm", Json::array()},
                  {"value_grad_norm", Json::array()},
                  {"touched_rows", Json::array()},
                  {"bad_steps", Json::array()},
                  {"eval_loss", Json::array()}};
  for (std::size_t i = 0; i < metrics.size(); ++i) {
    const StepMetrics& m = metrics[i];
    if (i % stride != 0 && i + 1 != metrics.size() && !m.eval_loss) continue;
    columns["step"].push_back(m.step);
    columns["loss"].push_back(rounded(m.loss));
    columns["lr"].push_back(rounded(m.lr));
    columns["value_lr"].push_back(rounded(m.value_lr));
    columns["tokens"].push_back(m.tokens);
    columns["tokens_per_s"].push_back(rounded(m.tokens_per_s));
    columns["time_s"].push_back(rounded(m.time_s));
    columns["grad_norm"].push_back(rounded(m.grad_norm));
    columns["value_grad_norm"].push_back(rounded(m.value_grad_norm));
    columns["touched_rows"].push_back(m.touched_rows);
    columns["bad_steps"].push_back(m.bad_steps);
    columns["eval_loss"].push_back(rounded(m.eval_loss));
  }
  return columns;
}

Json usage_json(const at::Tensor& usage, std::int64_t n_keys) {
  const UsageSummary summary = summarize_usage(usage);
  const UsageMap map = usage_map(usage, n_keys);
  // One byte a cell: 0 for none, else the logarithm between the least and the most read cell.
  double least = 0, most = 0;
  for (double reads : map.reads) {
    if (reads > 0) least = least == 0 ? reads : std::min(least, reads);
    most = std::max(most, reads);
  }
  std::vector<std::uint8_t> cells;
  const double range = most > least ? std::log(most / least) : 1;
  for (double reads : map.reads) {
    const double level = reads > 0 ? (most > least ? std::log(reads / least) / range : 1) : 0;
    cells.push_back(static_cast<std::uint8_t>(reads > 0 ? 1 + std::lround(254 * level) : 0));
  }
  return {{"slots", summary.slots},
          {"used", summary.used},
          {"reads", summary.reads},
          {"kl", rounded(summary.kl)},
          {"perplexity", rounded(summary.perplexity)},
          {"n_keys", n_keys},
          {"side", map.side},
          {"keys_per_cell", map.keys_per_cell},
          {"least", rounded(least)},
          {"most", rounded(most)},
          {"cells", io::to_base64(std::as_bytes(std::span(cells)))}};
}

Json samples_json(const std::vector<TrainSample>& samples) {
  Json list = Json::array();
  const std::size_t first = samples.size() > 200 ? samples.size() - 200 : 0;
  for (std::size_t i = first; i < samples.size(); ++i) {
    list.push_back(
        {{"step", samples[i].step}, {"prompt", samples[i].prompt}, {"text", samples[i].text}});
  }
  return list;
}

}  // namespace

UsageSummary summarize_usage(const at::Tensor& usage) {
  UsageSummary summary;
  summary.slots = usage.numel();
  const std::int64_t* count = usage.const_data_ptr<std::int64_t>();
  for (std::int64_t s = 0; s < summary.slots; ++s) {
    summary.reads += count[s];
    summary.used += count[s] > 0;
  }
  if (summary.reads == 0) return summary;
  double entropy = 0;
  for (std::int64_t s = 0; s < summary.slots; ++s) {
    if (count[s] == 0) continue;
    const double p = static_cast<double>(count[s]) / static_cast<double>(summary.reads);
    entropy -= p * std::log(p);
  }
  summary.kl = std::log(static_cast<double>(summary.slots)) - entropy;
  summary.perplexity = std::exp(entropy);
  return summary;
}

UsageMap usage_map(const at::Tensor& usage, std::int64_t n_keys, std::int64_t max_side) {
  UsageMap map;
  map.keys_per_cell = (n_keys + max_side - 1) / max_side;
  map.side = (n_keys + map.keys_per_cell - 1) / map.keys_per_cell;
  std::vector<double> sum(static_cast<std::size_t>(map.side * map.side));
  std::vector<double> slots(sum.size());
  const std::int64_t* count = usage.const_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < n_keys; ++i) {
    for (std::int64_t j = 0; j < n_keys; ++j) {
      const auto cell =
          static_cast<std::size_t>(i / map.keys_per_cell * map.side + j / map.keys_per_cell);
      sum[cell] += static_cast<double>(count[slot_of(i, j)]);
      slots[cell] += 1;
    }
  }
  for (std::size_t cell = 0; cell < sum.size(); ++cell) sum[cell] /= slots[cell];
  map.reads = std::move(sum);
  return map;
}

std::string make_report(const ReportData& data) {
  const TrainSetup& setup = data.setup;
  Json json = {{"title", data.title},
               {"step", data.step},
               {"total_steps", setup.total_steps},
               {"dense_parameters", setup.dense_parameters},
               {"memory_parameters", setup.memory_parameters},
               {"pool_parameters", setup.pool_rows * setup.pool_width},
               {"pool_rows", setup.pool_rows},
               {"flops_per_token", rounded(setup.flops_per_token.total())},
               {"train_documents", setup.train_documents},
               {"train_tokens", setup.train_tokens},
               {"valid_documents", setup.valid_documents},
               {"threads", setup.threads},
               {"metrics", metrics_json(data.metrics)},
               {"samples", samples_json(data.samples)},
               {"config", data.config_toml}};
  if (data.usage.defined()) json["usage"] = usage_json(data.usage, data.n_keys);
  // "<" escaped: text of a sample cannot end the script element. Bytes that are not UTF-8 are
  // replaced.
  std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  for (std::size_t at = 0; (at = text.find('<', at)) != std::string::npos; at += 6) {
    text.replace(at, 1, "\\u003c");
  }
  std::string page = kReportPage;
  return page.replace(page.find("$DATA"), 5, text);
}

}  // namespace memlayers::train
