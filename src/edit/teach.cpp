// SPDX-License-Identifier: Apache-2.0
#include "edit/teach.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "edit/phrasings.h"
#include "edit/teacher.h"
#include "memlayers/error.h"

namespace memlayers::edit {
namespace {

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

// Whether a test of all phrasings may find enough of them recalled: it costs a forward pass of all.
class Seen {
 public:
  void add(std::int64_t recalled, std::int64_t of) {
    recalled_ += recalled;
    of_ += of;
  }
  bool is_promising() {
    const bool is = static_cast<double>(recalled_) >= 0.8 * static_cast<double>(of_);
    recalled_ = of_ = 0;
    return is;
  }

 private:
  std::int64_t recalled_ = 0, of_ = 0;
};

}  // namespace

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
  Seen seen;
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
    seen.add(taught.recalled, static_cast<std::int64_t>(rows.size()));
    if (teacher.rehearses()) teacher.rehearse();
    teacher.penalise();
    student.step(rate);
    ++now.step;
  };

  test();
  if (progress) progress(now);
  const auto enough =
      static_cast<std::int64_t>(std::ceil(options.enough * static_cast<double>(now.phrasings)));
  while (now.recalled < enough && now.step < options.steps) {
    train(
        std::min(1.0, static_cast<double>(now.step + 1) / static_cast<double>(options.warmup + 1)));
    const bool is_last = now.step == options.steps;
    if (is_last || (now.step % options.check_every == 0 && seen.is_promising())) {
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
  for (std::int64_t left = options.settle; left > 0; --left) {
    train(static_cast<double>(left) / static_cast<double>(options.settle + 1));
    if (left == 1) test();
    if (progress) progress(now);
  }
  if (best.is_better_than(now.held_out_recalled)) {
    best.take_back();
    test();
    if (progress) progress(now);
  }
  return now;
}

}  // namespace memlayers::edit
