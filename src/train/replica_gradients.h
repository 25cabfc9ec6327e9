// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "memlayers/parallel.h"
#include "memlayers/row_updates.h"

namespace memlayers::train {

// The gradients of one part of a pool that several memory groups hold, one group's after the
// other's, the same in every group: what is sent is as sparse as the gradients are. All replicas
// call it together.
std::vector<FactoredGradient> of_all_replicas(Communicator& replicas,
                                              const std::vector<FactoredGradient>& own);

}  // namespace memlayers::train
