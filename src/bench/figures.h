// SPDX-License-Identifier: Apache-2.0
// What a measurement gives: names with numbers, in the order in which they are to be read.
#pragma once

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>
#include <vector>

namespace memlayers::bench {

// Seconds that f() takes.
template <class F>
double seconds_of(F&& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The times of one thing, repeated.
class Times {
 public:
  void add(double seconds) { seconds_.push_back(seconds); }
  double best() const { return *std::min_element(seconds_.begin(), seconds_.end()); }
  double median() const {
    std::vector<double> sorted = seconds_;
    std::sort(sorted.begin(), sorted.end());
    const std::size_t half = sorted.size() / 2;
    return sorted.size() % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  }

 private:
  std::vector<double> seconds_;  // at least one before anything is asked
};

class Figures {
 public:
  void add(const std::string& name, double value) { items_.emplace_back(name, value); }
  // <name>_ms, the minimum, and <name>_median_ms.
  void add(const std::string& name, const Times& times) {
    add(name + "_ms", 1e3 * times.best());
    add(name + "_median_ms", 1e3 * times.median());
  }
  const std::vector<std::pair<std::string, double>>& items() const { return items_; }

 private:
  std::vector<std::pair<std::string, double>> items_;
};

}  // namespace memlayers::bench
