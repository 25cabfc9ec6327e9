// SPDX-License-Identifier: Apache-2.0
#include "io/gguf/export.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "io/gguf/config.h"
#include "io/gguf/names.h"
#include "io/gguf/rope_factors.h"
#include "io/weight_shapes.h"

namespace memlayers::io::gguf {
namespace {

// general.file_type: what most matrices are.
std::int64_t file_type(const TensorType& type) {
  constexpr std::int64_t kAllF32 = 0, kMostlyF16 = 1, kMostlyQ80 = 7, kMostlyBF16 = 32;
  if (type.id == kTypeF16) return kMostlyF16;
  if (type.id == kTypeQ80) return kMostlyQ80;
  return type.id == kTypeBF16 ? kMostlyBF16 : kAllF32;
}

void put_rope(Writer& writer, const std::string& prefix, const RopeConfig& rope) {
  writer.number(prefix + "rope.freq_base", rope.theta);
  if (rope.type != "linear" && rope.type != "yarn") return;
  writer.text(prefix + "rope.scaling.type", rope.type);
  writer.number(prefix + "rope.scaling.factor", rope.factor);
  if (rope.type != "yarn") return;
  writer.count(prefix + "rope.scaling.original_context_length", rope.original_context);
  writer.number(prefix + "rope.scaling.yarn_beta_fast", rope.beta_fast);
  writer.number(prefix + "rope.scaling.yarn_beta_slow", rope.beta_slow);
  // What llama.cpp multiplies by what follows from the factor.
  const double usual = rope.factor <= 1 ? 1 : 0.1 * std::log(rope.factor) + 1;
  const auto share = static_cast<float>(rope.attention_factor / usual);
  if (share != 1) writer.number(prefix + "rope.scaling.yarn_attn_factor", share);
}

// Rows of a weight in pairs: row 2 j + i of a head is row i d/2 + j of its d.
struct PairedRows {
  std::int64_t width, head;  // numbers in a row, rows of a head

  std::int64_t source_row(std::int64_t row) const {
    const std::int64_t inner = row % head;
    return row - inner + inner % 2 * (head / 2) + inner / 2;
  }
};

void read_paired(const ModelSource& source, const std::string& weight, const PairedRows& rows,
                 std::int64_t first, std::span<float> out) {
  for (std::size_t done = 0; done < out.size();) {
    const std::int64_t at = first + static_cast<std::int64_t>(done);
    const std::int64_t row = at / rows.width, skipped = at % rows.width;
    const auto some = std::min(out.size() - done, static_cast<std::size_t>(rows.width - skipped));
    read_floats(source, weight, rows.source_row(row) * rows.width + skipped,
                out.subspan(done, some));
    done += some;
  }
}

bool is_paired(const std::string& weight) {
  return weight.find(".self_attn.q_proj.") != std::string::npos ||
         weight.find(".self_attn.k_proj.") != std::string::npos;
}

const TensorType& type_of(const std::vector<std::int64_t>& shape, const TensorType& wanted) {
  if (shape.size() < 2) return *find_type(kTypeF32);
  return shape.back() % wanted.block_numbers == 0 ? wanted : *find_type(kTypeF16);
}

}  // namespace

void put_config(Writer& writer, const ModelConfig& config, const TensorType& type,
                const std::string& where) {
  const std::string name = architecture_of(config, where).name, prefix = name + ".";
  writer.text("general.architecture", name);
  writer.text("general.type", "model");
  writer.count("general.file_type", file_type(type));
  writer.count("general.quantization_version", 2);
  writer.count(prefix + "vocab_size", config.vocab_size);
  writer.count(prefix + "context_length", config.context);
  writer.count(prefix + "embedding_length", config.dim);
  writer.count(prefix + "block_count", config.layers);
  writer.count(prefix + "feed_forward_length", config.ff_dim);
  writer.count(prefix + "attention.head_count", config.heads);
  writer.count(prefix + "attention.head_count_kv", config.num_kv_heads());
  writer.count(prefix + "attention.key_length", config.attention_head_dim());
  writer.count(prefix + "attention.value_length", config.attention_head_dim());
  writer.count(prefix + "rope.dimension_count", config.attention_head_dim());
  writer.number(prefix + "attention.layer_norm_rms_epsilon", config.norm_eps);
  if (config.sliding_window)
    writer.count(prefix + "attention.sliding_window", *config.sliding_window);
  put_rope(writer, prefix, config.rope);
}

void write_model(FileSystem& fs, const ModelSource& source, const Writer& keys,
                 const TensorType& type, const std::string& path,
                 const std::function<void(std::int64_t done)>& progress) {
  const ModelConfig& config = source.config();
  const bool pairs_rows = architecture_of(config, source.path()).pairs_rows;
  std::int64_t done = 0;
  std::vector<Writer::Tensor> tensors;
  if (config.rope.type == "llama3") {
    const std::vector<float> factors = rope_factors(config.rope, config.attention_head_dim());
    tensors.push_back({"rope_freqs.weight",
                       find_type(kTypeF32),
                       {static_cast<std::int64_t>(factors.size())},
                       [factors](std::int64_t first, std::span<float> out) {
                         std::copy_n(factors.begin() + first, out.size(), out.begin());
                       }});
  }
  for (const WeightShape& weight : weight_shapes(config)) {
    const std::vector<std::int64_t>& shape = source.weights().at(weight.name).shape;
    const PairedRows rows{numbers_in(shape) / shape.front(), config.attention_head_dim()};
    const bool pairs = pairs_rows && is_paired(weight.name);
    tensors.push_back(
        {tensor_name(weight.name), &type_of(shape, type), shape,
         [&, pairs, rows, name = weight.name](std::int64_t first, std::span<float> out) {
           if (pairs) {
             read_paired(source, name, rows, first, out);
           } else {
             read_floats(source, name, first, out);
           }
           done += static_cast<std::int64_t>(out.size());
           progress(done);
         }});
  }
  keys.write(fs, path, tensors);
}

}  // namespace memlayers::io::gguf
