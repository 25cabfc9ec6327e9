// SPDX-License-Identifier: Apache-2.0
#include "http/body_file.h"

#include <span>

#include "memlayers/error.h"

namespace memlayers::http {
namespace {

constexpr std::string_view kStem = "memlayers-body";

std::unique_ptr<io::Lock> lock_if_possible(io::FileSystem& fs, const std::string& path) {
  try {
    return fs.lock(path);
  } catch (const io::NoLocks&) {
    return nullptr;
  }
}

}  // namespace

BodyFile::BodyFile(io::FileSystem& fs, const std::string& folder,
                   std::optional<std::uint64_t> bytes)
    : name_(fs, io::join(folder, kStem)) {
  if (bytes) io::ask_for_room(fs, folder, *bytes);
  file_ = fs.open(name_.path(), io::OpenMode::kCreate);
  lock_ = lock_if_possible(fs, name_.path());
}

BodyFile::~BodyFile() { name_.remove(); }

void BodyFile::append(std::string_view bytes) {
  file_->pwrite(std::as_bytes(std::span(bytes.data(), bytes.size())), size_);
  size_ += bytes.size();
}

void remove_left_bodies(io::FileSystem& fs, const std::string& folder) {
  if (!fs.is_folder(folder)) throw Error(folder + ": expected a folder for bodies, found none");
  for (const std::string& name : fs.list(folder)) {
    if (io::process_of_temporary(name, kStem).empty()) continue;
    const std::string path = io::join(folder, name);
    try {
      if (const auto lock = lock_if_possible(fs, path)) fs.unlink(path);
    } catch (const Error&) {  // another user's, or gone
    }
  }
}

}  // namespace memlayers::http
