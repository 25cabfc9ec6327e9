// SPDX-License-Identifier: Apache-2.0
// MPI, the transport of messages: the only part of the project that knows it.
#pragma once

#include <memory>

#include "memlayers/parallel.h"

namespace memlayers::dist {

std::shared_ptr<Communicator> start_mpi();
// Do nothing where MPI was not started, or has ended.
void end_mpi();
void abort_mpi(int code);

}  // namespace memlayers::dist
