// SPDX-License-Identifier: Apache-2.0
// Base64 as RFC 4648 has it: the standard digits, filled up to fours.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace memlayers::io {

std::string to_base64(std::span<const std::byte> bytes);
// Absent for what to_base64() does not write.
std::optional<std::string> from_base64(std::string_view text);

}  // namespace memlayers::io
