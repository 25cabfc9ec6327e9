// SPDX-License-Identifier: Apache-2.0
#include "cli/bench_methods.h"

#include <torch/types.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>

#include "cli/terminal.h"
#include "edit/chosen_rows.h"
#include "edit/dense_add_on.h"
#include "edit/teach.h"
#include "edit/weights.h"
#include "train/fact_row.h"

namespace memlayers::cli {
namespace {

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

// What a student is made of.
struct Lesson {
  Generator& generator;
  const std::vector<NewFact>& facts;
  const SlotHistory& history;
  const BenchLearnArguments& arguments;
  LearnOptions options;
};

using Made = std::unique_ptr<edit::Student>;

Made patch(const Lesson& lesson) {
  return edit::choose_rows(lesson.generator, lesson.facts, lesson.options, lesson.history);
}

Made finetune(const Lesson& lesson) {
  return std::make_unique<edit::AllWeights>(lesson.generator.model(), lesson.arguments.weight_lr);
}

Made lora(const Lesson& lesson) {
  return std::make_unique<edit::LowRank>(lesson.generator.model(), lesson.arguments.rank,
                                         lesson.arguments.weight_lr, lesson.options.seed);
}

Made dense(const Lesson& lesson, std::int64_t width) {
  return std::make_unique<edit::DenseAddOn>(lesson.generator.model(), width,
                                            lesson.arguments.weight_lr, lesson.options.seed);
}

Made dense_flops(const Lesson& lesson) {
  return dense(lesson, edit::width_of_equal_flops(lesson.generator.model()->config()));
}

Made dense_parameters(const Lesson& lesson) {
  const auto slots =
      choose_slots(lesson.generator, lesson.facts, lesson.options, lesson.history).size();
  Llama& model = lesson.generator.model();
  return dense(lesson, edit::width_of_parameters(model->config(), static_cast<std::int64_t>(slots) *
                                                                      model->pool()->width()));
}

struct Method {
  const char* name;
  Made (*make)(const Lesson& lesson);
};

constexpr Method kTrained[] = {{"patch", patch},
                               {"finetune", finetune},
                               {"lora", lora},
                               {"dense-flops", dense_flops},
                               {"dense-parameters", dense_parameters}};
constexpr const char* kRetrieval = "retrieval";

}  // namespace

std::vector<std::string> learning_methods() {
  std::vector<std::string> names;
  for (const Method& method : kTrained) names.emplace_back(method.name);
  names.emplace_back(kRetrieval);
  return names;
}

LearnBench::LearnBench(Generator& generator, const std::vector<NewFact>& facts,
                       const SlotHistory& history, const std::vector<Measure>& measures,
                       const BenchLearnArguments& arguments)
    : generator_(generator),
      facts_(facts),
      history_(history),
      measures_(measures),
      arguments_(arguments),
      before_(logits()) {}

Outcome LearnBench::run(const std::string& method) {
  Outcome outcome = method == kRetrieval ? retrieve(method) : train(method);
  outcome.bytes_a_fact =
      static_cast<double>(outcome.stored_bytes) / static_cast<double>(facts_.size());
  outcome.is_restored = is_as_before();
  return outcome;
}

Outcome LearnBench::train(const std::string& method) {
  const Lesson lesson{generator_, facts_, history_, arguments_, options_of(arguments_)};
  const Made student = std::ranges::find(kTrained, method, &Method::name)->make(lesson);
  ProgressBar bar(method, arguments_.options.steps + arguments_.options.most_settling());
  Outcome outcome{.method = method, .prompt_tokens = mean_prompt_tokens(std::identity())};
  const Stopwatch learning;
  const LearnProgress end =
      edit::teach(generator_, *student, facts_, lesson.options,
                  [&](const LearnProgress& now) { bar.update(now.step, progress_text(now)); });
  outcome.seconds = learning.seconds();
  bar.finish();
  outcome.steps = end.step;
  outcome.parameters = student->parameters();
  const Stopwatch measuring;
  for (const Measure& measure : measures_) outcome.after.push_back(measure.take(generator_));
  outcome.measuring_seconds = measuring.seconds();
  outcome.stored_bytes = student->stored_bytes();
  outcome.kept_bytes = student->kept_bytes();
  student->show(true);  // the next one begins with the same model
  return outcome;
}

Outcome LearnBench::retrieve(const std::string& method) {
  Outcome outcome{.method = method};
  const Stopwatch learning;
  const edit::Retrieval retrieval(generator_, facts_, arguments_.retrieved);
  outcome.seconds = learning.seconds();
  const auto put = [&](const std::string& prompt) { return retrieval.prompt_of(prompt); };
  outcome.prompt_tokens = mean_prompt_tokens(put);
  const Stopwatch measuring;
  for (const Measure& measure : measures_) {
    // Text is no question: nothing stands before it, and the model is the same.
    outcome.after.push_back(measure.text.empty() ? measure.with_prompts(put).take(generator_)
                                                 : measure.before);
  }
  outcome.contained = contained(retrieval);
  outcome.measuring_seconds = measuring.seconds();
  outcome.stored_bytes = retrieval.bytes();
  return outcome;
}

double LearnBench::contained(const edit::Retrieval& retrieval) {
  std::vector<std::string> prompts;
  for (const NewFact& fact : facts_) prompts.push_back(retrieval.prompt_of(fact.fact.prompt));
  GenerateOptions options;
  options.max_tokens = edit::Retrieval::kRoom;
  const std::vector<Generation> said = generator_.ask(prompts, options);
  double held = 0;
  for (std::size_t i = 0; i < said.size(); ++i) {
    held += said[i].text.find(facts_[i].fact.answer) != std::string::npos ? 1 : 0;
  }
  return held / static_cast<double>(said.size());
}

std::vector<at::Tensor> LearnBench::logits() {
  constexpr std::size_t kFacts = 16;
  const c10::InferenceMode inference;
  std::vector<at::Tensor> all;
  for (std::size_t i = 0; i < std::min(kFacts, facts_.size()); ++i) {
    const std::vector<std::int32_t> row = train::make_fact_row(generator_, facts_[i].fact).tokens;
    const std::vector<std::int64_t> tokens(row.begin(), row.end());
    all.push_back(generator_.model()->forward(torch::tensor(tokens).unsqueeze(0)));
  }
  return all;
}

bool LearnBench::is_as_before() {
  return std::ranges::equal(logits(), before_, [](const at::Tensor& a, const at::Tensor& b) {
    return torch::equal(a, b);
  });
}

double LearnBench::mean_prompt_tokens(
    const std::function<std::string(const std::string&)>& put) const {
  std::size_t sum = 0;
  for (const NewFact& fact : facts_) {
    sum += generator_.question_tokens(put(fact.fact.prompt)).size();
  }
  return static_cast<double>(sum) / static_cast<double>(facts_.size());
}

}  // namespace memlayers::cli
