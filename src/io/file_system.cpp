// SPDX-License-Identifier: Apache-2.0
#include "io/file_system.h"

#include <algorithm>

#include "memlayers/error.h"

namespace memlayers::io {

std::unique_ptr<Scratch> FileSystem::make_scratch(const std::string& folder, std::uint64_t) {
  throw Error(folder + ": expected a file system that can map a scratch file, got one that cannot");
}

std::unique_ptr<Lock> FileSystem::lock(const std::string& path) {
  throw Error(path + ": expected a file system that can lock a file, got one that cannot");
}

void FileSystem::exchange(const std::string& one, const std::string&) {
  throw Error(one + ": expected a file system that can exchange two names, got one that cannot");
}

void FileSystem::link(const std::string&, const std::string& to) {
  throw Error(to + ": expected a file system that can link files, got one that cannot");
}

bool FileSystem::is_link(const std::string&) { return false; }

std::string join(std::string_view folder, std::string_view name) {
  std::string path(folder);
  if (!path.empty() && path.back() != '/') path += '/';
  return path.append(name);
}

std::string read_text(FileSystem& fs, const std::string& path) {
  const auto file = fs.open(path, OpenMode::kRead);
  std::string text(file->size(), '\0');
  file->pread(std::as_writable_bytes(std::span(text)), 0);
  return text;
}

std::string parent(const std::string& path) {
  const std::size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

void make_folders(FileSystem& fs, const std::string& path) {
  if (path.empty() || fs.is_folder(path)) return;
  make_folders(fs, parent(path));
  if (!fs.is_folder(path)) fs.make_folder(path);
}

void remove_all(FileSystem& fs, const std::string& path) {
  if (!fs.exists(path)) return;
  if (fs.is_link(path) || !fs.is_folder(path)) {
    fs.unlink(path);
    return;
  }
  for (const std::string& name : fs.list(path)) remove_all(fs, join(path, name));
  fs.remove_folder(path);
}

void copy_file(FileSystem& fs, const std::string& from, const std::string& to) {
  const auto in = fs.open(from, OpenMode::kRead);
  const auto out = fs.open(to, OpenMode::kCreate);
  const std::uint64_t size = in->size();
  std::vector<std::byte> buffer(std::min<std::uint64_t>(size, 4 << 20));
  for (std::uint64_t at = 0; at < size;) {
    const auto part = std::span(buffer).first(std::min<std::uint64_t>(buffer.size(), size - at));
    in->pread(part, at);
    out->pwrite(part, at);
    at += part.size();
  }
  out->sync();
}

void write_atomic(FileSystem& fs, const std::string& path, std::string_view data) {
  const std::string temporary = path + ".tmp";
  try {
    if (fs.exists(temporary)) fs.unlink(temporary);
    {
      const auto file = fs.open(temporary, OpenMode::kCreate);
      file->pwrite(std::as_bytes(std::span(data)), 0);
      file->sync();
    }
    fs.rename(temporary, path);
  } catch (...) {
    try {
      if (fs.exists(temporary)) fs.unlink(temporary);
    } catch (const Error&) {  // the first error is the one to tell
    }
    throw;
  }
  fs.sync_folder(parent(path));
}

}  // namespace memlayers::io
