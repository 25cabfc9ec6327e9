// SPDX-License-Identifier: Apache-2.0
#include "train/tensor_file.h"

#include <torch/types.h>

#include "io/mapped_read.h"
#include "io/shown.h"
#include "memlayers/error.h"
#include "nn/finite.h"

namespace memlayers::train {
namespace {

io::ElementType element_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return io::ElementType::kF32;
    case at::kDouble:
      return io::ElementType::kF64;
    case at::kBFloat16:
      return io::ElementType::kBF16;
    case at::kInt:
      return io::ElementType::kI32;
    case at::kLong:
      return io::ElementType::kI64;
    case at::kByte:
      return io::ElementType::kU8;
    default:
      TORCH_CHECK_TYPE(false, "checkpoint: cannot store a tensor of type ", type);
  }
}

std::string shape_text(at::IntArrayRef shape) {
  std::string text = "[";
  for (std::int64_t size : shape) {
    text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  }
  return text + "]";
}

}  // namespace

void write_tensors(io::FileSystem& files, const std::string& path, const NamedTensors& tensors,
                   const std::map<std::string, std::string>& metadata) {
  std::vector<io::TensorToWrite> parts;
  for (const auto& [name, tensor] : tensors) {
    TORCH_CHECK_VALUE(tensor.is_contiguous(), "checkpoint: expected ", name, " to be contiguous");
    parts.push_back({.name = name,
                     .type = element_type(tensor.scalar_type()),
                     .shape = tensor.sizes().vec(),
                     .bytes = {static_cast<const std::byte*>(tensor.const_data_ptr()),
                               static_cast<std::size_t>(tensor.nbytes())}});
  }
  io::write_safetensors(files, path, parts, metadata);
}

const io::TensorView& expect_tensor(const io::SafetensorsFile& file, const std::string& name,
                                    at::ScalarType type, at::IntArrayRef shape) {
  const io::TensorView& view = file.at(name);
  if (view.type != element_type(type) || at::IntArrayRef(view.shape) != shape) {
    throw Error(file.path() + ": tensor " + name + " is " +
                std::string(io::element_name(view.type)) + " " + shape_text(view.shape) +
                ", expected " + std::string(io::element_name(element_type(type))) + " " +
                shape_text(shape) + ": a checkpoint of another shape");
  }
  return view;
}

void check_step(const io::SafetensorsFile& file, std::int64_t step) {
  const auto found = file.metadata().find("step");
  const std::string text = found == file.metadata().end() ? "none" : found->second;
  if (text != std::to_string(step)) {
    throw Error(file.path() + ": metadata step: expected " + std::to_string(step) +
                " as in trainer.json, got " + io::shown(text) + ": a file of another step");
  }
}

void read_tensors(const io::SafetensorsFile& file, const NamedTensors& tensors) {
  for (const auto& [name, tensor] : tensors) {
    const io::TensorView& view = expect_tensor(file, name, tensor.scalar_type(), tensor.sizes());
    io::copy_mapped(tensor.mutable_data_ptr(), view.bytes);
    nn::check_finite(tensor, file.path() + ": tensor " + name);
  }
}

}  // namespace memlayers::train
