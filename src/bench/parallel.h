// SPDX-License-Identifier: Apache-2.0
// A decoder's training step over several processes of this machine: where its time goes, and what
// it sends.
#pragma once

#include <string>
#include <vector>

#include "bench/bench.h"
#include "memlayers/config.h"

namespace memlayers::bench {

// Measures with all processes that were started with this one, which all call it together; the
// figures are those of all of them, the same in all. Throws Error where the case does not fit.
Figures bench_together(const Case& c);

// The words of a command that runs `command` as so many processes on this machine, as root or not,
// over shared memory alone, with more processes than cores if need be, as scripts/mpirun_here.sh
// does.
std::vector<std::string> mpirun_here(int processes, std::vector<std::string> command);

// Runs such a command to its end, in the environment that it needs, and returns what it wrote to
// standard output. Throws Error with the last line of its standard error where it fails.
std::string output_of(const std::vector<std::string>& command);

}  // namespace memlayers::bench
