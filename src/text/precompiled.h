// SPDX-License-Identifier: Apache-2.0
// The normalizer "Precompiled": a map of characters that SentencePiece made.
#pragma once

#include <memory>

#include "text/json_field.h"
#include "text/normalizer.h"

namespace memlayers::text {

std::unique_ptr<const NormalizerStep> read_precompiled(const JsonField& field);

}  // namespace memlayers::text
