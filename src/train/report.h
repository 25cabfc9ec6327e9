// SPDX-License-Identifier: Apache-2.0
// report.html: the curves of a run, its configuration, samples and which slots it uses, in one file
// that needs nothing else.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "memlayers/trainer.h"

namespace memlayers::train {

// How evenly the slots are read.
struct UsageSummary {
  std::int64_t slots = 0, used = 0, reads = 0;
  // Divergence of the reads from uniform, nats: 0 .. ln(slots); slots that would be read if all
  // reads were spread evenly: 1 .. slots. Absent where nothing was read.
  std::optional<double> kl, perplexity;
};
UsageSummary summarize_usage(const at::Tensor& usage);  // [slots] int64

// The reads of the grid's cells (row-major; row = row sub-key), summed over blocks so that it has
// at most `max_side` cells a side.
struct UsageMap {
  std::int64_t side = 0, keys_per_cell = 1;
  std::vector<double> reads;  // side * side, mean reads a slot
};
UsageMap usage_map(const at::Tensor& usage, std::int64_t n_keys, std::int64_t max_side = 256);

struct ReportData {
  std::string title;
  std::string config_toml;
  TrainSetup setup;
  std::int64_t step = 0;
  std::vector<StepMetrics> metrics;
  std::vector<TrainSample> samples;
  at::Tensor usage;  // undefined without a pool
  std::int64_t n_keys = 0;
};
std::string make_report(const ReportData& data);  // HTML

// The page with its style and script; `$DATA` in it stands for the JSON. src/train/report_page.cpp
extern const char* const kReportPage;

}  // namespace memlayers::train
