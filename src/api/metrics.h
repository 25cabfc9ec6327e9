// SPDX-License-Identifier: Apache-2.0
// What /metrics gives, in Prometheus' text format: under vLLM's and llama.cpp's names what both
// have, under ours what only we have.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/engine.h"

namespace memlayers::api {

class Histogram {
 public:
  explicit Histogram(std::vector<double> bounds)
      : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}
  void add(double value);
  // Its lines; `labels` without braces.
  std::string text(const std::string& name, const std::string& about,
                   const std::string& labels) const;

 private:
  std::vector<double> bounds_;        // upper ones, ascending
  std::vector<std::int64_t> counts_;  // between them, and above the last
  double sum_ = 0;
};

// Functions may be called from several threads.
class Metrics {
 public:
  Metrics();
  void first_token(double seconds);                          // since the request came
  void next_token(double seconds);                           // since the one before
  void finished(const std::string& reason, double seconds);  // one sequence
  void cancelled();           // a client left before its answer's end
  void answered(int status);  // an HTTP exchange is over

  struct MemoryFacts {
    std::uint64_t version = 0;
    std::int64_t patches = 0, canaries = 0, failing_canaries = 0;
    bool is_writable = true;
  };
  std::string text(const EngineCounters& engine, const std::string& model, bool is_draining,
                   const std::optional<MemoryFacts>& memory) const;

 private:
  mutable std::mutex mutex_;  // of all that follows
  Histogram first_token_, next_token_, whole_;
  std::map<std::string, std::int64_t> finished_;
  std::map<int, std::int64_t> answered_;
  std::int64_t cancelled_ = 0;
};

}  // namespace memlayers::api
