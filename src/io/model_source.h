// SPDX-License-Identifier: Apache-2.0
// A model as files have it, whatever their kind: its configuration, its dense weights and the texts
// beside them. The value rows of a pool are the store's (docs/store.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/file_system.h"
#include "io/safetensors.h"
#include "memlayers/config.h"

namespace memlayers::io {

namespace gguf {
struct TensorType;
}

// May be used from several threads.
class ModelSource {
 public:
  struct Weight {
    ElementType type;  // kF32, kBF16 or kF16: of what read() gives
    std::vector<std::int64_t> shape;
  };

  virtual ~ModelSource() = default;
  virtual const std::string& path() const = 0;
  virtual const ModelConfig& config() const = 0;
  // Those of weight_shapes(config()): none is missing, none left over, every shape is right.
  virtual const std::map<std::string, Weight>& weights() const = 0;
  // Copies elements [first, first + as many as fit) of a weight, row-major, without keeping more of
  // the file in memory. Throws Error where the disk does not give them.
  virtual void read(const std::string& weight, std::int64_t first,
                    std::span<std::byte> out) const = 0;
  // Of a weight that lies in blocks of 8 or 4 bits: their type, one of gguf::multiplied_types();
  // null: it does not. read() gives the numbers that they stand for, read_blocks() the blocks of as
  // many whole rows, from `row` on, as fit.
  virtual const gguf::TensorType* blocks(const std::string& weight) const = 0;
  virtual void read_blocks(const std::string& weight, std::int64_t row,
                           std::span<std::byte> out) const = 0;
  // A text by the name that it has in Hugging Face's folders, such as "tokenizer.json".
  virtual std::optional<std::string> text(const std::string& name) const = 0;
};

// ModelSource::read() as float32, whatever the weight's type.
void read_floats(const ModelSource& source, const std::string& weight, std::int64_t first,
                 std::span<float> out);

// Throws Error naming file and field or tensor for anything that is missing, wrong or does not fit
// together, before memory is taken in proportion to it.
std::unique_ptr<ModelSource> open_model_source(FileSystem& fs, const std::string& path);

// Its configuration alone; weights are not looked at, so that `tie_embeddings` is what config.json
// says.
ModelConfig read_model(FileSystem& fs, const std::string& path);

// Whether a model lies there, as far as names tell.
bool is_model(FileSystem& fs, const std::string& path);

}  // namespace memlayers::io
