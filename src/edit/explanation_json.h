// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "memlayers/explain.h"

namespace memlayers::edit {

// What `memlayers explain --json` prints. `prompts`: ExplainOptions::prompts.
nlohmann::ordered_json explanation_json(const Explanation& explanation, const std::string& prompt,
                                        const std::vector<std::string>& prompts);

}  // namespace memlayers::edit
