// SPDX-License-Identifier: Apache-2.0
#include "cli/bench_outcome.h"

#include <iostream>

#include "cli/terminal.h"

namespace memlayers::cli {
namespace {

struct Row {
  const char* label;
  std::string (*text_of)(const Outcome& outcome);
};

constexpr Row kRows[] = {
    {"answer within what is said",
     [](const Outcome& o) { return o.contained ? percent(*o.contained) : std::string(); }},
    {"steps", [](const Outcome& o) { return std::to_string(o.steps); }},
    {"seconds", [](const Outcome& o) { return decimals(o.seconds); }},
    {"seconds to measure", [](const Outcome& o) { return decimals(o.measuring_seconds); }},
    {"parameters trained",
     [](const Outcome& o) { return short_number(static_cast<double>(o.parameters)); }},
    {"tokens of a prompt", [](const Outcome& o) { return short_number(o.prompt_tokens); }},
    {"stored, a fact", [](const Outcome& o) { return short_bytes(o.bytes_a_fact); }},
    {"kept to take it back",
     [](const Outcome& o) { return short_bytes(static_cast<double>(o.kept_bytes)); }},
    {"logits, taken back",
     [](const Outcome& o) { return std::string(o.is_restored ? "bit-equal" : "others"); }},
};

}  // namespace

nlohmann::ordered_json json_of(const Outcome& outcome, const std::vector<Measure>& measures) {
  nlohmann::ordered_json json = {{"method", outcome.method}};
  for (std::size_t i = 0; i < measures.size(); ++i) {
    measures[i].add_to(json, outcome.after[i]);
  }
  if (outcome.contained) json["contained"] = *outcome.contained;
  json["steps"] = outcome.steps;
  json["seconds"] = outcome.seconds;
  json["measuring_seconds"] = outcome.measuring_seconds;
  json["parameters"] = outcome.parameters;
  json["prompt_tokens"] = outcome.prompt_tokens;
  json["stored_bytes"] = outcome.stored_bytes;
  json["bytes_a_fact"] = outcome.bytes_a_fact;
  json["kept_bytes"] = outcome.kept_bytes;
  json["is_restored"] = outcome.is_restored;
  return json;
}

void print_table(const std::vector<Outcome>& outcomes, const std::vector<Measure>& measures) {
  std::vector<std::vector<std::string>> lines{{"", "before"}};
  for (const Outcome& outcome : outcomes) lines.front().push_back(outcome.method);
  for (std::size_t i = 0; i < measures.size(); ++i) {
    lines.push_back({measures[i].label, measures[i].text_of(measures[i].before)});
    for (const Outcome& outcome : outcomes) {
      lines.back().push_back(measures[i].text_of(outcome.after[i]));
    }
  }
  for (const Row& row : kRows) {
    lines.push_back({row.label, ""});
    for (const Outcome& outcome : outcomes) lines.back().push_back(row.text_of(outcome));
  }
  std::cout << table(lines);
}

}  // namespace memlayers::cli
