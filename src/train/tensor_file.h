// SPDX-License-Identifier: Apache-2.0
// Tensors that a run keeps in safetensors files.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "io/file_system.h"
#include "io/safetensors.h"

namespace memlayers::train {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// Writes contiguous tensors on the CPU, whose numbers must be finite, and syncs the file.
void write_tensors(io::FileSystem& files, const std::string& path, const NamedTensors& tensors,
                   const std::map<std::string, std::string>& metadata = {});

// What the file holds under this name; throws Error unless it has this type and shape.
const io::TensorView& expect_tensor(const io::SafetensorsFile& file, const std::string& name,
                                    at::ScalarType type, at::IntArrayRef shape);

// Throws Error unless the metadata say that the file was written at this step.
void check_step(const io::SafetensorsFile& file, std::int64_t step);

// Fills the tensors with what the file holds under their names; throws Error unless that is finite.
void read_tensors(const io::SafetensorsFile& file, const NamedTensors& tensors);

}  // namespace memlayers::train
