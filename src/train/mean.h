// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "memlayers/error.h"

namespace memlayers::train {

// A weighted mean that cannot be read while there is nothing in it: the mean of nothing is no
// number, and 0 would read as perfect.
class Mean {
 public:
  Mean() = default;
  // Of parts that were added up elsewhere.
  Mean(double sum, double weight) : sum_(sum), weight_(weight) {}

  void add(double value, double weight = 1) {
    sum_ += value * weight;
    weight_ += weight;
  }
  double sum() const { return sum_; }  // of values times weights
  double weight() const { return weight_; }
  bool is_empty() const { return !(weight_ > 0); }
  // Throws Error "<of>: expected at least one <what>, got none".
  double value(const std::string& of, const std::string& what) const {
    if (is_empty()) throw Error(of + ": expected at least one " + what + ", got none");
    return sum_ / weight_;
  }

 private:
  double sum_ = 0, weight_ = 0;
};

}  // namespace memlayers::train
