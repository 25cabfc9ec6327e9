// SPDX-License-Identifier: Apache-2.0
// The normalizers that look at one character or its marks: NFC, NFD, NFKC, NFKD, Lowercase,
// StripAccents, Strip, Nmt, ByteLevel.
#pragma once

#include <memory>
#include <string>

#include "text/json_field.h"
#include "text/normalizer.h"

namespace memlayers::text {

// Null for a type that is none of these.
std::unique_ptr<const NormalizerStep> read_unicode_normalizer(const std::string& type,
                                                              const JsonField& field);
std::unique_ptr<const NormalizerStep> normal_form_d();

}  // namespace memlayers::text
