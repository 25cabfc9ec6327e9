// SPDX-License-Identifier: Apache-2.0
#include "io/write_model.h"

#include <array>
#include <span>
#include <vector>

#include "io/folder.h"
#include "io/gguf/encode.h"
#include "io/model_config.h"
#include "io/safetensors.h"

namespace memlayers::io {
namespace {

void read_as(const ModelSource& source, const std::string& weight, DenseType dtype,
             std::int64_t first, std::span<std::byte> out) {
  if (dtype == DenseType::kFloat32) {
    return read_floats(source, weight, first,
                       {reinterpret_cast<float*>(out.data()), out.size() / sizeof(float)});
  }
  std::vector<float> numbers(out.size() / 2);
  read_floats(source, weight, first, numbers);
  gguf::encode_bf16(numbers.data(), static_cast<std::int64_t>(numbers.size()), out.data());
}

}  // namespace

std::int64_t numbers_in(const ModelSource& source) {
  std::int64_t numbers = 0;
  for (const auto& [name, weight] : source.weights()) {
    std::int64_t own = 1;
    for (const std::int64_t extent : weight.shape) own *= extent;
    numbers += own;
  }
  return numbers;
}

void write_model_folder(FileSystem& fs, const ModelSource& source, const std::string& folder,
                        DenseType dtype, const Progress& progress) {
  FolderWriter writer(fs, folder);
  const ElementType type = dtype == DenseType::kFloat32 ? ElementType::kF32 : ElementType::kBF16;
  ask_for_room(fs, parent(folder),
               static_cast<std::uint64_t>(numbers_in(source) * element_bytes(type)));
  ModelConfig config = source.config();
  config.dtype = dtype;
  config.weights.reset();  // blocks of 8 and 4 bits are widened
  writer.write_text("config.json", model_config_json(config));
  // What the source cannot give is known before the many bytes are written.
  constexpr std::array kTexts{"generation_config.json", "tokenizer.json", "tokenizer_config.json",
                              "chat_template.jinja"};
  for (const char* name : kTexts) {
    if (const auto text = source.text(name)) writer.write_text(name, *text);
  }
  std::int64_t done = 0;
  std::vector<TensorToWrite> tensors;
  for (const auto& [name, weight] : source.weights()) {
    const auto read = [&, name = name](std::int64_t first, std::span<std::byte> out) {
      read_as(source, name, dtype, first, out);
      done += static_cast<std::int64_t>(out.size()) / element_bytes(type);
      progress(done);
    };
    tensors.push_back({name, type, weight.shape, {}, read});
  }
  write_safetensors(fs, writer.file("model.safetensors"), tensors, {{"format", "pt"}});
  writer.commit();
}

}  // namespace memlayers::io
