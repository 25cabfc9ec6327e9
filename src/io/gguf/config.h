// SPDX-License-Identifier: Apache-2.0
// The configuration of the model in a GGUF file.
#pragma once

#include <cstdint>
#include <string>

#include "io/gguf/file.h"
#include "memlayers/config.h"

namespace memlayers::io::gguf {

// A family of decoders that is read and written.
struct Architecture {
  const char* name;
  // Rows of Q and K stand in pairs that RoPE turns, (0, d/2), (1, d/2 + 1), ... of each head's d
  // rows, not in two halves as in Hugging Face's folders.
  bool pairs_rows;
};
// Throws Error naming the file's architecture where it is another, and for files that hold no
// model: adapters, projectors, vocabularies.
const Architecture& read_architecture(const File& file);
// The one that has all of this; throws Error beginning with `where` where none has.
const Architecture& architecture_of(const ModelConfig& config, const std::string& where);

// Throws Error naming file and key for anything of a wrong type, impossible or not done here.
// Weights are looked at for their names (biases, a head of its own) and types alone.
ModelConfig read_config(const File& file);

}  // namespace memlayers::io::gguf
