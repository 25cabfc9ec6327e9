// SPDX-License-Identifier: Apache-2.0
// A GGUF file: its head, its weights as a model, its texts.
#include "fuzz/fuzz.h"
#include "io/gguf/file.h"
#include "io/gguf/source.h"

namespace {

using namespace memlayers;

constexpr const char* kPath = "file.gguf";

// Of tensors that a few bytes of a file may say to be of any size, some of the numbers.
void read_weights(const io::ModelSource& source) {
  constexpr std::int64_t kMost = 1000;
  std::vector<float> numbers(kMost);
  for (const auto& [name, weight] : source.weights()) {
    const std::int64_t count = io::gguf::numbers_in(weight.shape), some = std::min(count, kMost);
    const auto bytes = static_cast<std::size_t>(some * io::element_bytes(weight.type));
    source.read(name, 0, std::as_writable_bytes(std::span(numbers)).first(bytes));
    source.read(name, count - some, std::as_writable_bytes(std::span(numbers)).first(bytes));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  testing::MemoryFileSystem fs;
  fuzz::put(fs, kPath, fuzz::bytes_of(data, size));
  fuzz::allow_error([&] {
    const io::gguf::File file = io::gguf::File::open(fs, kPath);
    for (const auto& [name, tensor] : file.tensors()) {
      fuzz::require(tensor.bytes.size() < size);
      fuzz::require(static_cast<std::int64_t>(tensor.bytes.size()) / tensor.type->block_bytes ==
                    io::gguf::numbers_in(tensor.shape) / tensor.type->block_numbers);
    }
    for (const char* name : {"config.json", "generation_config.json", "tokenizer.json",
                             "tokenizer_config.json", "chat_template.jinja"}) {
      fuzz::allow_error([&] {
        const auto text = io::gguf::text_of(file, name);
        // Names are escaped, and each stands a few times at most beside what is always there.
        fuzz::require(!text || text->size() < 4096 + 200 * size);
      });
    }
    read_weights(*io::gguf::open_source(fs, kPath));
  });
  return 0;
}
