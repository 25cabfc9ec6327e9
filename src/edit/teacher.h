// SPDX-License-Identifier: Apache-2.0
// The losses of learning, over states of the frozen lower layers that are computed once.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "edit/kept_states.h"
#include "edit/output_penalty.h"
#include "edit/streams.h"
#include "edit/student.h"

namespace memlayers::edit {

class Teacher {
 public:
  // What is rehearsed is read, and the model asked its questions: its rows are those of before.
  Teacher(Generator& generator, Student& student, const std::vector<NewFact>& facts,
          const LearnOptions& options);
  Teacher(const Teacher&) = delete;
  Teacher& operator=(const Teacher&) = delete;

  // Each adds the gradient of its loss.
  struct Taught {
    double loss = 0;
    std::int64_t recalled = 0;  // of the batch, before the step
  };
  Taught teach(std::vector<const train::FactRow*> rows);
  // What has been lost of what is rehearsed: the weighted mean, over the predictions of one batch,
  // of the cross entropy of a fact's answer, which also brings back what an earlier patch has cost;
  // and of the divergence of what has no right answer.
  void rehearse();
  // Looks which facts of what is rehearsed are not recalled, in at most so many of them: until this
  // is asked again, rehearse() takes half a batch of these beside the others.
  struct Earlier {
    std::int64_t recalled = 0, of = 0;
  };
  Earlier look_for_lost(std::int64_t most);
  void penalise();
  bool rehearses() const { return !rehearsed_.empty(); }
  bool penalises() const { return penalty_.has_value(); }

  // The rows must outlive this.
  std::int64_t count_recalled(std::span<const train::FactRow> rows);

 private:
  train::Batch batch(std::vector<const train::FactRow*> rows) const;
  at::Tensor hidden(const train::Batch& batch);  // [T, dim]
  at::Tensor divergence(const train::Batch& batch, const at::Tensor& places);
  // [B] bool: rows of which every target is the most likely token.
  at::Tensor recalled_rows(const at::Tensor& logits, const train::Targets& targets,
                           std::int64_t rows);
  // Those of the rows that are not recalled, the shortest first.
  std::vector<const train::FactRow*> not_recalled(std::vector<const train::FactRow*> rows);

  Generator& generator_;
  Student& student_;
  const LearnOptions& options_;
  KeptStates lower_, before_;
  Mixture rehearsed_;
  std::vector<const train::FactRow*> lost_;
  std::size_t next_lost_ = 0;
  std::optional<OutputPenalty> penalty_;
  double penalty_weight_ = 0, rehearsal_ = 0;
  text::SplitMix64 random_;
};

}  // namespace memlayers::edit
