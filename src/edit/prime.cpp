// SPDX-License-Identifier: Apache-2.0
#include <torch/utils.h>

#include "edit/phrasings.h"
#include "edit/teach.h"
#include "edit/whole_memory.h"
#include "memlayers/error.h"
#include "memlayers/retrofit.h"

namespace memlayers {

LearnProgress prime(Generator& generator, const std::vector<NewFact>& facts,
                    const LearnOptions& options,
                    const std::function<void(const LearnProgress&)>& progress) {
  constexpr double kDenseRate = 1e-3;
  options.validate();
  edit::check_can_learn(generator, facts);
  if (generator.model()->config().memory->placement != MemoryPlacement::kBeside) {
    throw Error("prime: expected a memory beside the feed-forward blocks, got one in their place");
  }
  MemoryPool pool = generator.model()->pool();
  pool->clear_gradient();
  LearnProgress end;
  {
    edit::WholeMemory student(
        generator.model(), edit::learning_rate(options, generator.model()->config()), kDenseRate);
    end = edit::teach(generator, student, facts, options, progress);
  }
  pool->reset_usage();
  return end;
}

void clear_rows(Generator& generator) {
  const torch::NoGradGuard no_gradient;
  generator.model()->pool()->values.zero_();
}

}  // namespace memlayers
