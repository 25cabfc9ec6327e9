// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "memlayers/llama.h"

namespace memlayers::serve {

// XXH3-128 in hex of the configuration and of all weights but the pool's rows, as they lie in
// memory: reads all of them.
std::string weights_digest(const Llama& model);

}  // namespace memlayers::serve
