// SPDX-License-Identifier: Apache-2.0
// Whole models of a few numbers as GGUF files.
#pragma once

#include <string>
#include <vector>

#include "support/gguf_bytes.h"

namespace memlayers::testing {

struct TinyGguf {
  std::string architecture = "llama";
  std::uint64_t dim = 8, heads = 2, kv_heads = 1, ff_dim = 12, vocab_size = 8;
  bool has_head = false;        // output.weight
  bool has_biases = false;      // of queries, keys and values
  bool has_head_norms = false;  // of queries and keys

  std::uint64_t head_dim() const { return dim / heads; }

  void keys(GgufBytes& file) const {
    file.text("general.architecture", architecture);
    const auto number = [&](const char* name, std::uint64_t value) {
      file.number(architecture + "." + name, static_cast<std::uint32_t>(value));
    };
    number("block_count", 1);
    number("context_length", 64);
    number("embedding_length", dim);
    number("feed_forward_length", ff_dim);
    number("attention.head_count", heads);
    number("attention.head_count_kv", kv_heads);
    file.real(architecture + ".attention.layer_norm_rms_epsilon", 1e-6F);
    file.real(architecture + ".rope.freq_base", 500000);
  }

  // Weight i of a tensor is its number of the tensor plus i / 1000.
  void tensors(GgufBytes& file) const {
    float first = 0;
    const auto add = [&](const std::string& name, std::vector<std::uint64_t> extents) {
      std::uint64_t count = 1;
      for (const std::uint64_t extent : extents) count *= extent;
      std::vector<float> values;
      for (std::uint64_t i = 0; i < count; ++i) {
        values.push_back(first + static_cast<float>(i) / 1000);
      }
      file.floats(name, std::move(extents), values);
      first += 1;
    };
    add("token_embd.weight", {dim, vocab_size});
    add("output_norm.weight", {dim});
    if (has_head) add("output.weight", {dim, vocab_size});
    const std::string layer = "blk.0.";
    add(layer + "attn_norm.weight", {dim});
    add(layer + "ffn_norm.weight", {dim});
    for (const auto& [name, rows] : std::vector<std::pair<std::string, std::uint64_t>>{
             {"attn_q", heads}, {"attn_k", kv_heads}, {"attn_v", kv_heads}}) {
      add(layer + name + ".weight", {dim, rows * head_dim()});
      if (has_biases) add(layer + name + ".bias", {rows * head_dim()});
    }
    add(layer + "attn_output.weight", {heads * head_dim(), dim});
    if (has_head_norms) {
      add(layer + "attn_q_norm.weight", {head_dim()});
      add(layer + "attn_k_norm.weight", {head_dim()});
    }
    add(layer + "ffn_gate.weight", {dim, ff_dim});
    add(layer + "ffn_up.weight", {dim, ff_dim});
    add(layer + "ffn_down.weight", {ff_dim, dim});
  }

  GgufBytes file() const {
    GgufBytes file;
    keys(file);
    tensors(file);
    return file;
  }
};

// BPE over bytes: <s>, </s>, a, b, c, ab, the space, " a".
inline void add_byte_tokenizer(GgufBytes& file, const std::string& pre = "gpt-2") {
  file.text("tokenizer.ggml.model", "gpt2");
  if (!pre.empty()) file.text("tokenizer.ggml.pre", pre);
  file.texts("tokenizer.ggml.tokens", {"<s>", "</s>", "a", "b", "c", "ab", "\u0120", "\u0120a"});
  file.list("tokenizer.ggml.token_type", 5, std::vector<std::int32_t>{3, 3, 1, 1, 1, 1, 1, 1});
  file.texts("tokenizer.ggml.merges", {"a b", "\u0120 a"});
  file.number("tokenizer.ggml.bos_token_id", 0);
  file.number("tokenizer.ggml.eos_token_id", 1);
}

// SentencePiece: <unk>, <s>, </s>, the space, a, b, " a", ab, then 256 bytes.
inline void add_scored_tokenizer(GgufBytes& file) {
  std::vector<std::string> tokens{"<unk>", "<s>", "</s>", "\u2581", "a", "b", "\u2581a", "ab"};
  std::vector<float> scores{0, 0, 0, -3, -4, -5, -2, -1};
  std::vector<std::int32_t> kinds{2, 3, 3, 1, 1, 1, 1, 1};
  constexpr const char* kDigits = "0123456789ABCDEF";
  for (std::size_t byte = 0; byte < 256; ++byte) {
    tokens.push_back(std::string("<0x") + kDigits[byte / 16] + kDigits[byte % 16] + ">");
    scores.push_back(0);
    kinds.push_back(6);
  }
  file.text("tokenizer.ggml.model", "llama");
  file.texts("tokenizer.ggml.tokens", tokens);
  file.list("tokenizer.ggml.scores", 6, scores);
  file.list("tokenizer.ggml.token_type", 5, kinds);
}

}  // namespace memlayers::testing
