// SPDX-License-Identifier: Apache-2.0
#include "io/file_system.h"

#include <algorithm>

#include "io/temporary.h"
#include "memlayers/error.h"

namespace memlayers::io {

std::unique_ptr<Scratch> FileSystem::make_scratch(const std::string& folder, std::uint64_t) {
  throw Error(folder + ": expected a file system that can map a scratch file, got one that cannot");
}

std::unique_ptr<Lock> FileSystem::lock(const std::string& path) {
  throw NoLocks(path + ": expected a file system that can lock a file, got one that cannot");
}

void FileSystem::exchange(const std::string& one, const std::string&) {
  throw Error(one + ": expected a file system that can exchange two names, got one that cannot");
}

void FileSystem::link(const std::string&, const std::string& to) {
  throw Error(to + ": expected a file system that can link files, got one that cannot");
}

void FileSystem::rename_new(const std::string& from, const std::string& to) {
  if (exists(to)) throw Exists(to + ": cannot rename to it: it exists");
  rename(from, to);
}

void FileSystem::remove_tree(const std::string& path, const std::string& first) {
  if (!exists(path)) return;
  if (is_link(path) || !is_folder(path)) return unlink(path);
  if (!first.empty() && exists(join(path, first))) unlink(join(path, first));
  for (const std::string& name : list(path)) remove_tree(join(path, name), "");
  remove_folder(path);
}

std::optional<std::uint64_t> FileSystem::free_bytes(const std::string&) { return std::nullopt; }

bool FileSystem::is_link(const std::string&) { return false; }

std::string join(std::string_view folder, std::string_view name) {
  std::string path(folder);
  if (!path.empty() && path.back() != '/') path += '/';
  return path.append(name);
}

std::string read_text(FileSystem& fs, const std::string& path) {
  const auto file = fs.open(path, OpenMode::kRead);
  std::string text;
  try {
    text.resize(file->size());
  } catch (const std::exception&) {  // bad_alloc, or more than a string can ever hold
    throw Error(path + ": out of memory: no room for its " + std::to_string(file->size()) +
                " bytes");
  }
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

void remove_all(FileSystem& fs, const std::string& path, const std::string& first) {
  fs.remove_tree(path, first);
}

std::string no_room_text(const std::string& folder, const std::string& what, std::uint64_t bytes,
                         std::optional<std::uint64_t> free) {
  const auto text = [](std::uint64_t n) {
    return std::to_string(n / 1'000'000'000) + "." + std::to_string(n / 100'000'000 % 10) +
           " GB (" + std::to_string(n) + " bytes)";
  };
  return folder + ": expected room for " + what + text(bytes) + ", got " +
         (free ? text(*free) : "less");
}

void ask_for_room(FileSystem& fs, const std::string& folder, std::uint64_t bytes) {
  std::string place = folder;
  while (!fs.exists(place) && place != "." && place != "/") place = parent(place);
  const std::optional<std::uint64_t> free = fs.free_bytes(place);
  if (free && *free < bytes) throw Error(no_room_text(folder, "", bytes, free));
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
  const TemporaryName temporary(fs, path);
  const auto file = fs.open(temporary.path(), OpenMode::kCreate);
  try {
    file->pwrite(std::as_bytes(std::span(data)), 0);
    file->sync();
    fs.rename(temporary.path(), path);
  } catch (...) {
    temporary.remove();
    throw;
  }
  fs.sync_folder(parent(path));
}

}  // namespace memlayers::io
