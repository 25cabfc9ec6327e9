// SPDX-License-Identifier: Apache-2.0
#include "io/gguf/names.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace memlayers::io::gguf {
namespace {

struct Pair {
  std::string_view ours, theirs;
};

// Before ".weight" and ".bias".
constexpr std::array<Pair, 3> kNames{
    {{"model.embed_tokens", "token_embd"}, {"model.norm", "output_norm"}, {"lm_head", "output"}}};
// Of a layer.
constexpr std::array<Pair, 11> kLayerNames{{{"input_layernorm", "attn_norm"},
                                            {"self_attn.q_proj", "attn_q"},
                                            {"self_attn.k_proj", "attn_k"},
                                            {"self_attn.v_proj", "attn_v"},
                                            {"self_attn.o_proj", "attn_output"},
                                            {"self_attn.q_norm", "attn_q_norm"},
                                            {"self_attn.k_norm", "attn_k_norm"},
                                            {"post_attention_layernorm", "ffn_norm"},
                                            {"mlp.gate_proj", "ffn_gate"},
                                            {"mlp.up_proj", "ffn_up"},
                                            {"mlp.down_proj", "ffn_down"}}};

template <std::size_t N>
std::string_view theirs(const std::array<Pair, N>& names, std::string_view ours) {
  const auto found = std::ranges::find(names, ours, &Pair::ours);
  return found == names.end() ? std::string_view() : found->theirs;
}

}  // namespace

std::string tensor_name(const std::string& weight) {
  constexpr std::string_view kLayers = "model.layers.";
  const std::size_t dot = weight.rfind('.');
  if (dot == std::string::npos) return "";
  const std::string_view stem = std::string_view(weight).substr(0, dot);
  const std::string kind = weight.substr(dot);
  if (!stem.starts_with(kLayers)) {
    const std::string_view name = theirs(kNames, stem);
    return name.empty() ? "" : std::string(name) + kind;
  }
  const std::string_view inner = stem.substr(kLayers.size());
  const std::size_t end = inner.find('.');
  if (end == std::string_view::npos) return "";
  const std::string_view name = theirs(kLayerNames, inner.substr(end + 1));
  if (name.empty()) return "";
  return "blk." + std::string(inner.substr(0, end)) + "." + std::string(name) + kind;
}

}  // namespace memlayers::io::gguf
