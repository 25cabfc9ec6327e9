// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace memlayers::testing {

// A safetensors file as bytes that a test may change.
struct AlteredTensors {
  std::map<std::string, std::vector<std::byte>> tensors;
  std::map<std::string, std::string> metadata;
};
// Writes the file anew with what `change` makes of it; shapes and types stay. Where it is a file of
// rows (pool/rows_file.h) all of its checksums are those of the changed rows, as if a program had
// written them so.
void alter_tensors(const std::string& path, const std::function<void(AlteredTensors&)>& change);
// The number at `index` of the tensor `rows`, of float32, becomes `value`.
void alter_row_number(const std::string& path, std::size_t index, float value);

}  // namespace memlayers::testing
