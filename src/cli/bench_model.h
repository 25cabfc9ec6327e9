// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "cli/command.h"

namespace memlayers::cli {

// memlayers bench model: how fast a model answers, beside the rate at which memory is read.
std::function<int()> bench_model_command(CLI::App& app);

}  // namespace memlayers::cli
