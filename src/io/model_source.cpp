// SPDX-License-Identifier: Apache-2.0
// Hugging Face's folders (config.json, generation_config.json, *.safetensors), and GGUF files.
#include "io/model_source.h"

#include <algorithm>
#include <cstring>

#include "io/gguf/blocks.h"
#include "io/gguf/config.h"
#include "io/gguf/decode.h"
#include "io/gguf/file.h"
#include "io/gguf/source.h"
#include "io/mapped_read.h"
#include "io/model_config.h"
#include "io/weight_shapes.h"
#include "memlayers/error.h"

namespace memlayers::io {
namespace {

constexpr const char* kConfig = "config.json";
constexpr const char* kGenerationConfig = "generation_config.json";
constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr const char* kHead = "lm_head.weight";

// Follows from the configuration, whatever it says.
bool is_derived(const std::string& name) { return name.ends_with("rotary_emb.inv_freq"); }

class Folder final : public ModelSource {
 public:
  Folder(FileSystem& fs, const std::string& path)
      : fs_(fs),
        path_(path),
        config_(read_model(fs, path)),
        files_(SafetensorsFolder::open(fs, path)) {
    for (const auto& [name, view] : files_.tensors()) {
      if (!is_derived(name)) views_.emplace(name, &view);
    }
    if (config_.tie_embeddings) settle_head();
    if (config_.weights) find_blocks();
    std::map<std::string, std::vector<std::int64_t>> shapes;
    for (const auto& [name, view] : views_) {
      const auto found = blocks_.find(name);
      shapes.emplace(name, found == blocks_.end() ? view->shape : found->second.shape);
    }
    check_weight_shapes(config_, shapes, path_);
    for (const auto& [name, view] : views_) {
      const bool is_blocks = blocks_.contains(name);
      if (!is_blocks) check_type(name, *view);
      weights_.emplace(name, Weight{is_blocks ? ElementType::kF32 : view->type, shapes.at(name)});
    }
  }

  const std::string& path() const override { return path_; }
  const ModelConfig& config() const override { return config_; }
  const std::map<std::string, Weight>& weights() const override { return weights_; }

  void read(const std::string& weight, std::int64_t first,
            std::span<std::byte> out) const override {
    const TensorView& view = *views_.at(weight);
    if (const auto found = blocks_.find(weight); found != blocks_.end()) {
      const auto count = static_cast<std::int64_t>(out.size() / sizeof(float));
      return gguf::copy_numbers(found->second, first, count, out.data());
    }
    read(view, static_cast<std::size_t>(first * element_bytes(view.type)), out);
  }

  const gguf::TensorType* blocks(const std::string& weight) const override {
    const auto found = blocks_.find(weight);
    return found == blocks_.end() ? nullptr : found->second.type;
  }

  void read_blocks(const std::string& weight, std::int64_t row,
                   std::span<std::byte> out) const override {
    const TensorView& view = *views_.at(weight);
    read(view, static_cast<std::size_t>(row * view.shape[1]), out);
  }

  std::optional<std::string> text(const std::string& name) const override {
    const std::string file = join(path_, name);
    if (!fs_.exists(file)) return std::nullopt;
    return read_text(fs_, file);
  }

 private:
  void check_type(const std::string& name, const TensorView& view) const {
    if (view.type == ElementType::kF32 || view.type == ElementType::kBF16 ||
        view.type == ElementType::kF16) {
      return;
    }
    throw Error(path_ + ": tensor \"" + name +
                "\": expected a tensor of type F32, BF16 or F16, got " +
                std::string(element_name(view.type)));
  }

  // The tensors of bytes in which rows of the configuration's widths lie in blocks.
  void find_blocks() {
    for (const WeightShape& weight : weight_shapes(config_)) {
      const auto at = views_.find(weight.name);
      if (at == views_.end() || weight.extents.size() != 2) continue;
      const TensorView& view = *at->second;
      const std::int64_t rows = weight.extents[0].size, width = weight.extents[1].size;
      if (view.type != ElementType::kU8 || view.shape.size() != 2 || view.shape[0] != rows)
        continue;
      const gguf::TensorType* type = gguf::type_of_row(width, view.shape[1]);
      if (type != nullptr) {
        blocks_.emplace(weight.name, gguf::Tensor{type, {rows, width}, view.bytes});
      }
    }
  }

  void read(const TensorView& view, std::size_t at, std::span<std::byte> out) const {
    const auto part = view.bytes.subspan(at, out.size());
    copy_mapped(out.data(), part);
    files_.release(part);
  }

  bool is_same(const TensorView& one, const TensorView& other) const {
    if (one.type != other.type || one.shape != other.shape) return false;
    constexpr std::size_t kAtOnce = 1 << 20;
    std::vector<std::byte> left(kAtOnce), right(kAtOnce);
    for (std::size_t at = 0; at < one.bytes.size(); at += kAtOnce) {
      const std::size_t count = std::min(kAtOnce, one.bytes.size() - at);
      read(one, at, std::span(left).first(count));
      read(other, at, std::span(right).first(count));
      if (std::memcmp(left.data(), right.data(), count) != 0) return false;
    }
    return true;
  }

  // config.json says that the output shares the embeddings. As transformers has it: of two that
  // differ both count, and one alone, whichever it is, serves for both.
  void settle_head() {
    const auto head = views_.find(kHead);
    if (head == views_.end()) return;
    const auto [embedding, is_alone] = views_.emplace(kEmbedding, head->second);
    if (is_alone || is_same(*embedding->second, *head->second)) {
      views_.erase(head);
    } else {
      config_.tie_embeddings = false;
    }
  }

  FileSystem& fs_;
  std::string path_;
  ModelConfig config_;
  SafetensorsFolder files_;
  std::map<std::string, const TensorView*> views_;
  std::map<std::string, gguf::Tensor> blocks_;  // of these, those in blocks
  std::map<std::string, Weight> weights_;
};

}  // namespace

void read_floats(const ModelSource& source, const std::string& weight, std::int64_t first,
                 std::span<float> out) {
  const ElementType type = source.weights().at(weight).type;
  if (type == ElementType::kF32) return source.read(weight, first, std::as_writable_bytes(out));
  std::vector<std::byte> narrow(out.size() * 2);
  source.read(weight, first, narrow);
  const auto decode = type == ElementType::kF16 ? gguf::decode_f16 : gguf::decode_bf16;
  decode(narrow.data(), static_cast<std::int64_t>(out.size()), out.data());
}

std::unique_ptr<ModelSource> open_model_source(FileSystem& fs, const std::string& path) {
  if (gguf::is_gguf(fs, path)) return gguf::open_source(fs, path);
  return std::make_unique<Folder>(fs, path);
}

ModelConfig read_model(FileSystem& fs, const std::string& path) {
  if (gguf::is_gguf(fs, path)) return gguf::read_config(gguf::File::open(fs, path));
  // Weights of another model, to be added to those of a base.
  const std::string adapter = join(path, "adapter_config.json");
  if (fs.exists(adapter)) {
    throw Error(adapter + ": expected a model by itself, got an adapter; merge it into its base");
  }
  ModelConfig config = read_model_config(fs, join(path, kConfig));
  const std::string generation = join(path, kGenerationConfig);
  if (fs.exists(generation)) read_generation_config(fs, generation, config);
  return config;
}

bool is_model(FileSystem& fs, const std::string& path) {
  return fs.is_folder(path) ? fs.exists(join(path, kConfig)) : gguf::is_gguf(fs, path);
}

}  // namespace memlayers::io
