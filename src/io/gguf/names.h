// SPDX-License-Identifier: Apache-2.0
// Names of weights in GGUF files.
#pragma once

#include <string>

namespace memlayers::io::gguf {

// "model.layers.3.self_attn.q_proj.weight" -> "blk.3.attn_q.weight"; "" for a weight that GGUF has
// no name for.
std::string tensor_name(const std::string& weight);

}  // namespace memlayers::io::gguf
