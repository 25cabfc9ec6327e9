// SPDX-License-Identifier: Apache-2.0
// The record of a run: metrics.jsonl and samples.jsonl, one JSON object a line.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/file_system.h"
#include "memlayers/trainer.h"

namespace memlayers::train {

std::string to_json(const StepMetrics& metrics);  // one line, without line feed
std::string to_json(const TrainSample& sample);
// Throw Error for a line that is not such an object.
StepMetrics parse_metrics(std::string_view line);
TrainSample parse_sample(std::string_view line);

// A file that grows by whole lines; each is with the operating system when append() returns.
class LineFile {
 public:
  // Makes the file, or opens it to go on behind its end.
  LineFile(io::FileSystem& files, const std::string& path);
  void append(std::string line);

 private:
  std::unique_ptr<io::File> file_;
  std::uint64_t end_;
};

// metrics.jsonl and samples.jsonl of a run folder. Opening one at step `step` drops what later
// steps (of a run that was cut off after its last checkpoint) and torn last lines left, rewriting
// the file atomically.
class RunLog {
 public:
  RunLog(io::FileSystem& files, const std::string& folder, std::int64_t step);
  void add(const StepMetrics& metrics);
  void add(const TrainSample& sample);
  const std::vector<StepMetrics>& metrics() const { return metrics_; }
  const std::vector<TrainSample>& samples() const { return samples_; }

 private:
  std::vector<StepMetrics> metrics_;
  std::vector<TrainSample> samples_;
  std::unique_ptr<LineFile> metrics_file_, samples_file_;
};

}  // namespace memlayers::train
