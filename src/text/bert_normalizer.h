// SPDX-License-Identifier: Apache-2.0
// The normalizer "BertNormalizer": controls go, ideographs stand alone, accents and capitals go.
#pragma once

#include <memory>

#include "text/json_field.h"
#include "text/normalizer.h"

namespace memlayers::text {

std::unique_ptr<const NormalizerStep> read_bert_normalizer(const JsonField& field);

}  // namespace memlayers::text
