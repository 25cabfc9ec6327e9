// SPDX-License-Identifier: Apache-2.0
#include "io/file_kind.h"

#include <array>

#include "memlayers/error.h"

namespace memlayers::io {
namespace {

struct Kind {
  std::string_view beginning, text;
};

constexpr Kind kPointer{"version https://git-lfs.github.com/spec/",
                        "a Git LFS pointer, which stands for the file (git lfs pull fetches it)"};
constexpr std::array<Kind, 8> kKinds{{
    kPointer,
    {"<!DOCTYPE", "a web page"},
    {"<!doctype", "a web page"},
    {"<html", "a web page"},
    {"GGUF", "a GGUF file"},
    {"PK\x03\x04", "a zip archive, as torch.save() writes (safetensors is what is read here)"},
    {"\x80\x02", "a pickle, as torch.save() writes (safetensors is what is read here)"},
    {"\x1F\x8B", "a file that gzip compressed"},
}};

}  // namespace

std::string_view known_kind(std::string_view beginning) {
  for (const Kind& kind : kKinds) {
    if (beginning.starts_with(kind.beginning)) return kind.text;
  }
  return "";
}

void refuse_pointer(std::string_view text, const std::string& name) {
  if (!text.starts_with(kPointer.beginning)) return;
  throw Error(name + ": expected text, got " + std::string(kPointer.text));
}

}  // namespace memlayers::io
