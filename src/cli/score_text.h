// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "memlayers/evaluate.h"

namespace memlayers::cli {

// evaluate_text() with a token cache that is gone afterwards.
TextScore score_text(Generator& generator, const std::vector<std::string>& paths,
                     std::int64_t batch_tokens = 8192);

}  // namespace memlayers::cli
