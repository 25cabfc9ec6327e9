// SPDX-License-Identifier: Apache-2.0
// What `memlayers bench learn` tells of each way to teach facts.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/learn_measures.h"

namespace memlayers::cli {

struct Outcome {
  std::string method;
  std::vector<double> after = {};  // the measures
  std::int64_t steps = 0, parameters = 0;
  double seconds = 0, measuring_seconds = 0;
  // Of retrieval: the share of the new facts whose answer stands in what the model says. Nobody
  // taught it to say the answer alone, which is what recall asks for.
  std::optional<double> contained = {};
  double prompt_tokens = 0;  // of a new fact's prompt as it is asked then, the mean
  // Of what must be stored to put on the model what was learned, and of what must be kept of it as
  // it was to take that back.
  std::int64_t stored_bytes = 0, kept_bytes = 0;
  double bytes_a_fact = 0;
  bool is_restored = false;  // taken back, logits are those of before, bit for bit
};

nlohmann::ordered_json json_of(const Outcome& outcome, const std::vector<Measure>& measures);
// A column each.
void print_table(const std::vector<Outcome>& outcomes, const std::vector<Measure>& measures);

}  // namespace memlayers::cli
