// SPDX-License-Identifier: Apache-2.0
#include "io/temporary.h"

#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <random>
#include <set>

#include "memlayers/error.h"

namespace memlayers::io {
namespace {

constexpr std::string_view kHex = "0123456789abcdef";
constexpr std::size_t kDigits = 8;

// Those of this process that are in use.
struct Living {
  std::mutex mutex;
  std::set<std::string> paths;
};
Living& living() {
  static auto* const all = new Living;  // never destroyed: static objects may write files too
  return *all;
}

std::string random_digits() {
  std::random_device device;
  std::string text(kDigits, '0');
  unsigned number = device();
  for (char& digit : text) {
    digit = kHex[number & 15];
    number >>= 4;
  }
  return text;
}

void remove_left(FileSystem& fs, const std::string& path, bool is_of_all, std::string_view marker) {
  const std::string folder = parent(path), own = std::to_string(::getpid());
  const std::string stem = path.substr(path.find_last_of('/') + 1);
  try {
    if (!fs.is_folder(folder)) return;
    for (const std::string& name : fs.list(folder)) {
      const std::string process = process_of_temporary(name, stem, marker);
      if (process.empty() || (!is_of_all && process != own)) continue;
      const std::string left = join(folder, name);
      {
        const std::lock_guard lock(living().mutex);
        if (living().paths.contains(left)) continue;
      }
      remove_all(fs, left, "MANIFEST.json");
    }
  } catch (const Error&) {  // what is left is no hindrance
  }
}

}  // namespace

std::string process_of_temporary(std::string_view name, std::string_view stem,
                                 std::string_view marker) {
  if (!name.starts_with(stem) || !name.substr(stem.size()).starts_with(marker)) return "";
  name.remove_prefix(stem.size() + marker.size());
  const std::size_t dash = name.find('-');
  if (dash == 0 || dash == std::string_view::npos || name.size() - dash - 1 != kDigits) return "";
  const auto is_of = [](std::string_view text, std::string_view digits) {
    return std::ranges::all_of(text, [&](char c) { return digits.find(c) != digits.npos; });
  };
  const std::string_view process = name.substr(0, dash);
  return is_of(process, kHex.substr(0, 10)) && is_of(name.substr(dash + 1), kHex)
             ? std::string(process)
             : "";
}

TemporaryName::TemporaryName(FileSystem& fs, const std::string& path, Left left,
                             std::string_view marker)
    : fs_(fs) {
  std::string begin = path;
  while (begin.size() > 1 && begin.back() == '/') begin.pop_back();
  remove_left(fs, begin, left == Left::kOfAll, marker);
  begin += std::string(marker) + std::to_string(::getpid()) + "-";
  do path_ = begin + random_digits();
  while (fs.exists(path_));
  const std::lock_guard lock(living().mutex);
  living().paths.insert(path_);
}

TemporaryName::~TemporaryName() {
  const std::lock_guard lock(living().mutex);
  living().paths.erase(path_);
}

void TemporaryName::remove(const std::string& first) const noexcept {
  try {
    remove_all(fs_, path_, first);
  } catch (const Error&) {  // as said
  }
}

}  // namespace memlayers::io
