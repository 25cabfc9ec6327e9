// SPDX-License-Identifier: Apache-2.0
#include "io/folder.h"

#define XXH_INLINE_ALL
#include <unistd.h>
#include <xxhash.h>

#include <array>
#include <nlohmann/json.hpp>

#include "memlayers/error.h"

namespace memlayers::io {
namespace {

constexpr const char* kManifest = "MANIFEST.json";

// Files of a folder and of its folders, as "name" or "folder/name".
std::vector<std::string> files_in(FileSystem& fs, const std::string& folder,
                                  const std::string& prefix) {
  std::vector<std::string> names;
  for (const std::string& name : fs.list(folder)) {
    const std::string path = join(folder, name);
    if (fs.is_folder(path)) {
      for (std::string& inner : files_in(fs, path, prefix + name + "/"))
        names.push_back(std::move(inner));
    } else if (prefix + name != kManifest) {
      names.push_back(prefix + name);
    }
  }
  return names;
}

std::string parent(const std::string& path) {
  const std::size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

std::uint64_t xxh3(std::span<const std::byte> data) {
  return XXH3_64bits(data.data(), data.size());
}

std::string xxh3_hex(std::span<const std::byte> data) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::uint64_t hash = xxh3(data);
  std::string text(16, '0');
  for (std::size_t i = 16; i-- > 0; hash >>= 4) text[i] = kDigits[hash & 15];
  return text;
}

FolderWriter::FolderWriter(FileSystem& fs, std::string path)
    : fs_(fs), path_(std::move(path)), temporary_(path_ + ".tmp-" + std::to_string(::getpid())) {
  if (fs_.exists(path_)) throw Error(path_ + ": expected no folder of this name, found one");
  remove_all(fs_, temporary_);
  make_folders(fs_, temporary_);
}

FolderWriter::~FolderWriter() {
  if (committed_) return;
  try {
    remove_all(fs_, temporary_);
  } catch (const Error&) {  // nothing can be done here; the next writer removes it
  }
}

std::string FolderWriter::file(const std::string& name) {
  const std::string path = join(temporary_, name);
  make_folders(fs_, parent(path));
  return path;
}

void FolderWriter::write_text(const std::string& name, std::string_view text) {
  const auto out = fs_.open(file(name), OpenMode::kCreate);
  out->pwrite(std::as_bytes(std::span(text)), 0);
  out->sync();
}

void FolderWriter::commit() {
  nlohmann::json files = nlohmann::json::object();
  for (const std::string& name : files_in(fs_, temporary_, "")) {
    const auto mapping = fs_.map(join(temporary_, name));
    files[name] = {{"size", mapping->bytes().size()}, {"xxh3", xxh3_hex(mapping->bytes())}};
    const std::size_t slash = name.find('/');
    if (slash != std::string::npos) fs_.sync_folder(join(temporary_, name.substr(0, slash)));
  }
  const nlohmann::json manifest = {
      {"format", "memlayers-manifest"}, {"version", 1}, {"files", files}};
  write_text(kManifest, manifest.dump(1));
  fs_.sync_folder(temporary_);
  fs_.rename(temporary_, path_);
  committed_ = true;
  fs_.sync_folder(parent(path_));
}

std::map<std::string, ManifestEntry> read_manifest(FileSystem& fs, const std::string& folder) {
  const std::string path = join(folder, kManifest);
  std::map<std::string, ManifestEntry> entries;
  try {
    const nlohmann::json manifest = nlohmann::json::parse(read_text(fs, path));
    for (const auto& [name, entry] : manifest.at("files").items()) {
      entries[name] = {entry.at("size").get<std::uint64_t>(), entry.at("xxh3").get<std::string>()};
    }
  } catch (const nlohmann::json::exception& error) {
    throw Error(path + ": expected a manifest of files with size and xxh3, got: " + error.what());
  }
  return entries;
}

bool is_complete(FileSystem& fs, const std::string& folder) {
  try {
    for (const auto& [name, entry] : read_manifest(fs, folder)) {
      if (fs.open(join(folder, name), OpenMode::kRead)->size() != entry.size) return false;
    }
  } catch (const Error&) {
    return false;
  }
  return true;
}

void verify_folder(FileSystem& fs, const std::string& folder) {
  for (const auto& [name, entry] : read_manifest(fs, folder)) {
    const std::string path = join(folder, name);
    const auto mapping = fs.map(path);
    if (mapping->bytes().size() != entry.size) {
      throw Error(path + ": expected " + std::to_string(entry.size) +
                  " bytes by MANIFEST.json, got " + std::to_string(mapping->bytes().size()));
    }
    const std::string hash = xxh3_hex(mapping->bytes());
    if (hash != entry.xxh3) {
      throw Error(path + ": expected checksum " + entry.xxh3 + " by MANIFEST.json, got " + hash);
    }
  }
}

}  // namespace memlayers::io
