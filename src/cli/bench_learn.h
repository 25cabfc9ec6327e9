// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "cli/command.h"

namespace memlayers::cli {

// memlayers bench learn: the same facts by a patch and by what it is compared with.
std::function<int()> bench_learn_command(CLI::App& app);

}  // namespace memlayers::cli
