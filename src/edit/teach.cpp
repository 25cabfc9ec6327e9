// SPDX-License-Identifier: Apache-2.0
#include "edit/teach.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "edit/phrasings.h"
#include "edit/teacher.h"
#include "memlayers/error.h"

namespace memlayers::edit {
namespace {

constexpr std::size_t kFirstTested = 128;
constexpr double kFewLost = 0.01;

// Every phrasing as tokens, but a share of them that is only tested; of a fact at least one stays.
struct Phrasings {
  std::vector<train::FactRow> learned, held_out;
};
Phrasings phrasings_of(const Generator& generator, const std::vector<NewFact>& facts,
                       const LearnOptions& options) {
  Phrasings all;
  text::SplitMix64 random(options.seed + 4);
  for (const NewFact& fact : facts) {
    bool is_first = true;
    for (const Fact& phrasing : learned_phrasings({fact})) {
      const bool is_held_out =
          !is_first && static_cast<double>(random.next() >> 11) * 0x1p-53 < options.held_out;
      (is_held_out ? all.held_out : all.learned)
          .push_back(train::make_fact_row(generator, phrasing));
      is_first = false;
    }
  }
  return all;
}

// What was learned when most of the phrasings that are held out were recalled.
class Best {
 public:
  Best(Student& student, std::size_t held_out) : student_(student), held_out_(held_out) {}

  // Whether they have begun to fall.
  bool see(std::int64_t recalled) {
    if (held_out_ == 0) return false;
    if (recalled >= best_) {
      best_ = recalled;
      kept_.clear();
      for (const at::Tensor& tensor : student_.learned()) {
        kept_.push_back(tensor.detach().clone());
      }
    }
    const auto margin = static_cast<std::int64_t>(held_out_ / 50);  // less is noise
    return recalled < best_ - margin;
  }
  bool is_better_than(std::int64_t recalled) const { return held_out_ > 0 && recalled < best_; }
  void take_back() {
    const torch::NoGradGuard no_gradient;
    const std::vector<at::Tensor> learned = student_.learned();
    for (std::size_t i = 0; i < kept_.size(); ++i) at::Tensor(learned[i]).copy_(kept_[i]);
    student_.show(false);
  }

 private:
  Student& student_;
  std::size_t held_out_;
  std::int64_t best_ = -1;
  std::vector<at::Tensor> kept_;
};

// When a test of all phrasings, which costs a forward pass of all, may find enough of them
// recalled: where nearly as many were of late, and not before as many were learned as half of what
// it reads.
class Tests {
 public:
  Tests(const LearnOptions& options, std::int64_t phrasings)
      : options_(options), apart_(std::max(options.check_every, phrasings / (2 * options.batch))) {}
  void add(std::int64_t recalled, std::int64_t of) {
    recalled_ += recalled;
    of_ += of;
  }
  bool is_due(std::int64_t step) {
    if (step % options_.check_every != 0) return false;
    const bool is_promising =
        static_cast<double>(recalled_) >= 0.95 * options_.enough * static_cast<double>(of_);
    recalled_ = of_ = 0;
    if (!is_promising || step < last_ + apart_) return false;
    last_ = step;
    return true;
  }

