// SPDX-License-Identifier: Apache-2.0
// The loop of learning: the same for a patch's rows and for what they are compared with.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "edit/student.h"

namespace memlayers::edit {

// options.repairs, or its default for such a model.
std::int64_t most_repairs(const LearnOptions& options, const ModelConfig& config);

// Trains the student until every prompt and paraphrase is recalled by greedy decoding, or for
// options.steps steps. Throws Error for a loss that is not finite.
LearnProgress teach(Generator& generator, Student& student, const std::vector<NewFact>& facts,
                    const LearnOptions& options,
                    const std::function<void(const LearnProgress&)>& progress);

}  // namespace memlayers::edit
