// SPDX-License-Identifier: Apache-2.0
// The golden cases: where they are, and how a tensor of theirs is read.
#pragma once

#include <torch/types.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "support/source_folder.h"

namespace memlayers::testing {

// Paths of the files or folders in <golden>/<kind>, sorted: of tests/golden, and of the folder that
// MEMLAYERS_GOLDEN_DIR names, which may hold more of them. Throws where either has none: a suite
// without cases is no pass.
inline std::vector<std::string> golden_cases(const std::string& kind) {
  std::vector<std::string> cases;
  const auto add = [&](const std::filesystem::path& golden) {
    const std::filesystem::path folder = golden / kind;
    const std::size_t before = cases.size();
    if (std::filesystem::is_directory(folder)) {
      for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        const std::string name = entry.path().filename().string();
        if (!name.starts_with('.')) cases.push_back(entry.path().string());
      }
    }
    if (cases.size() == before)
      throw std::runtime_error(folder.string() + ": expected golden cases, found none");
  };
  add(in_repository("tests/golden"));
  const char* more = std::getenv("MEMLAYERS_GOLDEN_DIR");
  if (more != nullptr && *more != '\0') add(more);
  std::sort(cases.begin(), cases.end());
  return cases;
}

// A copy of a stored tensor: float32, float64 or int64.
inline at::Tensor golden_tensor(const io::SafetensorsFile& file, const std::string& name) {
  const io::TensorView& view = file.at(name);
  const at::ScalarType type = view.type == io::ElementType::kI64   ? at::kLong
                              : view.type == io::ElementType::kF64 ? at::kDouble
                                                                   : at::kFloat;
  return torch::from_blob(const_cast<std::byte*>(view.bytes.data()), view.shape, torch::dtype(type))
      .clone();
}

// Largest difference, relative to the largest reference value.
inline double relative_error(const at::Tensor& got, const at::Tensor& wanted) {
  if (got.sizes() != wanted.sizes()) return std::numeric_limits<double>::infinity();
  if (got.numel() == 0) return 0;
  const double scale = wanted.abs().max().item<double>();
  const double difference = (got - wanted).abs().max().item<double>();
  return scale > 0 ? difference / scale : difference;
}

}  // namespace memlayers::testing