 private:
  const LearnOptions& options_;
  std::int64_t apart_, last_ = 0, recalled_ = 0, of_ = 0;
};

}  // namespace

std::int64_t most_repairs(const LearnOptions& options, const ModelConfig& config) {
  constexpr std::int64_t kOfScaledRows = 2;
  return options.repairs.value_or(is_scaled(config) ? kOfScaledRows : 0);
}

LearnProgress teach(Generator& generator, Student& student, const std::vector<NewFact>& facts,
                    const LearnOptions& options,
                    const std::function<void(const LearnProgress&)>& progress) {
  Teacher teacher(generator, student, facts, options);
  const OnlyTrained only(generator.model(), student.trained());
  Phrasings phrasings = phrasings_of(generator, facts, options);
  Stream stream(std::move(phrasings.learned), options.seed);
  LearnProgress now{.phrasings = static_cast<std::int64_t>(stream.size()),
                    .held_out = static_cast<std::int64_t>(phrasings.held_out.size())};
  Best best(student, phrasings.held_out.size());
  Tests tests(options, now.phrasings + now.held_out);
  const auto test = [&] {
    now.recalled = teacher.count_recalled(stream.rows());
    now.held_out_recalled = teacher.count_recalled(phrasings.held_out);
  };
  const auto train = [&](double rate) {
    std::vector<const train::FactRow*> rows(std::min(options.batch, now.phrasings));
    std::ranges::generate(rows, [&] { return &stream.next(); });
    const Teacher::Taught taught = teacher.teach(rows);
    if (!std::isfinite(taught.loss)) {
      throw Error("learn: step " + std::to_string(now.step + 1) + ": expected a finite loss, got " +
                  std::to_string(taught.loss) + "; a smaller learning rate may help");
    }
    now.loss = taught.loss;
    tests.add(taught.recalled, static_cast<std::int64_t>(rows.size()));
    if (teacher.rehearses()) teacher.rehearse();
    teacher.penalise();
    student.step(rate);
    ++now.step;
  };

  // Of what is new little is known: a part tells, and all of it costs a pass over all.
  const auto some = std::span(stream.rows()).first(std::min(stream.size(), kFirstTested));
  now.recalled = teacher.count_recalled(some);
  if (static_cast<double>(now.recalled) >= options.enough * static_cast<double>(some.size())) {
    test();
  }
  if (progress) progress(now);
  const auto enough =
      static_cast<std::int64_t>(std::ceil(options.enough * static_cast<double>(now.phrasings)));
  while (now.recalled < enough && now.step < options.steps) {
    train(
        std::min(1.0, static_cast<double>(now.step + 1) / static_cast<double>(options.warmup + 1)));
    const bool is_last = now.step == options.steps;
    if (tests.is_due(now.step) || is_last) {
      test();
      const bool falls = best.see(now.held_out_recalled);
      if (falls && static_cast<double>(now.recalled) >= 0.98 * static_cast<double>(now.phrasings)) {
        best.take_back();
        test();
        break;
      }
    }
    if (progress) progress(now);
  }
  if (now.step == 0 || !(teacher.rehearses() || teacher.penalises())) return now;
  const bool is_bounded = !options.settle && is_scaled(generator.model()->config());
  const std::int64_t settling =
      is_bounded ? std::min(options.most_settling(), now.step) : options.most_settling();
  const std::int64_t repairs = most_repairs(options, generator.model()->config());
  // How many earlier facts are lost, of half as many as were learned: in each look others.
  const auto look_for_lost = [&] {
    if (repairs == 0) return std::int64_t{0};
    const std::int64_t most = std::max(options.batch, now.step * options.batch / 2);
    const Teacher::Earlier earlier = teacher.look_for_lost(most);
    now.earlier_recalled = earlier.recalled;
    now.earlier = earlier.of;
    if (progress) progress(now);
    return earlier.of - earlier.recalled;
  };
  if (settling > 0) look_for_lost();
  std::int64_t steps = settling;
  for (std::int64_t round = 0; round <= repairs && steps > 0; ++round) {
    for (std::int64_t left = steps; left > 0; --left) {
      train(static_cast<double>(left) / static_cast<double>(steps + 1));
      if (progress) progress(now);
    }
    const std::int64_t lost = look_for_lost();
    const double few = std::max(kFewLost, 1 - options.enough);
    if (static_cast<double>(lost) <= few * static_cast<double>(now.earlier)) break;
    steps = std::clamp(8 * lost / options.batch, (settling + 3) / 4, settling);  // each four times
  }
  if (settling > 0) test();
  if (progress) progress(now);
  if (best.is_better_than(now.held_out_recalled)) {
    best.take_back();
    test();
    if (progress) progress(now);
  }
  return now;
}

}  // namespace memlayers::edit
