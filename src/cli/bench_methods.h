// SPDX-License-Identifier: Apache-2.0
// The ways to teach facts that `memlayers bench learn` sets side by side.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cli/bench_outcome.h"
#include "cli/learn_measures.h"
#include "edit/retrieval.h"

namespace memlayers::cli {

struct BenchLearnArguments : LearnArguments {
  std::vector<std::string> methods{"patch", "finetune", "lora"};
  double weight_lr = 1e-3;
  std::int64_t rank = 16, retrieved = 3;
};

// patch, finetune, lora, dense-flops, dense-parameters, retrieval.
std::vector<std::string> learning_methods();

// One model and the same facts for all of them.
class LearnBench {
 public:
  // What is given must outlive it; the measures know what they were before.
  LearnBench(Generator& generator, const std::vector<NewFact>& facts, const SlotHistory& history,
             const std::vector<Measure>& measures, const BenchLearnArguments& arguments);

  // Teaches the facts by one of learning_methods(), measures, and takes it back.
  Outcome run(const std::string& method);

 private:
  Outcome train(const std::string& method);
  Outcome retrieve(const std::string& method);
  std::vector<at::Tensor> logits();  // of the first facts
  bool is_as_before();
  double contained(const edit::Retrieval& retrieval);
  double mean_prompt_tokens(const std::function<std::string(const std::string&)>& put) const;

  Generator& generator_;
  const std::vector<NewFact>& facts_;
  const SlotHistory& history_;
  const std::vector<Measure>& measures_;
  const BenchLearnArguments& arguments_;
  std::vector<at::Tensor> before_;
};

}  // namespace memlayers::cli
