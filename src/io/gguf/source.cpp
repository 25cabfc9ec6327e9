// SPDX-License-Identifier: Apache-2.0
#include "io/gguf/source.h"

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "io/gguf/blocks.h"
#include "io/gguf/config.h"
#include "io/gguf/names.h"
#include "io/gguf/tokenizer.h"
#include "io/mapped_read.h"
#include "io/model_config.h"
#include "io/shown.h"
#include "io/weight_shapes.h"
#include "memlayers/error.h"

namespace memlayers::io::gguf {
namespace {

std::string text_of_shape(const std::vector<std::int64_t>& shape) {
  return nlohmann::json(shape).dump();
}

ElementType element_type(const TensorType& type) {
  if (type.id == kTypeF16) return ElementType::kF16;
  return type.id == kTypeBF16 ? ElementType::kBF16 : ElementType::kF32;
}

// What is in files and follows from the configuration, or is looked at with it.
bool is_derived(const std::string& name) {
  return name == "rope_freqs.weight" || name.ends_with(".attn_rot_embd.weight");
}

class Source final : public ModelSource {
 public:
  Source(FileSystem& fs, const std::string& path)
      : file_(File::open(fs, path)), config_(read_config(file_)) {
    const bool pairs_rows = read_architecture(file_).pairs_rows;
    std::set<std::string> wanted;
    for (const WeightShape& weight : weight_shapes(config_)) {
      std::string name = tensor_name(weight.name);
      std::vector<std::int64_t> shape;
      for (const WeightShape::Extent& extent : weight.extents) shape.push_back(extent.size);
      const Tensor& tensor = check_tensor(name, shape);
      Entry entry{.tensor = &tensor, .heads = 0};
      const bool is_query = name.find(".attn_q.") != std::string::npos;
      const bool is_key = name.find(".attn_k.") != std::string::npos;
      if (pairs_rows && is_query) entry.heads = config_.heads;
      if (pairs_rows && is_key) entry.heads = config_.num_kv_heads();
      entries_.emplace(weight.name, entry);
      weights_.emplace(weight.name, Weight{element_type(*tensor.type), std::move(shape)});
      wanted.insert(std::move(name));
    }
    find_blocks();
    for (const auto& [name, tensor] : file_.tensors()) {
      if (wanted.contains(name) || is_derived(name)) continue;
      throw Error(file_.path() + ": tensor " + quote(name) +
                  ": expected none of this name by the file's keys");
    }
  }

  const std::string& path() const override { return file_.path(); }
  const ModelConfig& config() const override { return config_; }
  const std::map<std::string, Weight>& weights() const override { return weights_; }
  std::optional<std::string> text(const std::string& name) const override {
    return text_of(file_, name);
  }

  void read(const std::string& weight, std::int64_t first,
            std::span<std::byte> out) const override {
    const Entry& entry = entries_.at(weight);
    const std::int64_t bytes = element_bytes(weights_.at(weight).type);
    const auto count = static_cast<std::int64_t>(out.size()) / bytes;
    if (entry.heads == 0) {
      read_run(entry, first, count, out.data());
    } else {
      read_paired_rows(entry, first, count, bytes, out.data());
    }
  }

  const TensorType* blocks(const std::string& weight) const override {
    const TensorType& type = *entries_.at(weight).tensor->type;
    return is_multiplied(type) ? &type : nullptr;
  }

  void read_blocks(const std::string& weight, std::int64_t row,
                   std::span<std::byte> out) const override {
    const Entry& entry = entries_.at(weight);
    const Tensor& tensor = *entry.tensor;
    const std::int64_t rows = tensor.shape.front(), width = numbers_in(tensor.shape) / rows;
    const std::size_t bytes = tensor.bytes.size() / static_cast<std::size_t>(rows);
    const auto count = static_cast<std::int64_t>(out.size() / bytes);
    std::int64_t least = rows, most = 0;
    for (std::int64_t r = 0; r < count; ++r) {
      const std::int64_t stored = stored_row(entry, row + r);
      copy_mapped(out.data() + static_cast<std::size_t>(r) * bytes,
                  tensor.bytes.subspan(static_cast<std::size_t>(stored) * bytes, bytes));
      least = std::min(least, stored);
      most = std::max(most, stored);
    }
    if (least <= most) release_run(tensor, least * width, (most + 1 - least) * width);
  }

