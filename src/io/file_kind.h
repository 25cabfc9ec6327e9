// SPDX-License-Identifier: Apache-2.0
// Files that are often found where another kind is wanted.
#pragma once

#include <string>
#include <string_view>

namespace memlayers::io {

// What a file that begins so is, and what to do about it, as the end of a sentence ("..., got
// <this>"); "" for one of which there is nothing to say.
std::string_view known_kind(std::string_view beginning);

// Throws Error, naming `name`, for text that is a Git LFS pointer: it reads like any other.
void refuse_pointer(std::string_view text, const std::string& name);

}  // namespace memlayers::io
