// SPDX-License-Identifier: Apache-2.0
// What config.json calls things, for who reads and who writes it.
#pragma once

#include <cstddef>

#include "memlayers/config.h"

namespace memlayers::io {

constexpr const char* kOurs = "memlayers";   // model_type, and the object with the memory
constexpr const char* kBase = "base";        // in it: model_type of the decoder
constexpr const char* kExperts = "experts";  // in it: of a layer, of which a token takes one
constexpr const char* kQuantization = "quantization_config";

template <class Enum>
struct Name {
  Enum value;
  const char* text;
};
constexpr Name<RowType> kRowTypes[] = {{RowType::kFloat32, "float32"},
                                       {RowType::kBFloat16, "bfloat16"},
                                       {RowType::kInt8, "int8"},
                                       {RowType::kInt4, "int4"}};
constexpr Name<MemoryVariant> kVariants[] = {{MemoryVariant::kPlain, "plain"},
                                             {MemoryVariant::kMemoryPlus, "memory+"},
                                             {MemoryVariant::kPeer, "peer"},
                                             {MemoryVariant::kNgram, "ngram"}};
constexpr Name<MemoryPlacement> kPlacements[] = {{MemoryPlacement::kReplace, "replace"},
                                                 {MemoryPlacement::kBeside, "beside"}};

template <class Enum, std::size_t N>
const char* text_of(Enum value, const Name<Enum> (&names)[N]) {
  for (const auto& candidate : names) {
    if (value == candidate.value) return candidate.text;
  }
  return names[0].text;
}

}  // namespace memlayers::io