 private:
  void find_blocks() {
    for (const auto& [name, entry] : entries_) {
      const TensorType& type = *entry.tensor->type;
      if (!is_multiplied(type) || config_.weights == RowType::kInt4) continue;
      config_.weights = type.id == kTypeQ80 ? RowType::kInt8 : RowType::kInt4;
    }
  }

  struct Entry {
    const Tensor* tensor;
    std::int64_t heads;  // 0, or those within which rows stand in pairs
  };

  const Tensor& check_tensor(const std::string& name, const std::vector<std::int64_t>& shape) {
    const std::string where = file_.path() + ": tensor " + quote(name);
    const auto found = file_.tensors().find(name);
    if (found == file_.tensors().end()) {
      throw Error(where + ": expected by the file's keys, not in the file");
    }
    const Tensor& tensor = found->second;
    if (tensor.shape != shape) {
      throw Error(where + ": expected shape " + text_of_shape(shape) + " by the file's keys, got " +
                  text_of_shape(tensor.shape));
    }
    if (tensor.type->decode == nullptr) {
      throw Error(where +
                  ": expected a tensor of type F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, "
                  "Q8_0, Q2_K to Q6_K, IQ4_NL or IQ4_XS, got " +
                  std::string(tensor.type->name));
    }
    return tensor;
  }

  static std::int64_t stored_row(const Entry& entry, std::int64_t row) {
    if (entry.heads == 0) return row;
    const std::int64_t head = entry.tensor->shape.front() / entry.heads, half = head / 2;
    const std::int64_t inner = row % head;
    return row - inner + 2 * (inner % half) + inner / half;
  }

  void release_run(const Tensor& tensor, std::int64_t first, std::int64_t count) const {
    const TensorType& type = *tensor.type;
    const std::int64_t begin = first / type.block_numbers;
    const std::int64_t end = (first + count + type.block_numbers - 1) / type.block_numbers;
    file_.release(tensor.bytes.subspan(static_cast<std::size_t>(begin * type.block_bytes),
                                       static_cast<std::size_t>((end - begin) * type.block_bytes)));
  }

  void read_run(const Entry& entry, std::int64_t first, std::int64_t count, std::byte* out) const {
    copy_numbers(*entry.tensor, first, count, out);
    release_run(*entry.tensor, first, count);
  }

  void read_paired_rows(const Entry& entry, std::int64_t first, std::int64_t count,
                        std::int64_t bytes, std::byte* out) const {
    const Tensor& tensor = *entry.tensor;
    const std::int64_t rows = tensor.shape.front(), width = numbers_in(tensor.shape) / rows;
    std::int64_t least = rows, most = 0;
    for (std::int64_t done = 0; done < count;) {
      const std::int64_t row = (first + done) / width, skipped = (first + done) % width;
      const std::int64_t stored = stored_row(entry, row);
      const std::int64_t some = std::min(count - done, width - skipped);
      copy_numbers(tensor, stored * width + skipped, some, out + done * bytes);
      least = std::min(least, stored);
      most = std::max(most, stored);
      done += some;
    }
    if (least <= most) release_run(tensor, least * width, (most + 1 - least) * width);
  }

  const File file_;
  ModelConfig config_;
  std::map<std::string, Entry> entries_;
  std::map<std::string, Weight> weights_;
};

// Where a generation ends; as read_generation_config() reads it.
std::string generation_config_json(const ModelConfig& config) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (config.bos_token) json["bos_token_id"] = *config.bos_token;
  if (config.eos_tokens.size() == 1) json["eos_token_id"] = config.eos_tokens[0];
  if (config.eos_tokens.size() > 1) json["eos_token_id"] = config.eos_tokens;
  if (config.pad_token) json["pad_token_id"] = *config.pad_token;
  return json.dump(2) + "\n";
}

}  // namespace

std::unique_ptr<ModelSource> open_source(FileSystem& fs, const std::string& path) {
  return std::make_unique<Source>(fs, path);
}

std::optional<std::string> text_of(const File& file, const std::string& name) {
  if (name == "config.json") return model_config_json(read_config(file));
  if (name == "generation_config.json") return generation_config_json(read_config(file));
  if (name == "chat_template.jinja") return chat_template(file.metadata());
  if (!file.metadata().find("tokenizer.ggml.tokens")) return std::nullopt;
  if (name == "tokenizer.json") return tokenizer_json(file.metadata());
  if (name == "tokenizer_config.json") return tokenizer_config_json(file.metadata());
  return std::nullopt;
}

}  // namespace memlayers::io::gguf
